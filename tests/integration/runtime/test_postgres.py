"""How a service's connections plan their statements."""

import pytest

from services.runtime.postgres import connect
from tests.conftest import MigratedDatabase

ASKED = "SELECT case_id FROM actor.cases WHERE case_id = $1"


@pytest.mark.parametrize(("plan_once", "plans"), [(True, (3, 0)), (False, (0, 3))])
async def test_a_statement_is_planned_once_for_all_arguments_where_that_is_asked_for(
    migrated: MigratedDatabase, *, plan_once: bool, plans: tuple[int, int]
) -> None:
    url = migrated.url("nightshift_actor")
    async with connect(url, schema="actor", plan_once=plan_once) as database, database.connection() as connection:
        for case_id in ("p:d:1", "p:d:2", "p:d:3"):
            await connection.fetch(ASKED, case_id)

        told = await connection.fetchrow(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1", ASKED
        )

    assert told is not None
    assert tuple(told) == plans
