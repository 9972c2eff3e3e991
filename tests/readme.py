"""The commands of README.md. A test that runs one asks for it here, so that what the README says is what was tried."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from nightshift.supervisor import PROJECT

README = PROJECT / "README.md"
_SET_IN = re.compile(r"^ {4}(.+?)(?: {2,}#.*)?$", re.MULTILINE)
_QUOTED = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:(?:\.venv/bin/)?nightshift|docker|kubectl|make|psql|pg_dump|UPDATE|SET)(?: |$)|scripts/|--")


def lines_set_in() -> list[str]:
    """What stands apart, four spaces in; a comment at its end belongs to the reader."""
    return _SET_IN.findall(README.read_text())


@cache
def commands() -> frozenset[str]:
    """Every command and every option of a command, set in or in backticks."""
    return frozenset(filter(_COMMAND.match, [*lines_set_in(), *_QUOTED.findall(README.read_text())]))


def from_readme(command: str) -> str:
    """`command`, which the README says in these words. tests/unit/test_readme.py looks for each one's call."""
    assert command in commands(), f"README.md does not say {command!r}"
    return command


def typed(line: str, environment: Mapping[str, str], *, seconds_max: float = 600) -> "subprocess.CompletedProcess[str]":
    """What comes of typing a line in the project's folder, with .venv in the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=PROJECT,
        env={**environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds_max,
    )
