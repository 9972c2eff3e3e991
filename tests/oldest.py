"""The oldest version that may run beside this one, taken out of the repository's history."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from nightshift.supervisor import PROJECT

OLDEST = "9e1190964fa041e2e60e0eb4e59cbd3f6d212d66"
"""Moved forward at each release, to the one before it; or when a migration takes away what this one still uses."""
_ROOMS = ("connectors", "contracts", "nightshift", "processes", "services")


def unpacked(folder: Path) -> Path:
    """Its code, in this folder. Skips the test where the history cannot be read or does not reach so far back."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("there is no git to take the oldest version out of the history")
    anybodys = ("-c", "safe.directory=*")  # a checkout may belong to another user than the one who tests it
    found = subprocess.run(
        [git, *anybodys, "-C", PROJECT, "archive", OLDEST, *_ROOMS], capture_output=True, check=False
    )
    if found.returncode != 0:
        said = found.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        pytest.skip(f"the history here does not give the oldest version, {OLDEST[:9]}: {said}")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def environment(tree: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """For a program of the version that lies in `tree`: the shell's, without any setting of ours but these."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    return {**shell, **settings, "PYTHONPATH": str(tree)}
