"""The whole system on one machine: Postgres, broker, migrations and the four services, for the length of a block.

A state folder holds everything that outlives it: the database, the ports, the console's token, the logs; and while the
stack runs `stack.json`, by which another shell finds it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Self
from urllib.parse import urlsplit

import asyncpg

from nightshift import MendableError
from nightshift.embedded.broker import EmbeddedBroker
from nightshift.embedded.child import free_port, is_free
from nightshift.embedded.postgres import COPIES, EmbeddedPostgres
from nightshift.supervisor import GRACE_SECONDS, PROJECT, Service, Supervisor, supervise
from services.runtime.config import named_setting
from services.runtime.migrate import SERVICES, EditedMigrationError, migrate

_FIRST_START = """
INSERT INTO control.switches (process, paused, reason) SELECT $1, false, 'first start'
WHERE NOT EXISTS (SELECT FROM control.deleted_switches WHERE process = $1) ON CONFLICT DO NOTHING
"""
_ADMIN_URL = "NIGHTSHIFT_DATABASE_ADMIN_URL"
_SECURED_BROKER = ("NIGHTSHIFT_KAFKA_SECURITY_", "NIGHTSHIFT_KAFKA_CA", "NIGHTSHIFT_KAFKA_SASL_")
EMBEDDED_PARTITIONS = "1"
"""One of each service works here; each partition costs the embedded broker and every consumer a share of each fetch."""
OPTIONS = MappingProxyType({"ingest": "--intake-port", "reporter": "--console-port"})


class StackError(MendableError):
    """The stack cannot start."""


class Stack:
    """The running system. `async with Stack(folder) as stack:` returns when every service is ready."""

    def __init__(
        self,
        state: Path,
        *,
        environment: Mapping[str, str] | None = None,
        intake_port: int | None = None,
        console_port: int | None = None,
        services: Sequence[str] = SERVICES,
        postgres_settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`environment` is the outside world (credentials, addresses, PATH); our own variables are put on top of it.

        Where it holds NIGHTSHIFT_DATABASE_URL or NIGHTSHIFT_KAFKA_BOOTSTRAP, that one is used and none is started.
        """
        self.state = state.expanduser().resolve()
        self._environment = dict(os.environ if environment is None else environment)
        self._names = tuple(services)
        self._wished = {"ingest": intake_port, "reporter": console_port}
        self._postgres_settings = postgres_settings
        self._exit = AsyncExitStack()
        self._ports: dict[str, int] = {}
        self._token = ""
        self.postgres: EmbeddedPostgres | None = None
        """None where the database is the user's own."""
        self.broker: EmbeddedBroker | None = None
        """None where the broker is the user's own."""
        self.supervisor: Supervisor | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def _start(self) -> None:
        make_state_folder(self.state)
        self._exit.enter_context(contextlib.closing(_only_one(self.state)))
        self._ports = _ports(self.state, self._names, self._wished)
        self._token = _token(self.state)
        # Both are started in this very thread: they live as long as it does. Nothing runs yet that would have to wait.
        if external_admin_url(self._environment) is None:
            self.postgres = EmbeddedPostgres(self.state / "postgres", settings=self._postgres_settings)
            self._exit.enter_context(self.postgres)
        if not self._environment.get("NIGHTSHIFT_KAFKA_BOOTSTRAP"):
            self.broker = self._exit.enter_context(EmbeddedBroker(self.state, port=self._ports["broker"]))
        await prepare_database(self.admin_url, self.processes)
        self._exit.callback((self.state / "stack.json").unlink, missing_ok=True)
        self.supervisor = await self._exit.enter_async_context(
            supervise(
                [self._service(name) for name in self._names],
                logs=self.state / "logs",
                changed=self._write,
                grace_seconds=GRACE_SECONDS,
            )
        )
        await self.supervisor.ready()
        self._write()

    @property
    def processes(self) -> tuple[str, ...]:
        """The processes that the services work for."""
        return tuple(self._environment.get("NIGHTSHIFT_PROCESSES", "support").replace(" ", "").split(","))

    @property
    def admin_url(self) -> str:
        """The database, as the role that migrates and operates."""
        if self.postgres is not None:
            return self.postgres.admin_url
        url = external_admin_url(self._environment)
        assert url is not None, "without one Postgres is embedded"
        return url

    def database_url(self, service: str) -> str:
        """The database, as a service's own role."""
        role = f"nightshift_{service}"
        if self.postgres is not None:
            return self.postgres.url(role)
        url = named_setting("NIGHTSHIFT_DATABASE_URL", self._environment)
        assert url is not None, "without one Postgres is embedded"
        return as_role(url, role)

    @property
    def bootstrap(self) -> str:
        """The broker."""
        return self._environment["NIGHTSHIFT_KAFKA_BOOTSTRAP"] if self.broker is None else self.broker.bootstrap

    def url(self, service: str) -> str:
        """Where a service listens: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._ports[service]}"

    @property
    def intake_url(self) -> str:
        """Where webhooks go, without `/webhooks/{process}/{source}`."""
        return self.url("ingest")

    @property
    def console_url(self) -> str:
        """The console's link, token included."""
        return f"{self.url('reporter')}/?token={self._token}"

    def kill(self, service: str) -> None:
        """`kill -9` one service, for tests; it is started again."""
        assert self.supervisor is not None, "it runs"
        self.supervisor.kill(service)

    def _service(self, name: str) -> Service:
        python_path = os.pathsep.join(filter(None, (str(PROJECT), self._environment.get("PYTHONPATH"))))
        ours = {
            "NIGHTSHIFT_DATABASE_URL": self.database_url(name),
            "NIGHTSHIFT_KAFKA_BOOTSTRAP": self.bootstrap,
            "NIGHTSHIFT_KAFKA_PARTITIONS": self._environment.get("NIGHTSHIFT_KAFKA_PARTITIONS")
            or ("4" if self.broker is None else EMBEDDED_PARTITIONS),
            "NIGHTSHIFT_HTTP_HOST": "127.0.0.1",
            "NIGHTSHIFT_HTTP_PORT": str(self._ports[name]),
            "NIGHTSHIFT_PROCESSES": ",".join(self.processes),
            "NIGHTSHIFT_GRACE_SECONDS": str(GRACE_SECONDS - 1),
            "PYTHONPATH": python_path,
            "PYTHONUNBUFFERED": "1",
        }
        if self.broker is not None:
            ours["NIGHTSHIFT_KAFKA_IDEMPOTENCE"] = "false"  # it knows no idempotent producer
        if name == "reporter":
            ours["NIGHTSHIFT_CONSOLE_TOKEN"] = self._token
        foreign = _ADMIN_URL if self.broker is None else (_ADMIN_URL, *_SECURED_BROKER)
        environment = {k: v for k, v in self._environment.items() if not k.startswith(foreign)} | ours
        return Service(
            name=name, module=f"services.{name}", environment=environment, ready_url=f"{self.url(name)}/readyz"
        )

    def _write(self) -> None:
        """Tell other shells where everything is."""
        services = {} if self.supervisor is None else {name: self.supervisor.pid(name) for name in self._names}
        told = {
            "pid": os.getpid(),
            "pids": {
                "postgres": None if self.postgres is None else self.postgres.pid,
                "broker": None if self.broker is None else self.broker.pid,
                **services,
            },
            "ports": self._ports,
            "urls": {name: self.url(name) for name in self._names},
            "kafka_bootstrap": self.bootstrap,
            # A database of the user's own may hold a password in its address: other shells have it from their settings.
            "admin_url": None if self.postgres is None else self.postgres.admin_url,
            "processes": self.processes,
        }
        _write_private(self.state / "stack.json", json.dumps(told, indent=2))


async def prepare_database(admin_url: str, processes: Sequence[str] = ()) -> None:
    """Migrate, and give a process that never had a switch one that is on. Raises StackError.

    A missing row means off; who types `up` means on, and each action still starts in the mode of its process.toml.
    """
    try:
        await migrate(admin_url)
        connection = await asyncpg.connect(admin_url, timeout=10)
        try:
            await connection.executemany(_FIRST_START, [(process,) for process in processes])
        finally:
            await connection.close()
    except EditedMigrationError as error:
        raise StackError(str(error)) from error
    except (OSError, asyncpg.PostgresError) as error:
        host = urlsplit(admin_url).hostname or "its socket"
        raise StackError(
            f"the database at {host} cannot be prepared ({error}): `nightshift doctor` looks further"
        ) from error


def external_admin_url(environment: Mapping[str, str]) -> str | None:
    """The user's own database, as the role that may migrate; none where it is the embedded one."""
    url = named_setting("NIGHTSHIFT_DATABASE_URL", environment)
    return url and (named_setting(_ADMIN_URL, environment) or url)


def as_role(url: str, role: str) -> str:
    """The same login, working as a service's role: migrations make the login a member of each."""
    return f"{url}{'&' if '?' in url else '?'}role={role}"


def default_state() -> Path:
    """`.state` in the project; for root in a place that other users cannot enter (Postgres is one), below /var/lib."""
    reachable = all(step.stat().st_mode & 0o001 for step in (PROJECT, *PROJECT.parents))
    if os.geteuid() != 0 or reachable:
        return PROJECT / ".state"
    return COPIES / f"{PROJECT.name}-{hashlib.sha256(os.fsencode(PROJECT)).hexdigest()[:8]}"


def make_state_folder(state: Path) -> None:
    """Make the folder: ours to write, and as root for others to enter. Raises StackError."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        (state / "logs").mkdir(mode=0o700, exist_ok=True)
        if state.stat().st_uid == os.geteuid():
            state.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise StackError(
            f"the state folder {state} cannot be written ({error.strerror}): name another one with --state"
        ) from error


def running(state: Path) -> dict[str, Any] | None:
    """What stack.json says while this folder's stack is up; none when it is not, or was killed. Raises StackError."""
    try:
        with (state / "stack.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            told: dict[str, Any] = json.loads((state / "stack.json").read_text())
        except FileNotFoundError:
            return None  # it is starting or stopping
        return told
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise StackError(
            f"the state folder {state} cannot be read: be the user whose it is, or name another one with --state"
        ) from error
    return None


def _only_one(state: Path) -> IO[str]:
    """The stack's lock on its folder, which the kernel drops when we end."""
    file = (state / "stack.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        pid = (running(state) or {}).get("pid", "unknown")
        raise StackError(
            f"a stack runs on {state} already (pid {pid}): stop it first, or name another folder with --state"
        ) from None
    return file


def _ports(state: Path, names: Sequence[str], wished: Mapping[str, int | None]) -> dict[str, int]:
    """A port for each listener: the one wished for, else the one it had, else a free one. Raises StackError."""
    file = state / "ports.json"
    kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    ports: dict[str, int] = {}
    for name in (*names, "broker"):
        port = wished.get(name) or kept.get(name)
        if port is None or port in ports.values() or not is_free(port):
            if wished.get(name):
                raise StackError(f"port {port} is taken: choose another with {OPTIONS[name]}")
            port = free_port()
        ports[name] = port
    _write_private(file, json.dumps(kept | ports))
    return ports


def _token(state: Path) -> str:
    """The console's token: made once, kept for its owner alone."""
    file = state / "console-token"
    if not file.exists():
        _write_private(file, secrets.token_urlsafe(24))
    return file.read_text()


def _write_private(file: Path, text: str) -> None:
    """Write a file for its owner alone, whole or not at all."""
    draft = file.with_name(f"{file.name}.new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(file)
