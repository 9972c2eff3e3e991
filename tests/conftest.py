"""The embedded stack for tests: one server a session, a database of its own for each test."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from nightshift.embedded.broker import EmbeddedBroker
from nightshift.embedded.child import free_port as a_free_port
from nightshift.embedded.postgres import EmbeddedPostgres
from services.runtime.migrate import migrate

_TEMPLATE = "migrated_template"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class MigratedDatabase:
    """A database of one test, with every migration applied."""

    server: EmbeddedPostgres
    name: str

    @property
    def admin_url(self) -> str:
        return self.server.url("postgres", self.name)

    def url(self, role: str) -> str:
        """`role` in full: `nightshift_actor`."""
        return self.server.url(role, self.name)


@pytest.fixture(scope="session")
def embedded_postgres() -> Iterator[EmbeddedPostgres]:
    """One server for the session. Without fsync: a test kills processes, never the machine."""
    quick = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_wal_size": "512MB"}
    with server_folder() as folder, EmbeddedPostgres(folder / "pg", settings=quick) as server:
        yield server


@pytest.fixture
def database_url(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """The superuser's address of an empty database (with pgvector), dropped after the test."""
    name = f"empty_{next(_numbers)}"
    _sql(embedded_postgres, f"CREATE DATABASE {name}")
    yield embedded_postgres.url("postgres", name)
    _sql(embedded_postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _migrated_template(embedded_postgres: EmbeddedPostgres) -> str:
    _sql(embedded_postgres, f"CREATE DATABASE {_TEMPLATE}")
    asyncio.run(migrate(embedded_postgres.url("postgres", _TEMPLATE)))
    return _TEMPLATE


@pytest.fixture
def migrated(embedded_postgres: EmbeddedPostgres, _migrated_template: str) -> Iterator[MigratedDatabase]:
    """A database with every migration applied, dropped after the test."""
    name = f"migrated_{next(_numbers)}"
    _sql(embedded_postgres, f"CREATE DATABASE {name} TEMPLATE {_migrated_template}")
    yield MigratedDatabase(embedded_postgres, name)
    _sql(embedded_postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The session's broker: what clients connect to. Topics are shared, so a test names its own."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as server:
        yield server.bootstrap


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    return a_free_port()


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder that any user may enter, as pytest's are not: as root another user runs Postgres."""
    with tempfile.TemporaryDirectory(prefix="nightshift-", dir="/tmp" if os.geteuid() == 0 else None) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def _sql(server: EmbeddedPostgres, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(server.url("postgres", "postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())
