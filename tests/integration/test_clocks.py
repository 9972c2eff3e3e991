"""Clocks outside run ahead, the wall's clock changes, days leap: nothing is late by it, early, or counted wrong."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import MigratedDatabase
from tests.fakes import remote
from tests.fakes.acting import tiny
from tests.fakes.living import living, zendesk_like
from tests.fakes.proposing import Bench, bench
from tests.integration.test_actor_outages import answered_once_each, asks, sla_is_right
from tests.virtual import VirtualTime, live

SUMMER_ENDS = datetime(2026, 10, 25, 0, 40, tzinfo=UTC)
SUMMER_BEGINS = datetime(2027, 3, 28, 0, 40, tzinfo=UTC)
LEAP_DAY_BEGINS = datetime(2028, 2, 28, 23, 40, tzinfo=UTC)
LEAP_DAY_ENDS = datetime(2028, 2, 29, 23, 40, tzinfo=UTC)
YEAR_ENDS = datetime(2026, 12, 31, 23, 40, tzinfo=UTC)


@pytest.fixture
async def desk(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated, tiny(limits={"settle_seconds": 90})) as made:
        yield made


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), timedelta(days=1)])
async def test_a_question_dated_ahead_waits_for_what_the_customer_adds_and_no_longer(
    desk: Bench, ahead: timedelta
) -> None:
    desk.outside.tick(ahead.total_seconds())
    await desk.hear(desk.outside.says("1"))

    waits: float = await desk.admin.fetchval(
        "SELECT extract(epoch FROM available_at - clock_timestamp())::float8 FROM classifier.tasks"
    )
    assert 80 < waits <= 90


@pytest.mark.parametrize(
    ("begins_at", "zone"),
    [
        pytest.param(SUMMER_ENDS, "Europe/Berlin", id="an hour comes twice"),
        pytest.param(SUMMER_BEGINS, "Europe/Berlin", id="an hour is left out"),
        pytest.param(LEAP_DAY_BEGINS, "UTC", id="the leap day begins"),
        pytest.param(LEAP_DAY_ENDS, "America/New_York", id="the leap day ends"),
        pytest.param(YEAR_ENDS, "Asia/Kolkata", id="a year ends, half an hour off"),
    ],
)
def test_an_outage_over_a_change_of_the_calendar_is_like_any_other(
    migrated: MigratedDatabase, begins_at: datetime, zone: str
) -> None:
    async def scenario(time: VirtualTime) -> None:
        process = zendesk_like()
        async with living(migrated, time, (30.0, 2400.0, remote.refused), process=process, zone=zone) as actor:
            await actor.live(asks(20, until=2400), until_seconds=3600)
            await answered_once_each(actor, 20)
            rows = await actor.cases()
            sla_is_right(rows, actor.remote)
            hours = await actor.admin.fetch("SELECT hour, count FROM actor.label_hours ORDER BY hour")

        counted = {row["hour"].astimezone(UTC): row["count"] for row in hours}
        asked: dict[datetime, int] = {}
        for row in rows.values():
            assert row.opened_at is not None
            hour = row.opened_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            asked[hour] = asked.get(hour, 0) + 1
        assert len(asked) == 2
        assert counted == asked, "what is usual in an hour is counted by hours of UTC"

    live(scenario, begins_at=begins_at)
