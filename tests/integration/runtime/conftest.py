"""The actor's schema, as any service's: what the runtime promises is the same for all."""

from collections.abc import AsyncIterator

import pytest

from services.runtime.postgres import Database, connect
from tests.conftest import MigratedDatabase


@pytest.fixture
async def database(migrated: MigratedDatabase) -> AsyncIterator[Database]:
    async with connect(migrated.url("nightshift_actor"), schema="actor") as database:
        yield database


@pytest.fixture
async def running(migrated: MigratedDatabase) -> str:
    """A process whose switch is on."""
    await execute(migrated, "INSERT INTO control.switches (process, paused) VALUES ('tiny', false)")
    return "tiny"


async def execute(migrated: MigratedDatabase, statement: str) -> None:
    """One statement as the superuser."""
    async with connect(migrated.admin_url, schema="public") as admin, admin.connection() as connection:
        await connection.execute(statement)
