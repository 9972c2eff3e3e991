"""The stack for tests, embedded or real: one server a session, a database of its own for each test.

`pytest --stack=real` runs the same tests on containers (tests/stacks.py); without a container engine each is skipped.
"""

import asyncio
import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from nightshift.embedded.child import free_port as a_free_port
from services.runtime.migrate import migrate
from tests.stacks import (
    KAFKA_IMAGE,
    POSTGRES_IMAGE,
    Broker,
    Embedded,
    Postgres,
    Real,
    Stack,
    engine_missing,
    run_sql,
)

_TEMPLATE = "migrated_template"
_MEMORY = Path("/dev/shm")
_MEMORY_FREE_MIN = 6 << 30
_SHARE_A_NIGHT = frozenset({"test_commands.py", "test_night.py", "test_replay.py"})
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stack", choices=("embedded", "real"), default="embedded", help="what the tests run on")


class _OneNight(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """A file's tests stay together, and so do the files that share the demo of a session: its nights take a minute."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "the night" if Path(file).name in _SHARE_A_NIGHT else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a third of the time tests wait, for a broker or for a lease."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return _OneNight(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_report_header(config: pytest.Config) -> str:
    if config.getoption("stack") == "embedded":
        return "stack: embedded"
    missing = engine_missing()
    return f"stack: {KAFKA_IMAGE}, {POSTGRES_IMAGE}" if missing is None else f"stack: SKIPPED, for {missing}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.config.getoption("stack") == "real":
        if (missing := engine_missing()) is not None:
            pytest.skip(missing)
        if item.path.name.startswith("test_embedded_"):
            pytest.skip("about the embedded stack itself")
        if item.get_closest_marker("alike_on_any_stack"):
            pytest.skip("alike on any stack")


@dataclass(frozen=True)
class MigratedDatabase:
    """A database of one test, with every migration applied."""

    server: Postgres
    name: str

    @property
    def admin_url(self) -> str:
        """As the role that migrated it: the owner of all, and on the real stack no superuser."""
        return self.server.url(self.server.admin, self.name)

    def url(self, role: str) -> str:
        """`role` in full: `nightshift_actor`; `postgres` is the superuser."""
        return self.server.url(role, self.name)


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Stack:
    """What makes servers of the kind that was asked for."""
    return Real() if pytestconfig.getoption("stack") == "real" else Embedded()


@pytest.fixture(scope="session")
def postgres(stack: Stack) -> Iterator[Postgres]:
    """One server for the session. Without fsync: a test kills processes, never the machine."""
    with (
        server_folder(quick=True) as folder,
        stack.postgres(folder / "pg", fsync="off", full_page_writes="off", max_wal_size="512MB") as server,
    ):
        yield server


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """The admin's address of an empty database (with pgvector), dropped after the test."""
    name = f"empty_{next(_numbers)}"
    _sql(postgres, f"CREATE DATABASE {name}")
    yield postgres.url(postgres.admin, name)
    _drop(postgres, name)


@pytest.fixture(scope="session")
def _migrated_template(postgres: Postgres) -> str:
    _sql(postgres, f"CREATE DATABASE {_TEMPLATE}")
    asyncio.run(migrate(postgres.url(postgres.admin, _TEMPLATE)))
    return _TEMPLATE


@pytest.fixture
def migrated(postgres: Postgres, _migrated_template: str) -> Iterator[MigratedDatabase]:
    """A database with every migration applied, dropped after the test."""
    with _copy_of(_migrated_template, postgres) as database:
        yield database


@pytest.fixture(scope="module")
def migrated_once(postgres: Postgres, _migrated_template: str) -> Iterator[MigratedDatabase]:
    """The same, for all tests of a module together."""
    with _copy_of(_migrated_template, postgres) as database:
        yield database


@contextmanager
def _copy_of(template: str, postgres: Postgres) -> Iterator[MigratedDatabase]:
    name = f"migrated_{next(_numbers)}"
    _sql(postgres, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")  # thrice as fast as by WAL
    yield MigratedDatabase(postgres, name)
    _drop(postgres, name)


@pytest.fixture(scope="session")
def kafka(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The session's broker. Topics are shared, so a test names its own."""
    with stack.broker(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture(scope="session")
def broker(kafka: Broker) -> str:
    """What clients of the session's broker connect to."""
    return kafka.bootstrap


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    return a_free_port()


@contextmanager
def server_folder(*, quick: bool = False) -> Iterator[Path]:
    """A folder that any user may enter, as pytest's are not: as root another user runs Postgres.

    A `quick` one lies in memory where there is plenty: ext4 looks long for a free inode where hundreds of databases, of
    hundreds of files each, were just dropped.
    """
    parent = "/tmp" if os.geteuid() == 0 else None
    if quick and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MEMORY_FREE_MIN:
        parent = str(_MEMORY)
    with tempfile.TemporaryDirectory(prefix="nightshift-", dir=parent) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def _sql(server: Postgres, statement: str) -> None:
    run_sql(server.url(server.admin, "postgres"), statement)


def _drop(server: Postgres, name: str) -> None:
    """As the superuser: an autovacuum worker may be at work in it, and nobody else can end that."""
    run_sql(server.url("postgres", "postgres"), f"DROP DATABASE {name} WITH (FORCE)")


def pytest_collection_finish() -> None:
    """What was collected stays: the garbage collector need not walk thousands of tests again and again."""
    gc.collect()
    gc.freeze()
