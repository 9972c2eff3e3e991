from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.runtime.migrate import UnknownRoleError, migrate
from tests.conftest import MigratedDatabase
from tests.stacks import Postgres

_SET = "SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'nightshift_reporter'"


@pytest.fixture
async def bare(postgres: Postgres) -> AsyncIterator[str]:
    """The superuser's address of a database as Postgres makes it: without pgvector."""
    superuser = await asyncpg.connect(postgres.url("postgres", "postgres"))
    try:
        await superuser.execute("CREATE DATABASE bare TEMPLATE template0")
        yield postgres.url("postgres", "bare")
        await superuser.execute("DROP DATABASE bare WITH (FORCE)")
    finally:
        await superuser.close()


async def test_a_role_gets_the_password_of_its_services_address(migrated: MigratedDatabase) -> None:
    superuser = await asyncpg.connect(migrated.url("postgres"))
    try:
        await migrate(migrated.admin_url, {"nightshift_reporter": "it's"})

        assert await superuser.fetchval(_SET)
    finally:
        await superuser.execute("ALTER ROLE nightshift_reporter PASSWORD NULL")  # roles are shared by all tests
        await superuser.close()


async def test_the_password_of_a_role_that_is_none_of_ours_is_not_changed(migrated: MigratedDatabase) -> None:
    with pytest.raises(UnknownRoleError, match="postgres"):
        await migrate(migrated.admin_url, {"postgres": "x"})


async def test_a_database_without_pgvector_gets_it(bare: str) -> None:
    await migrate(bare)

    connection = await asyncpg.connect(bare)
    try:
        assert await connection.fetchval("SELECT '[1,2]'::public.halfvec::text") == "[1,2]"
    finally:
        await connection.close()


async def test_a_pgvector_that_is_too_old_is_refused_with_its_mend(bare: str) -> None:
    connection = await asyncpg.connect(bare)
    try:
        await connection.execute("CREATE EXTENSION vector")
        await connection.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    finally:
        await connection.close()

    with pytest.raises(asyncpg.RaiseError, match="is too old"):
        await migrate(bare)
