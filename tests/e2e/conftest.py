"""One demo for the session, played once and then left running: what newcomers see, and what commands talk to."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from nightshift.embedded.child import bound
from nightshift.supervisor import PROJECT
from services.runtime.postgres import Connection
from tests.conftest import server_folder

SUMMARY_SECONDS_MAX = 240
END_SECONDS_MAX = 10.0
STAYS = "It stays up until Ctrl-C."


def environment() -> dict[str, str]:
    """The shell's, without any setting of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}


def nightshift(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command on a state folder to its end."""
    return nightshift_alone(*words, "--state", str(state))


def nightshift_alone(*words: str) -> subprocess.CompletedProcess[str]:
    """Run one command that needs no state folder to its end."""
    return subprocess.run(
        [sys.executable, "-m", "nightshift", *words],
        cwd=PROJECT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SUMMARY_SECONDS_MAX,
    )


@dataclass(frozen=True)
class RunningDemo:
    """A demo whose night is over and that stays up."""

    state: Path
    said: str
    """Everything it printed up to the end of the summary."""
    process: "subprocess.Popen[str]"

    def answer(self, *words: str) -> Any:
        """What a command answers to a machine."""
        done = nightshift(self.state, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def told(self) -> dict[str, Any]:
        """What stack.json says."""
        told: dict[str, Any] = json.loads((self.state / "stack.json").read_text())
        return told

    @property
    def credentials(self) -> dict[str, Any]:
        """What the world outside and the stack know of each other."""
        known: dict[str, Any] = json.loads((self.state / "world" / "credentials.json").read_text())
        return known

    def interrupt(self) -> float:
        """Ctrl-C, and impatiently again; how many seconds the end took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # as a person would
        self.process.send_signal(signal.SIGINT)
        self.process.wait(3 * END_SECONDS_MAX)
        return time.monotonic() - began


@contextmanager
def demo_in(state: Path, *words: str, until: str = STAYS) -> Iterator[RunningDemo]:
    """A demo that has said `until`, for the length of the block; ended when it did not end itself."""
    command = [sys.executable, "-m", "nightshift", "demo", *words, "--state", str(state)]
    with subprocess.Popen(
        bound(command, dies_by=signal.SIGINT),  # also when the tests themselves are killed
        cwd=PROJECT,
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = []
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if until in line:
                    break
            assert until in said[-1], "".join(said)
            yield RunningDemo(state, "".join(said), process)
        finally:
            if process.poll() is None:
                process.terminate()


def alive(pids: Sequence[int]) -> list[psutil.Process]:
    """Which of these processes still run."""
    there = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return [process for process in there if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def family_of(pid: int) -> list[int]:
    """A process and everything it started."""
    parent = psutil.Process(pid)
    return [pid, *(child.pid for child in parent.children(recursive=True))]


@pytest.fixture(scope="session")
def state() -> Iterator[Path]:
    """The session's state folder."""
    with server_folder() as folder:
        yield folder / "state"


@pytest.fixture(scope="session")
def first_night(state: Path) -> subprocess.CompletedProcess[str]:
    """A night of 3 tickets that ended by itself."""
    return nightshift(state, "demo", "--exit", "--tickets", "3", "--seed", "7")


@pytest.fixture(scope="session")
def night(state: Path, first_night: subprocess.CompletedProcess[str]) -> Iterator[RunningDemo]:
    """The next night on the same state, of 40 tickets, over; the demo stays up for the session."""
    assert first_night.returncode == 0, first_night.stdout + first_night.stderr
    with demo_in(state, "--tickets", "40", "--seed", "7") as demo:
        yield demo
        family = family_of(demo.process.pid)
        assert demo.interrupt() < END_SECONDS_MAX
        assert demo.process.returncode == 0
        assert alive(family) == []


@pytest.fixture
async def operator(night: RunningDemo) -> AsyncIterator[Connection]:
    """The operator's connection to the demo's database."""
    connection = await asyncpg.connect(night.told["admin_url"])
    yield connection
    await connection.close()
