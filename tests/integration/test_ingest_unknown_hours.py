"""The comparison in trouble: a list that cannot be had, a ticket that cannot be read, a service that dies over it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random
from uuid import uuid4

import pytest

from connectors.protocol import Page, PlainChange
from contracts.failures import LaterError, PermanentError
from services.ingest.app import NotConnected
from services.ingest.outbound.reconciled import FIRST_ID
from services.ingest.ports import LeaseLostError, Outside
from services.runtime.config import MissingSettingError
from services.runtime.postgres import connect
from services.runtime.stop import Stop
from tests.conftest import MigratedDatabase
from tests.fakes.compared import (
    BEGINS_AT,
    EVERY_SECONDS,
    HOUR,
    SETTLED,
    Compared,
    at,
    begun,
    play,
    play_alone,
    says,
)


class ButOne:
    """The help desk, where one ticket cannot be read."""

    def __init__(self, outside: Outside, object_id: str, fault: Exception) -> None:
        self.list_updates = outside.list_updates
        self._outside, self._object_id, self._fault = outside, object_id, fault

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        if object_id == self._object_id:
            raise self._fault
        return await self._outside.read(object_id)


@pytest.mark.parametrize("status", [403, 429, 503])
def test_an_hour_whose_list_is_refused_is_unknown_until_it_can_be_had(migrated: MigratedDatabase, status: int) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        intake.world.api.faults.list_refused = status
        await intake.until(at(30))
        says(intake, ticket, "Lost behind it", dropped=True)
        await intake.until(at(180))
        refused = await intake.words()
        intake.world.api.faults.list_refused = 0
        await intake.until(at(240))

        assert refused == {"06": ["unknown"], "07": ["unknown"]}
        assert (await intake.words())["06"] == ["unknown", "missing", "backfilled", "backfilled!"]
        assert (await intake.words())["07"] == ["unknown", "complete!"]

    play(migrated, scenario)


def test_a_list_that_comes_back_in_time_leaves_no_mark(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        await begun(intake)
        await intake.until(at(55))
        intake.world.api.faults.down = "cut"
        await intake.until(at(85))
        intake.world.api.faults.down = ""
        await intake.until(at(115))

        assert await intake.words() == {"06": ["complete!"]}

    play(migrated, scenario)


def test_an_account_that_nobody_named_leaves_its_hours_unknown(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        await begun(intake)
        intake.outside.outside = NotConnected(MissingSettingError("NIGHTSHIFT_ZENDESK_URL"))
        await intake.until(at(100))

        assert await intake.words() == {"06": ["unknown"]}
        assert (await intake.last_word("06")).code == "not_connected"

    play(migrated, scenario)


def test_a_fault_of_ours_leaves_the_intake_alone_and_the_hour_unknown(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)

        class Broken:
            read = intake.outside.outside.read

            async def list_updates(self, since: datetime, cursor: str | None) -> Page:
                raise AttributeError(since, cursor)

        intake.outside.outside = Broken()
        await intake.until(at(100))
        says(intake, ticket, "Are you there?")
        await intake.delivered()

        assert await intake.words() == {"06": ["unknown"]}
        assert (await intake.last_word("06")).code == "unforeseen"
        assert intake.world.sender.counts["answered_202"] == 2

    play(migrated, scenario)


def test_a_list_that_is_empty_for_an_hour_of_which_webhooks_told_leaves_it_unknown(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        whole = intake.outside.outside

        class Emptied:
            read = whole.read

            async def list_updates(self, since: datetime, cursor: str | None) -> Page:
                del cursor
                return Page((), str(int(since.timestamp())), end=True)

        intake.outside.outside = Emptied()
        await intake.until(at(30))
        says(intake, ticket, "Are you there?")
        await intake.until(at(180))
        emptied, word = await intake.words(), await intake.last_word("06")
        intake.outside.outside = whole
        await intake.until(at(240))

        assert (emptied["06"], word.code) == (["unknown"], "list_empty")
        assert emptied["07"] == ["complete!"], "nothing was told of it"
        assert (await intake.words())["06"] == ["unknown", "complete!"]

    play(migrated, scenario)


def test_a_list_that_is_cut_short_leaves_its_hour_unknown_and_what_it_holds_is_taken_in(
    migrated: MigratedDatabase,
) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        whole = intake.outside.outside

        class CutShort:
            read = whole.read

            async def list_updates(self, since: datetime, cursor: str | None) -> Page:
                page = await whole.list_updates(since, cursor)
                return replace(page, updates=[one for one in page.updates if one.at < at(40)], end=True)

        intake.outside.outside = CutShort()
        await intake.until(at(30))
        says(intake, ticket, "Nobody hears me", dropped=True)
        await intake.until(at(50))
        says(intake, ticket, "Are you there?")
        await intake.until(at(180))
        cut, word = await intake.words(), await intake.last_word("06")
        intake.outside.outside = whole
        await intake.until(at(240))

        assert (cut["06"][-1], word.code) == ("unknown", "list_short")
        assert len(await intake.late()) > 0
        assert (await intake.words())["06"][-1] == "backfilled!"

    play(migrated, scenario)


def test_the_list_is_asked_less_often_than_zendesk_allows_and_as_late_as_it_says(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        tickets = await begun(intake, 10)
        for number in range(1300):  # six pages
            says(intake, tickets[number % 10], "again")
            if number % 100 == 0:
                await asyncio.sleep(5)
        await intake.until(SETTLED)
        calls = list(intake.outside.lists)
        intake.world.api.faults.list_refused = 429
        intake.world.api.faults.retry_after_seconds = 900
        await intake.until(SETTLED + HOUR)

        assert await intake.words() == {"06": ["complete!"]}
        assert min(later - earlier for earlier, later in pairwise(calls)) >= 8
        refused = intake.outside.lists[len(calls) :]
        assert min(later - earlier for earlier, later in pairwise(refused)) >= 900

    play(migrated, scenario)


def test_one_service_compares_for_all_and_another_takes_over_when_it_dies(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        await begun(intake)
        stops = [Stop(), Stop()]
        async with asyncio.TaskGroup() as group:
            first, second = (group.create_task(intake.runs(stop, intake.another())) for stop in stops)
            await intake.until(at(30))
            both = list(intake.outside.lists)
            first.cancel()  # at any moment: with the lease, or without
            await intake.until(SETTLED)
            stops[1].set()
            await second

        assert min(later - earlier for earlier, later in pairwise(both)) >= EVERY_SECONDS
        assert await intake.words() == {"06": ["complete!"]}

    play_alone(migrated, scenario)


def test_whoever_lost_the_lease_changes_nothing_and_says_nothing(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        await begun(intake)
        hours = intake.work.hours
        assert await hours.claim("support", "zendesk", intake.time.now()) is None  # it begins
        old = await hours.claim("support", "zendesk", intake.time.now())
        assert old is not None
        (hour,) = await hours.unsettled(old, intake.time.now())
        await asyncio.sleep(121)
        new = await hours.claim("support", "zendesk", intake.time.now())

        assert new is not None
        assert new.token > old.token
        with pytest.raises(LeaseLostError):
            await hours.keep(old, hour, replace(hour, state="complete", settled=True), intake.time.now())
        with pytest.raises(LeaseLostError):
            await hours.hold(old)
        assert await intake.words() == {}

    play_alone(migrated, scenario)


def test_hours_without_the_service_are_compared_afterwards(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        assert await intake.work.once(Stop()) > 0
        await intake.until(at(130))
        says(intake, ticket, "Nobody listens", dropped=True)
        await intake.until(at(300))
        stop = Stop()
        async with asyncio.TaskGroup() as group:
            group.create_task(intake.runs(stop))
            await intake.until(at(335))
            stop.set()

        said = await intake.words()
        assert [said[hour][-1] for hour in ("06", "07", "08", "09")] == [
            *("complete!", "complete!", "backfilled!", "complete!")
        ]

    play_alone(migrated, scenario)


def test_a_ticket_that_cannot_be_read_for_good_is_a_persons_and_holds_up_no_other(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        duel, other = await begun(intake, 2)
        too_long = PermanentError("history_too_long", "the ticket has more than 3000 updates")
        intake.outside.outside = ButOne(intake.outside.outside, str(duel.id), too_long)
        says(intake, duel, "again", dropped=True)
        says(intake, other, "hello", dropped=True)
        await intake.until(SETTLED)

        letters = await intake.operator.fetch("SELECT case_id, code FROM ingest.dead_letters")
        assert [tuple(row) for row in letters] == [(f"support:zendesk:{duel.id}", "history_too_long")]
        assert {change.object_id for change in await intake.late()} == {str(other.id)}
        assert (await intake.words())["06"] == ["missing", "backfilled", "backfilled!"]

    play(migrated, scenario)


@pytest.mark.parametrize(
    "fault", [LaterError("server_error", "Zendesk answered 500", seconds=5), AttributeError("ours")]
)
def test_a_ticket_that_cannot_be_read_yet_holds_up_no_other_and_leaves_its_hour_missing(
    migrated: MigratedDatabase, fault: Exception
) -> None:
    async def scenario(intake: Compared) -> None:
        broken, other = await begun(intake, 2)
        outside = intake.outside.outside

        intake.outside.outside = ButOne(outside, str(broken.id), fault)
        says(intake, broken, "again", dropped=True)
        says(intake, other, "hello", dropped=True)
        await intake.until(at(100))
        meanwhile = {change.object_id for change in await intake.late()}, await intake.words()
        intake.outside.outside = outside
        await intake.until(at(125))

        assert meanwhile == ({str(other.id)}, {"06": ["missing"]})
        assert (await intake.words())["06"] == ["missing", "backfilled!"]

    play(migrated, scenario)


@dataclass
class ButSomeHours:
    """The help desk, whose list of some hours is refused for good."""

    outside: Outside
    refused: range
    """How many hours ago they began."""
    asked: list[int] = field(default_factory=list)

    async def list_updates(self, since: datetime, cursor: str | None) -> Page:
        ago = (BEGINS_AT - since) // HOUR
        self.asked.append(ago)
        if ago in self.refused:
            raise PermanentError("rejected", "Zendesk answered 400")
        return await self.outside.list_updates(since, cursor)

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        return await self.outside.read(object_id)


async def opened_before(intake: Compared, hours: range) -> None:
    """The door is older: these hours, so many ago, are not settled yet."""
    await intake.operator.execute(
        "UPDATE ingest.reconciled_doors SET since = $1::timestamptz - interval '1 year'", BEGINS_AT
    )
    await intake.operator.execute(
        "INSERT INTO ingest.reconciled_hours (process, source, hour) "
        "SELECT 'support', 'zendesk', $1::timestamptz - n * interval '1 hour' FROM unnest($2::integer[]) n",
        BEGINS_AT,
        list(hours),
    )


def test_hours_that_cannot_be_mended_keep_no_older_one_waiting(migrated: MigratedDatabase) -> None:
    refused, older = range(1, 31), range(31, 41)

    async def scenario(intake: Compared) -> None:
        await begun(intake)
        intake.outside.outside = ButSomeHours(intake.outside.outside, refused)
        await opened_before(intake, range(1, 41))
        await intake.until(at(90))

        rows = await intake.operator.fetch("SELECT hour, state, settled FROM ingest.reconciled_hours")
        found = {(BEGINS_AT - row["hour"]) // HOUR: (row["state"], row["settled"]) for row in rows}
        assert {found[ago] for ago in older} == {("complete", True)}
        assert {found[ago] for ago in refused} == {("unknown", False)}

    play(migrated, scenario)


def test_an_hour_that_cannot_be_mended_any_more_is_unknown_for_good_and_not_asked_for_again(
    migrated: MigratedDatabase,
) -> None:
    of_old = range(31 * 24 - 1, 31 * 24)

    async def scenario(intake: Compared) -> None:
        await begun(intake)
        desk = intake.outside.outside = ButSomeHours(intake.outside.outside, of_old)
        await opened_before(intake, of_old)
        await intake.until(at(50))

        assert [desk.asked.count(ago) for ago in of_old] == [1]
        assert (await intake.words())["07"] == ["unknown!"]
        assert (await intake.last_word("07")).code == "rejected"

    play(migrated, scenario)


def test_hours_that_a_clock_opened_ahead_take_no_place_of_those_that_are(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        await intake.operator.execute(
            "INSERT INTO ingest.reconciled_hours (process, source, hour) SELECT 'support', 'zendesk', "
            "$1::timestamptz + n * interval '1 hour' FROM generate_series(1, 48) n ON CONFLICT DO NOTHING",
            BEGINS_AT,
        )
        says(intake, ticket, "again", dropped=True)
        await intake.until(SETTLED)

        assert await intake.words() == {"06": ["missing", "backfilled", "backfilled!"]}

    play(migrated, scenario)


def test_while_zendesk_shows_no_ticket_the_hour_stays_missing_and_is_mended_afterwards(
    migrated: MigratedDatabase,
) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        says(intake, ticket, "hello", dropped=True)
        outside = intake.outside.outside

        class Away:
            list_updates = outside.list_updates

            async def read(self, object_id: str) -> Sequence[PlainChange]:
                raise LaterError("server_error", object_id, seconds=5)

        intake.outside.outside = Away()
        await intake.until(at(100))
        meanwhile = await intake.words()
        intake.outside.outside = outside
        await intake.until(at(125))

        assert meanwhile == {"06": ["missing"]}
        assert (await intake.words())["06"] == ["missing", "backfilled!"]

    play(migrated, scenario)


def test_a_door_that_nothing_came_through_is_not_compared(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        intake.world.sender.mischief.dropped_percent = 100
        ann = intake.world.zendesk.add_customer("Ann", "ann@example.com")
        for number in range(3000):
            intake.world.zendesk.create(ann.id, f"ticket {number}", "Where is it?")
        await intake.until(at(90))

        assert intake.outside.lists == []
        assert await intake.events() == []

    play(migrated, scenario)


async def test_the_first_row_of_a_moment_is_found_in_an_outbox_with_gaps_and_months(
    migrated: MigratedDatabase,
) -> None:
    chance = Random(6)
    moment, rows = BEGINS_AT - timedelta(days=70), []
    for number in sorted(chance.sample(range(1, 5000), 400)):
        moment += timedelta(minutes=chance.choice([0, 1, 60, 600]))
        rows.append((number, uuid4(), moment))
    async with (
        connect(migrated.url("nightshift_ingest"), schema="ingest") as database,
        database.connection() as connection,
    ):
        in_an_empty_one = await connection.fetchval(FIRST_ID, BEGINS_AT)
        await connection.executemany(
            "INSERT INTO outbox (id, event_id, topic, key, headers, body, created_at) OVERRIDING SYSTEM VALUE "
            "VALUES ($1, $2, 't', 'k', '{}', '', $3)",
            rows,
        )
        asked = [rows[0][2] - timedelta(days=1), *(row[2] for row in rows[::7]), rows[-1][2] + timedelta(days=1)]
        found = [await connection.fetchval(FIRST_ID, one) for one in asked]

    assert in_an_empty_one == 0
    first = [min((row[0] for row in rows if row[2] >= one), default=rows[-1][0] + 1) for one in asked]
    assert [min(number for number, *_ in [*rows, (rows[-1][0] + 1,)] if number >= one) for one in found] == first
