"""The intake beside the provider's own list: what no webhook told is found, taken in late, and its hour is marked."""

import asyncio
from datetime import timedelta
from random import Random

from contracts.basis import basis_of, version_of
from contracts.events.cases import CaseChanged, CaseOpened
from nightshift.world.model import AGENT_ID
from processes.support import case as cases
from services.classifier.handlers.case_changed import work_for
from services.runtime.cases import StoredCase
from services.runtime.process import SHIPPED, load
from tests.conftest import MigratedDatabase
from tests.fakes.compared import (
    BEGINS_AT,
    HOUR,
    SETTLED,
    SETTLED_SECONDS,
    Compared,
    at,
    begun,
    case_of,
    folded,
    play,
    says,
)

WEBHOOKS = 1000


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
