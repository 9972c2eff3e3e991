"""Runs the services as child processes: starts those that die again, stops all in time, and never leaves one behind.

- ServiceError: a service does not come up; the message holds its own last words.
"""

import asyncio
import contextlib
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from nightshift import MendableError
from nightshift.embedded.child import bound, last_line

PROJECT = Path(__file__).resolve().parents[1]
GRACE_SECONDS = 6.0
"""From SIGTERM to SIGKILL: with Postgres after it, the whole stack is down within 10 s."""
READY_SECONDS_MAX = 60.0
RESTART_SECONDS_MIN = 0.1
RESTART_SECONDS_MAX = 10.0
HEALTHY_SECONDS = 5.0
"""A service that lived this long starts again at once; one that dies sooner waits longer each time."""
DEATHS_BEFORE_READY_MAX = 3
LOG_BYTES_MAX = 20_000_000
LOGS_KEPT = 3


class ServiceError(MendableError):
    """A service does not come up."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        super().__init__(f"service {name} is not ready: {what} (see {log}; `nightshift doctor` checks the settings)")
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One child: how it is started and where it says that it is ready."""

    name: str
    module: str
    """Started as `python -m <module>`."""
    environment: Mapping[str, str] = field(repr=False)
    """The whole of it."""
    ready_url: str
    folder: Path = PROJECT
    """Where the code lies."""


@dataclass
class _State:
    """What is known of one service's present life."""

    process: Process | None = None
    deaths: int = 0
    """Since it was last healthy."""
    restarts: int = 0


class Supervisor:
    """The services that run. Made by `supervise`."""

    def __init__(self, services: Sequence[Service], logs: Path, changed: Callable[[], None]) -> None:
        self.services = {service.name: service for service in services}
        self._states = {service.name: _State() for service in services}
        self._logs = logs
        self._changed = changed
        self._stopping = asyncio.Event()

    def log_of(self, name: str) -> Path:
        """Where the service's lines go, one JSON object each."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Of the service's present life; none while it waits for a restart."""
        process = self._states[name].process
        return process.pid if process is not None and process.returncode is None else None

    def restarts(self, name: str) -> int:
        """How often it was started again."""
        return self._states[name].restarts

    def kill(self, name: str) -> None:
        """`kill -9` one service, for tests; it is started again. Nothing happens while it is down anyway."""
        process = self._states[name].process
        if process is not None and process.returncode is None:
            process.kill()

    async def ready(self, *, seconds: float = READY_SECONDS_MAX) -> None:
        """Wait until every service answers /readyz with 200. Raises ServiceError."""
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            before = {name: state.restarts for name, state in self._states.items()}
            give_up = asyncio.get_running_loop().time() + seconds
            for service in self.services.values():
                while (wrong := await self._not_ready(client, service)) is not None:
                    # Not `deaths`: where a start takes long, each of them looks like a healthy life.
                    if self.restarts(service.name) - before[service.name] >= DEATHS_BEFORE_READY_MAX:
                        log = self.log_of(service.name)
                        raise ServiceError(service.name, f"it dies: {_reason(log)}", log)
                    if asyncio.get_running_loop().time() > give_up:
                        raise ServiceError(service.name, wrong, self.log_of(service.name))
                    await asyncio.sleep(0.05)

    async def _not_ready(self, client: httpx.AsyncClient, service: Service) -> str | None:
        if self.pid(service.name) is None:
            return "it does not run"
        try:
            answer = await client.get(service.ready_url)
        except httpx.HTTPError as error:
            return f"{service.ready_url} does not answer ({type(error).__name__})"
        return None if answer.is_success else answer.text[:300]

    async def keep(self, service: Service) -> None:
        """Start it, and again whenever it ends, until told to stop."""
        state = self._states[service.name]
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            state.process = await self._spawn(service)
            self._changed()
            if self._stopping.is_set():  # told while it was being started
                _signal(state.process, signal.SIGKILL)
            await state.process.wait()
            if loop.time() - started >= HEALTHY_SECONDS:
                state.deaths = 0
            state.deaths += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), restart_seconds(state.deaths))
            state.restarts += 1

    async def stop(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """SIGTERM to all at once, SIGKILL to those that are left after the grace."""
        self._stopping.set()
        running = [s.process for s in self._states.values() if s.process is not None and s.process.returncode is None]
        for process in running:
            _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                for process in running:
                    await process.wait()
        for process in running:
            if process.returncode is None:
                _signal(process, signal.SIGKILL)

    async def _spawn(self, service: Service) -> Process:
        with self.log_of(service.name).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *bound([sys.executable, "-m", service.module], dies_by=signal.SIGKILL),
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                cwd=service.folder,
                env=service.environment,
                start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
            )


@asynccontextmanager
async def supervise(
    services: Sequence[Service],
    *,
    logs: Path,
    changed: Callable[[], None] = lambda: None,
    grace_seconds: float = GRACE_SECONDS,
) -> AsyncIterator[Supervisor]:
    """Run `services` for the length of the block. `changed` is called after each start, with new pids.

    Enter it from the main thread: the children live as long as the thread that starts them.
    """
    logs.mkdir(parents=True, exist_ok=True)
    supervisor = Supervisor(services, logs, changed)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        for service in services:
            rotate(supervisor.log_of(service.name))
            group.create_task(supervisor.keep(service))
        try:
            yield supervisor
        except Exception as error:  # noqa: BLE001  # raised below as it is: a TaskGroup would wrap it
            failure = error
        finally:
            await supervisor.stop(grace_seconds=grace_seconds)
    if failure is not None:
        raise failure


def restart_seconds(deaths: int) -> float:
    """How long a service waits that died n times since it was healthy: 0.1 s, doubled each time, at most 10 s."""
    return min(RESTART_SECONDS_MAX, RESTART_SECONDS_MIN * 2.0 ** min(deaths - 1, 16))


def rotate(log: Path) -> None:
    """Set a log aside that has grown past its limit; the three newest are kept."""
    if not log.exists() or log.stat().st_size <= LOG_BYTES_MAX:
        return
    for number in range(LOGS_KEPT - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.replace(log.with_name(f"{log.name}.1"))


def _reason(log: Path) -> str:
    """The last line of its log, without the class of the exception, which tells a person nothing."""
    return re.sub(r"^(\w+\.)+\w+: ", "", last_line(log))[:300]


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended just now
        process.send_signal(number)
