"""Checks of this machine and this installation."""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psutil

from nightshift import MendableError
from nightshift.doctor.verdict import Check, Place, Verdict, fine, graded
from nightshift.embedded.broker import broker_binary
from nightshift.embedded.child import is_free
from nightshift.embedded.postgres import EmbeddedPostgres, servers_in
from nightshift.supervisor import PROJECT

DISK_BYTES_NEEDED, DISK_BYTES_WISHED = 1_000_000_000, 5_000_000_000
OPEN_FILES_NEEDED, OPEN_FILES_WISHED = 1024, 4096
STRAY_SECONDS_MAX = 0.05


async def python(_: Place) -> list[Verdict]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    new_enough = sys.version_info >= (3, 11)
    mend = "install Python 3.11 or newer, remove .venv, and run `make install`"
    return graded(f"{version} at {sys.executable}", mend, needed=new_enough, wished=new_enough)


async def packages(_: Place) -> list[Verdict]:
    """Everything that pyproject.toml asks for is installed."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    missing = []
    for name in sorted({re.split(r"[\[<>=!~; ]", one)[0] for one in wanted}):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return [Verdict("problem", f"missing: {', '.join(missing)}", "run `make install`")]
    return fine(f"all that pyproject.toml asks for, in {sys.prefix}")


async def embedded_postgres(place: Place) -> list[Verdict]:
    """Its binaries can be run here, by the user that has to."""
    try:
        return fine(EmbeddedPostgres(place.state / "postgres").version())
    except (MendableError, OSError) as error:
        mend = "run `make install`, or set NIGHTSHIFT_DATABASE_URL to a Postgres of your own"
        return [Verdict("problem", str(error), mend)]


async def embedded_broker(place: Place) -> list[Verdict]:
    """Its binary can be run here."""
    try:
        said = subprocess.run(  # noqa: ASYNC221, S603  # nothing runs beside it; our own binary
            [broker_binary(place.state), "--version"], capture_output=True, check=True, text=True, timeout=10
        )
    except (MendableError, OSError, subprocess.SubprocessError) as error:
        mend = "run `make install`, or set NIGHTSHIFT_KAFKA_BOOTSTRAP to a broker of your own"
        return [Verdict("problem", str(error), mend)]
    return fine(said.stdout.strip())


async def state_folder(place: Place) -> list[Verdict]:
    """It can be written, entered by those who must, and its secrets read by nobody else."""
    there = _existing(place.state)
    if not os.access(there, os.W_OK | os.X_OK):
        return [Verdict("problem", f"{there} cannot be written", "name another folder with --state")]
    closed = next((step for step in (there, *there.parents) if not step.stat().st_mode & 0o001), None)
    if os.geteuid() == 0 and closed is not None:
        text = f"other users cannot enter {closed}, and one of them runs Postgres for root"
        return [Verdict("problem", text, "name a folder below /var/lib with --state")]
    token = place.state / "console-token"
    if token.exists() and token.stat().st_mode & 0o077:
        return [Verdict("problem", f"others can read {token}", f"run `chmod 600 {token}`")]
    return fine(f"{place.state}{'' if there == place.state else ' (not made yet)'}")


async def disk(place: Place) -> list[Verdict]:
    """Room for the database and its log."""
    free = shutil.disk_usage(_existing(place.state)).free
    return graded(
        f"{free / 1e9:.1f} GB free where the state folder lies",
        "free some space, or name a folder on another disk with --state",
        needed=free >= DISK_BYTES_NEEDED,
        wished=free >= DISK_BYTES_WISHED,
    )


async def open_files(_: Place) -> list[Verdict]:
    """Each webhook in flight is an open file."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = limit == resource.RLIM_INFINITY
    return graded(
        "no limit" if unlimited else f"limit {limit}",
        f"run `ulimit -n {2 * OPEN_FILES_WISHED}` before the start",
        needed=unlimited or limit >= OPEN_FILES_NEEDED,
        wished=unlimited or limit >= OPEN_FILES_WISHED,
    )


async def clock(_: Place) -> list[Verdict]:
    """The wall clock runs like the monotonic one: it is not being set back and forth."""
    wall, steady = time.time(), time.monotonic()
    await asyncio.sleep(0.2)
    stray = abs((time.time() - wall) - (time.monotonic() - steady))
    mend = "let one program alone set the clock (chrony or systemd-timesyncd)"
    return graded(
        f"strays {stray * 1000:.1f} ms in 200 ms from the monotonic clock",
        mend,
        needed=True,
        wished=stray <= STRAY_SECONDS_MAX,
    )


async def ports(place: Place) -> list[Verdict]:
    """The ports of the last start are free, or in use by our own stack."""
    file = place.state / "ports.json"
    if place.told is not None:
        return fine("in use by the stack that runs: " + ", ".join(map(str, place.told["ports"].values())))
    kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    taken = [f"{port} ({name})" for name, port in kept.items() if not is_free(port)]
    if taken:
        text = f"taken by another program: {', '.join(taken)}"
        return [Verdict("warning", text, "the next start takes others; `ss -ltnp` shows who has these")]
    return fine("free")


async def leftovers(place: Place) -> list[Verdict]:
    """Nothing is left of a run that was killed."""
    if place.told is not None:
        return fine(f"none; the stack runs (pid {place.told['pid']})")
    left = [*servers_in(place.state / "postgres" / "data"), *_orphans(place.state)]
    if left:
        pids = " ".join(str(process.pid) for process in left)
        text = f"processes of an earlier run, or of a command at this moment: {pids}"
        return [Verdict("warning", text, f"look again in a minute; if they are still there, `kill {pids}`")]
    if (place.state / "stack.json").exists():
        text = "the last run was killed; nothing of it runs"
        return [Verdict("warning", text, "nothing needs to be done: the next start recovers")]
    return fine("none")


def _orphans(state: Path) -> list[psutil.Process]:
    """Services of this folder whose supervisor is gone."""
    found = []
    for process in psutil.process_iter(["ppid", "cmdline"]):
        services = any(word.startswith("services.") for word in process.info["cmdline"] or ())
        with contextlib.suppress(psutil.Error):
            if process.info["ppid"] == 1 and services and str(state) in str(process.environ()):
                found.append(process)
    return found


def _existing(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    return next(step for step in (folder, *folder.parents) if step.exists())


CHECKS: dict[str, Check] = {
    "python": python,
    "packages": packages,
    "embedded postgres": embedded_postgres,
    "embedded broker": embedded_broker,
    "state folder": state_folder,
    "disk": disk,
    "open files": open_files,
    "clock": clock,
    "ports": ports,
    "leftovers": leftovers,
}
