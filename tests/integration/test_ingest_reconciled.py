"""The intake beside the provider's own list: what no webhook told is found, taken in late, and its hour is marked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random
from uuid import uuid4

import pytest

from connectors.protocol import Page, PlainChange
from contracts.basis import basis_of, version_of
from contracts.events.cases import CaseChanged, CaseOpened
from contracts.failures import LaterError, PermanentError
from nightshift.world.model import AGENT_ID, Ticket
from processes.support import case as cases
from processes.support.ticket import Case
from services.classifier.handlers.case_changed import work_for
from services.ingest.app import NotConnected
from services.ingest.outbound.reconciled import FIRST_ID
from services.ingest.ports import LeaseLostError
from services.runtime.cases import StoredCase
from services.runtime.config import MissingSettingError
from services.runtime.postgres import connect
from services.runtime.process import SHIPPED, load
from services.runtime.stop import Stop
from tests.conftest import MigratedDatabase
from tests.fakes.compared import BEGINS_AT, EVERY_SECONDS, HOUR, SETTLED_SECONDS, Compared, compared
from tests.virtual import VirtualTime, live

WEBHOOKS = 1000


def play(migrated: MigratedDatabase, scenario: Callable[[Compared], Awaitable[None]]) -> None:
    """With the comparison running beside it."""

    async def with_comparison(intake: Compared) -> None:
        stop = Stop()
        async with asyncio.TaskGroup() as group:
            group.create_task(intake.runs(stop))
            await scenario(intake)
            stop.set()

    play_alone(migrated, with_comparison)


def play_alone(migrated: MigratedDatabase, scenario: Callable[[Compared], Awaitable[None]]) -> None:
    async def run(time: VirtualTime) -> None:
        async with compared(migrated, time) as intake:
            await scenario(intake)

    live(run, begins_at=BEGINS_AT)


def at(minutes: float) -> datetime:
    return BEGINS_AT + timedelta(minutes=minutes)


SETTLED = BEGINS_AT + HOUR + timedelta(seconds=SETTLED_SECONDS)


async def begun(intake: Compared, count: int = 1) -> list[Ticket]:
    """Tickets whose webhooks came, and a comparison that knows of the door."""
    ann = intake.world.zendesk.add_customer("Ann", "ann@example.com")
    tickets = [intake.world.zendesk.create(ann.id, "Order", "Where is it?") for _ in range(count)]
    await intake.delivered()
    await asyncio.sleep(20)
    return tickets


def says(intake: Compared, ticket: Ticket, text: str, *, dropped: bool = False) -> None:
    """The customer writes; `dropped`: none of the update's webhooks is ever sent."""
    intake.world.sender.mischief.dropped_percent = 100 if dropped else 0
    intake.world.zendesk.comment(ticket.id, ticket.requester_id, text)
    intake.world.sender.mischief.dropped_percent = 0


def folded(changes: Sequence[CaseChanged]) -> Case:
    case = None
    for change in changes:
        case = cases.fold(case, change)
    assert case is not None
    return case


async def case_of(intake: Compared, ticket: Ticket) -> Case:
    events = [event.data for event in await intake.events() if isinstance(event.data, CaseChanged)]
    return folded([change for change in events if change.object_id == str(ticket.id)])


def test_one_webhook_of_a_thousand_is_lost_found_and_taken_in_late(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        zendesk, chance = intake.world.zendesk, Random(4)
        people = [zendesk.add_customer(f"C{n}", f"c{n}@example.com") for n in range(50)]
        lost = chance.randrange(20, WEBHOOKS)
        tickets = [zendesk.create(person.id, "Order", "Where is it?") for person in people]
        await asyncio.sleep(20)  # a webhook was taken: from here on it is compared
        for number in range(len(tickets), WEBHOOKS):
            await asyncio.sleep(3.3)
            intake.world.sender.mischief.dropped_percent = 100 if number == lost else 0
            zendesk.comment(chance.choice(tickets).id, people[0].id if number % 2 else AGENT_ID, f"message {number}")
        await intake.until(BEGINS_AT + HOUR + timedelta(seconds=SETTLED_SECONDS))

        (dropped,) = intake.world.sender.dropped
        said, last = await intake.words(), await intake.last_word("06")
        assert said["06"] == ["missing", "backfilled", "backfilled!"]
        assert last.missing == 1
        assert WEBHOOKS - len(tickets) <= last.listed <= WEBHOOKS, "of the first, those since a webhook was taken"
        comments = [change for change in await intake.late() if change.kind == "comment_added"]
        assert [change.object_id for change in comments] == [str(dropped.ticket_id)]

    play(migrated, scenario)


def test_an_hour_in_which_everything_came_is_complete_and_nothing_is_taken_in(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        zendesk = intake.world.zendesk
        zendesk.update(ticket.id, {"comment": {"body": "We look."}, "status": "pending"}, actor_id=AGENT_ID)
        says(intake, ticket, "Thanks")
        zendesk.update(ticket.id, {"tags": ["vip"], "priority": "high", "group_id": 8002}, actor_id=AGENT_ID)
        zendesk.remove(ticket.id)
        zendesk.restore(ticket.id)
        zendesk.remove(ticket.id, spam=True)
        await intake.until(SETTLED)

        assert await intake.words() == {"06": ["complete!"]}
        last = await intake.last_word("06")
        opened = ticket.created_at >= last.since  # the first look may have begun before the ticket was there
        assert last.listed == 6 + opened
        assert await intake.late() == []
        assert intake.outside.reads == []

    play(migrated, scenario)


def test_a_quiet_hour_is_complete_and_the_hours_follow_each_other(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        await begun(intake)
        await intake.until(SETTLED + 2 * HOUR)

        assert await intake.words() == {hour: ["complete!"] for hour in ("06", "07", "08")}

    play(migrated, scenario)


def test_a_lost_ticket_is_opened_late_within_minutes_with_its_words_and_its_own_times(
    migrated: MigratedDatabase,
) -> None:
    async def scenario(intake: Compared) -> None:
        (known,) = await begun(intake)
        await intake.until(at(10))
        intake.world.sender.mischief.dropped_percent = 100
        lost = intake.world.zendesk.create(known.requester_id, "Refund", "Money back please")
        await intake.until(at(18))

        told = [event.data for event in await intake.events() if isinstance(event.data, CaseOpened)]
        (late,) = [one for one in told if one.late]
        assert (late.object_id, late.author, late.occurred_at) == (str(lost.id), "customer", at(10))
        assert late.texts.keys() == {"subject", "body"}
        case = await case_of(intake, lost)
        assert cases.opened_at(case) == cases.asked_at(case) == at(10)
        assert cases.party(case) == str(known.requester_id)
        assert (await intake.words())["06"] == ["missing", "backfilled"]

    play(migrated, scenario)


def test_a_webhook_that_comes_after_its_update_was_taken_in_changes_nothing(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        await intake.until(at(10))
        intake.world.sender.url, url = None, intake.world.sender.url
        says(intake, ticket, "Are you there?")
        await intake.until(at(20))
        before = await case_of(intake, ticket)
        intake.world.sender.url = url
        intake.world.zendesk.update(ticket.id, {"tags": ["seen"]}, actor_id=AGENT_ID)  # wakes the sender
        await intake.delivered()
        after = await case_of(intake, ticket)
        await intake.until(SETTLED)

        assert len(await intake.late()) == 2  # the comment, and the ticket's state
        assert (cases.basis(after), cases.asked_at(after)) == (cases.basis(before), at(10))
        assert [comment.key for comment in after.comments] == [comment.key for comment in before.comments]
        assert (await intake.words())["06"] == ["missing", "backfilled", "backfilled!"]

    play(migrated, scenario)


def test_late_intake_says_nothing_of_what_else_may_not_be_known(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        hinted = (await case_of(intake, ticket)).model_copy(update={"hinted_at": version_of(at(5))})
        says(intake, ticket, "Are you there?", dropped=True)
        await intake.until(at(10))

        late = folded(await intake.late())
        assert late.read_at is None
        assert cases.needs_reading(cases.merge(hinted, late))

    play(migrated, scenario)


def test_several_lost_updates_of_a_ticket_are_one_read_and_each_is_taken_in_once(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        for minute in (6.0, 6.2, 6.4):  # between two looks
            await intake.until(at(minute))
            says(intake, ticket, f"minute {minute}", dropped=True)
        await intake.until(SETTLED)

        late = await intake.late()
        assert [change.kind for change in late].count("comment_added") == 3
        assert len({change.identity for change in late}) == len(late) == 4  # and the ticket's state
        assert len(intake.outside.reads) == 1
        assert (await intake.last_word("06")).missing == 3

    play(migrated, scenario)


def test_a_lost_update_of_a_ticket_that_is_gone_is_taken_in_as_that(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        first, second = await begun(intake, 2)
        says(intake, first, "Never mind", dropped=True)
        intake.world.zendesk.remove(first.id)
        intake.world.sender.mischief.dropped_percent = 100
        intake.world.zendesk.remove(second.id)
        await intake.until(SETTLED)

        assert {change.kind for change in await intake.late()} == {"soft_deleted"}
        assert cases.gone(await case_of(intake, second)) == "deleted"
        assert (await intake.words())["06"] == ["missing", "backfilled", "backfilled!"]
        assert len(intake.outside.reads) == 2

    play(migrated, scenario)


def test_a_return_that_no_webhook_told_brings_the_ticket_back(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        intake.world.zendesk.remove(ticket.id)
        await intake.until(at(5))
        intake.world.sender.mischief.dropped_percent = 100
        intake.world.zendesk.restore(ticket.id)
        await intake.until(at(15))

        case = await case_of(intake, ticket)
        assert cases.gone(case) is None
        assert cases.basis(case) == basis_of(version_of(at(5)), "restored")

    play(migrated, scenario)


def test_of_two_updates_alike_in_one_second_both_are_taken_in_and_one_is_counted(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        zendesk = intake.world.zendesk
        zendesk.update(ticket.id, {"status": "pending"}, actor_id=AGENT_ID)
        intake.world.sender.mischief.dropped_percent = 100
        zendesk.update(ticket.id, {"status": "open"}, actor_id=AGENT_ID)
        await intake.until(SETTLED)

        assert [change.kind for change in await intake.late()].count("status_changed") == 2
        assert (await intake.last_word("06")).missing == 1
        assert (await case_of(intake, ticket)).value("status") == "open"

    play(migrated, scenario)


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


def test_late_intake_of_an_old_ticket_is_recorded_and_nobody_is_asked_for_an_answer(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        (ticket,) = await begun(intake)
        process = load("support", SHIPPED)
        ticket.created_at = process.starts_at("zendesk") - timedelta(days=1)
        says(intake, ticket, "I wait for a year now", dropped=True)
        await intake.until(at(10))

        [opening, *late] = [e for e in await intake.events() if isinstance(e.data, CaseChanged)]
        case = folded([e.data for e in late])
        known = StoredCase(opening.case_id, "support", "zendesk", str(ticket.id), case)
        assert cases.asked(case) is not None
        assert cases.awaits_answer(case)
        cause = late[-1].event_id
        assert work_for(process, known, cause=cause, correlation_id=cause, traceparent=None) is None

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
        outside = intake.outside.outside

        class TooLong:
            list_updates = outside.list_updates

            async def read(self, object_id: str) -> Sequence[PlainChange]:
                if object_id == str(duel.id):
                    raise PermanentError("history_too_long", "the ticket has more than 3000 updates")
                return await outside.read(object_id)

        intake.outside.outside = TooLong()
        says(intake, duel, "again", dropped=True)
        says(intake, other, "hello", dropped=True)
        await intake.until(SETTLED)

        letters = await intake.operator.fetch("SELECT case_id, code FROM ingest.dead_letters")
        assert [tuple(row) for row in letters] == [(f"support:zendesk:{duel.id}", "history_too_long")]
        assert {change.object_id for change in await intake.late()} == {str(other.id)}
        assert (await intake.words())["06"] == ["missing", "backfilled", "backfilled!"]

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


def test_connecting_to_3000_open_tickets_takes_in_what_changes_from_then_on(migrated: MigratedDatabase) -> None:
    async def scenario(intake: Compared) -> None:
        intake.world.sender.mischief.dropped_percent = 100
        ann = intake.world.zendesk.add_customer("Ann", "ann@example.com")
        tickets = [intake.world.zendesk.create(ann.id, f"ticket {n}", "Where is it?") for n in range(3000)]
        await intake.until(at(30))
        intake.world.sender.mischief.dropped_percent = 0
        says(intake, tickets[7], "Still nothing")
        await intake.until(at(40))
        says(intake, tickets[8], "Nothing here either", dropped=True)
        await intake.until(SETTLED)

        touched = {event.case_id for event in await intake.events() if isinstance(event.data, CaseChanged)}
        assert touched == {f"support:zendesk:{tickets[n].id}" for n in (7, 8)}
        last = await intake.last_word("06")
        assert (last.state, last.missing) == ("backfilled", 1)
        assert timedelta(0) <= last.since - at(30) < timedelta(seconds=10)

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
