"""One demo for the session, played once and then left running: what newcomers see, and what commands talk to."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from nightshift.demo.outside import Credentials
from nightshift.demo.play import OVERRIDES
from nightshift.embedded.child import bound, free_port
from nightshift.supervisor import PROJECT
from services.runtime.postgres import Connection
from tests import readme
from tests.conftest import server_folder
from tests.stacks import ContainerBroker, Postgres, Real, Stack, run_sql

SUMMARY_SECONDS_MAX = 240
END_SECONDS_MAX = 10.0
STAYS = "It stays up until Ctrl-C."

NewState = Callable[[], AbstractContextManager[Path]]
"""Makes a state folder whose demos play on the stack under test."""
_LENT: dict[Path, dict[str, str]] = {}
"""By state folder: the settings by which its stack is found, where it is not embedded."""
_BROKERS: dict[Path, ContainerBroker] = {}


def environment(state: Path | None = None) -> dict[str, str]:
    """The shell's, without any setting of ours but those by which the stack of a state folder is found."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    return shell | ({} if state is None else _LENT.get(state, {}))


def nightshift(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command on a state folder to its end."""
    return nightshift_alone(*words, "--state", str(state), state=state)


def nightshift_alone(*words: str, state: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command that needs no state folder to its end."""
    return subprocess.run(
        [sys.executable, "-m", "nightshift", *words],
        cwd=PROJECT,
        env=environment(state),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SUMMARY_SECONDS_MAX,
    )


def typed(line: str, state: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Type a line into a shell whose state folder this is, and wait for its end."""
    return readme.typed(
        line, {**environment(state), "NIGHTSHIFT_STATE": str(state), **settings}, seconds_max=SUMMARY_SECONDS_MAX
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

    @property
    def admin_url(self) -> str:
        """The operator's address of the database."""
        url: str = self.told["admin_url"] or _LENT[self.state]["NIGHTSHIFT_DATABASE_URL"]
        return url

    @contextmanager
    def broker_hangs(self) -> Iterator[None]:
        """The broker answers nobody, for the length of the block."""
        if self.state in _BROKERS:
            with _BROKERS[self.state].away():
                yield
            return
        pid = self.told["pids"]["broker"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

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
    command = [sys.executable, "-m", "nightshift", "demo", *words]
    with started(shlex.join(command), state, until=until) as (process, said):
        yield RunningDemo(state, said, process)


@contextmanager
def started(line: str, state: Path, *, until: str, **settings: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Type a line into a shell and wait until it says that; gives what it said up to there. It ends with the block."""
    with subprocess.Popen(
        bound(["/bin/sh", "-c", f"exec {line}"], dies_by=signal.SIGINT),  # also when the tests themselves are killed
        cwd=PROJECT,
        env={**environment(state), "PYTHONUNBUFFERED": "1", "NIGHTSHIFT_STATE": str(state), **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = []
            assert process.stdout is not None
            for told in process.stdout:
                said.append(told)
                if until in told:
                    break
            assert until in said[-1], "".join(said)
            yield process, "".join(said)
        finally:
            if process.poll() is None:
                process.terminate()


def settings_beside(known: Credentials, processes: Path) -> dict[str, str]:
    """What `nightshift up` needs beside a simulated help desk, for processes of a folder; no shop answers."""
    return {
        **known.environment(),
        "NIGHTSHIFT_SHOP_URL": f"postgresql://reader@127.0.0.1:{free_port()}/shop",
        "NIGHTSHIFT_PROCESSES_FOLDER": str(processes),
        "NIGHTSHIFT_PROCESS_OVERRIDES": OVERRIDES,
    }


def alive(pids: Sequence[int]) -> list[psutil.Process]:
    """Which of these processes still run."""
    there = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return [process for process in there if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def family_of(pid: int) -> list[int]:
    """A process and everything it started."""
    parent = psutil.Process(pid)
    return [pid, *(child.pid for child in parent.children(recursive=True))]


@pytest.fixture(scope="session")
def new_state(stack: Stack, request: pytest.FixtureRequest) -> NewState:
    """Where the stack is real, each state has a database and a broker of its own, as a machine would."""

    @contextmanager
    def make() -> Iterator[Path]:
        with server_folder() as folder, ExitStack() as servers:
            state = folder / "state"
            if isinstance(stack, Real):
                postgres: Postgres = request.getfixturevalue("postgres")
                broker = servers.enter_context(ContainerBroker())
                name = f"demo_{broker.port}"
                run_sql(postgres.url(postgres.admin, "postgres"), f"CREATE DATABASE {name}")
                _LENT[state] = {"NIGHTSHIFT_DATABASE_URL": postgres.url(postgres.admin, name), **broker.settings}
                _BROKERS[state] = broker
            yield state

    return make


@pytest.fixture(scope="session")
def state(new_state: NewState) -> Iterator[Path]:
    """The session's state folder."""
    with new_state() as folder:
        yield folder


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
    connection = await asyncpg.connect(night.admin_url)
    yield connection
    await connection.close()
