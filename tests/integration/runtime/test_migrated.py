"""A service's new version waits until the database is as new as it is."""

import asyncio

import asyncpg
import pytest

from services.runtime.migrate import migrate
from services.runtime.migrated import expected, missing, wait
from tests.conftest import MigratedDatabase

PATIENCE_SECONDS = 20


@pytest.mark.parametrize("service", ["ingest", "classifier", "actor", "reporter"])
async def test_nothing_is_missing_where_everything_ran_and_the_services_own_role_can_tell(
    migrated: MigratedDatabase, service: str
) -> None:
    assert expected(service)
    assert await missing(migrated.url(f"nightshift_{service}"), service) == []


async def test_a_migration_that_has_not_run_or_differs_is_named(migrated: MigratedDatabase) -> None:
    connection = await asyncpg.connect(migrated.admin_url)
    await connection.execute("DELETE FROM nightshift.migrations WHERE name = 'actor/0001_actor.sql'")
    await connection.execute("UPDATE nightshift.migrations SET digest = '' WHERE name = 'actor/runtime/0002_cases.sql'")
    await connection.close()

    lacking = await missing(migrated.url("nightshift_actor"), "actor")

    assert lacking == ["actor/0001_actor.sql", "actor/runtime/0002_cases.sql"]


async def test_a_service_waits_for_a_database_that_is_not_prepared_yet(database_url: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        waiting = group.create_task(wait(database_url, "reporter"))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        await migrate(database_url)
