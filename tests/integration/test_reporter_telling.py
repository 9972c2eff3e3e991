"""A person is told of what needs one, through apprise and a real socket: once a cause, whoever dies or fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import uuid4

import asyncpg
import httpx
import pytest
from prometheus_client import REGISTRY

from contracts.base import Fact
from contracts.envelope import Event
from contracts.events.control import RedriveRequested
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterRedriven
from nightshift.commands.dead_letters import ACKNOWLEDGE
from services.reporter.app import manner_of
from services.reporter.domain.telling import why_tell
from services.reporter.domain.views import CauseRow
from services.reporter.handlers.append import Appender, Projector
from services.reporter.handlers.tell import LEASE, Teller
from services.reporter.inbound.console.pages import console
from services.reporter.outbound import queries
from services.reporter.outbound.causes import PostgresCauses
from services.reporter.outbound.event_log import PostgresStore
from services.reporter.outbound.kill_switch import KillSwitch
from services.reporter.outbound.messenger import AppriseMessenger
from services.reporter.outbound.queries import Queries
from services.reporter.ports import Telling
from services.runtime.postgres import Database, connect
from services.runtime.process import Ceilings, Tell
from services.runtime.stop import Stop
from tests.conftest import MigratedDatabase
from tests.fakes.acting import ordered
from tests.fakes.other_side import Answer, OtherSide, Silence
from tests.unit.reporter.night import POLICY, Story, budget_events, records, tell

SECRET = "T0P-SECRET-PATH"
BROKEN = Answer(500, b"no")


@dataclass
class Bench:
    """A reporter's tables, and the webhooks of those on duty and of the escalation."""

    database: Database
    duty: OtherSide
    escalation: OtherSide
    tell: Tell = field(default_factory=Tell)
    budget: Ceilings = field(default_factory=lambda: Ceilings(day_usd_max=Decimal(20), total_usd_max=Decimal(20)))

    def url(self, side: OtherSide) -> str:
        """Impatient, so that a test is quick."""
        return side.url.replace("http", "json", 1) + f"/{SECRET}?cto=0.3&rto=0.3"

    def teller(self, *more: str, database: Database | None = None) -> Teller:
        """A reporter that was started just now; `more` URLs are told as well."""
        held = {"support": timedelta(minutes=self.tell.held_minutes)}
        return Teller(
            PostgresCauses(database or self.database, held, {"support": self.budget}),
            {"support": manner_of(self.tell)},
            duty=AppriseMessenger("DUTY", [self.url(self.duty), *more]),
            escalation=AppriseMessenger("ESCALATION", [self.url(self.escalation)]),
        )

    async def take(self, events: Sequence[Event[Fact]]) -> None:
        await Appender(PostgresStore(self.database), Projector({"support": POLICY})).take(records(events))

    async def pass_by(self, minutes: float) -> None:
        """All that was said of causes was said so much earlier."""
        async with self.database.connection() as connection:
            await connection.execute(
                "UPDATE causes SET told_at = told_at - ago, asked_since = asked_since - ago, try_at = try_at - ago, "
                "escalated_at = escalated_at - ago, acknowledged_at = acknowledged_at - ago "
                "FROM (SELECT $1::interval) t(ago)",
                timedelta(minutes=minutes),
            )

    async def acknowledge(self) -> None:
        async with self.database.connection() as connection:
            for row in await self.causes():
                await connection.execute(ACKNOWLEDGE, row.cause, "kim@desk")

    async def causes(self) -> list[CauseRow]:
        async with self.database.connection() as connection:
            return await queries.causes(connection)


@pytest.fixture
async def bench(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connect(migrated.url("nightshift_reporter"), schema="reporter"))
        duty, escalation = [await stack.enter_async_context(OtherSide()) for _ in range(2)]
        yield Bench(database, duty, escalation)


def told(side: OtherSide) -> list[str]:
    return [json.loads(asked.body)["message"] for asked in side.asked]


def letters(*names: str, minutes_ago: float = 5) -> list[Event[Fact]]:
    """A dead letter a case, all of one cause; the first reply is late an hour after they were opened."""
    start = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return [event for name in names for event in tell(name, "dead_letter", start)]


def figure(whom: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("nightshift_tellings_total", {"whom": whom, "outcome": outcome}) or 0.0


async def test_many_failures_of_one_cause_are_one_notice_with_their_count(bench: Bench) -> None:
    await bench.take(letters(*map(str, range(50))))
    teller = bench.teller()

    for _ in range(3):
        await teller.look()

    (message,) = told(bench.duty)
    assert "support: 50 dead letters, propose of classifier failed (schema_failed_twice)" in message
    assert "the next first reply is late in 54 min" in message
    assert (await bench.causes())[0].cause in message
    assert bench.escalation.asked == []


@pytest.mark.parametrize(("period", "whose"), [("day", "the day's"), ("total", "the whole")])
async def test_a_budget_that_is_used_up_is_told_once_and_is_over_when_its_ceiling_is_raised(
    bench: Bench, period: Literal["day", "total"], whose: str
) -> None:
    await bench.take(budget_events(datetime.now(UTC), period))
    for _ in range(3):
        await bench.teller().look()
    causes = await bench.causes()

    bench.budget = Ceilings(day_usd_max=Decimal(21), total_usd_max=Decimal(21))
    await bench.teller().look()

    (message,) = told(bench.duty)
    assert (
        f"support: {whose} budget for models is used up, and what needs one waits: 19.95 of 20 usd are spent" in message
    )
    assert "the next call to claude:claude-sonnet-5-5 (for support:zendesk:42) can take 0.08" in message
    assert "support:zendesk:17 took most, 3.1" in message
    assert [(cause.kind, cause.count) for cause in causes] == [("budget", 1)]
    assert await bench.causes() == []


async def test_a_process_that_is_not_served_is_told_once_and_is_over_when_a_person_admits_it(
    bench: Bench, migrated: MigratedDatabase
) -> None:
    admin = await asyncpg.connect(migrated.admin_url)
    waits = "INSERT INTO control.regimes (process, model, regime) VALUES ('support', 'claude:m', $1)"
    await admin.executemany(waits, [("new",), ("of another version",)])
    teller = bench.teller()

    for _ in range(2):
        await teller.look()
    await admin.execute("UPDATE control.regimes SET admitted_at = now()")
    during = await bench.causes()
    await teller.look()
    await admin.close()

    (message,) = told(bench.duty)
    assert "support: not served, for claude:m has no passed eval on record; its cases wait, since" in message
    assert [(cause.kind, cause.work) for cause in during] == [("regime", "claude:m")]
    assert await bench.causes() == []


async def test_a_candidate_that_was_switched_off_by_itself_is_told_until_somebody_orders_anything(
    migrated: MigratedDatabase, bench: Bench
) -> None:
    async with connect(migrated.admin_url, schema="control", connections_max=1) as database, database.connection() as c:
        await ordered(c, "support", "canary", 5, "870a523752f9")
        await bench.teller().look()
        while_it_proposes = await bench.causes()
        await c.execute("SELECT control.end_candidate('support', 1, 'held: 9 of 10', 'nightshift/actor')")
        for _ in range(3):
            await bench.teller().look()
        causes = await bench.causes()
        await ordered(c, "support", "off", 0, "870a523752f9")
        await c.execute("UPDATE control.candidates SET changed_by = 'ana'")
        await bench.teller().look()

    (message,) = told(bench.duty)
    assert "support: the candidate was switched off: held: 9 of 10, since" in message
    assert (while_it_proposes, [(cause.kind, cause.count) for cause in causes]) == ([], [("candidate", 1)])
    assert await bench.causes() == []


async def test_the_budget_of_another_day_is_told_no_more(bench: Bench) -> None:
    await bench.take(budget_events(datetime.now(UTC) - timedelta(days=2)))

    await bench.teller().look()

    assert told(bench.duty) == []


async def test_what_is_said_of_a_day_s_budget_after_its_midnight_is_over_and_stops_no_telling(bench: Bench) -> None:
    now = datetime.now(UTC)
    late = [replace(event, time=now) for event in budget_events(now - timedelta(days=1))]
    await bench.take(late)
    await bench.teller().look()
    before = told(bench.duty)

    await bench.take(budget_events(now))
    await bench.teller().look()

    assert before == []
    assert len(told(bench.duty)) == 1


async def test_budgets_of_one_name_are_one_cause(bench: Bench) -> None:
    twice = [replace(event, case_id="support:budget-total-of-before") for event in budget_events(datetime.now(UTC))]
    await bench.take(twice)
    await bench.take([replace(event, event_id=uuid4()) for event in budget_events(datetime.now(UTC))])

    await bench.teller().look()

    assert [cause.kind for cause in await bench.causes()] == ["budget"]


async def test_a_notice_quotes_nobody(bench: Bench) -> None:
    await bench.take(letters("1"))

    await bench.teller().look()

    (message,) = told(bench.duty)
    assert "sealed:" not in message
    assert "field required" not in message, "what a failure says of its input stays here"


async def test_two_reporters_at_once_tell_once(migrated: MigratedDatabase, bench: Bench) -> None:
    await bench.take(letters("1", "2"))
    async with connect(migrated.url("nightshift_reporter"), schema="reporter") as other:
        tellers = [bench.teller(), bench.teller(database=other)]
        for _ in range(3):
            await asyncio.gather(*(teller.look() for teller in tellers))

    assert len(told(bench.duty)) == 1


async def test_what_a_reporter_did_not_record_before_it_died_is_told_by_another(bench: Bench) -> None:
    await bench.take(letters("1"))
    died = PostgresCauses(bench.database, {})
    await died.count()
    claimed = await died.claim(
        lambda cause, standing, now: Telling(
            cause=cause, tells=bool(why_tell(cause, standing, manner_of(Tell()), now)), escalates=False, at=now
        ),
        lease=LEASE,
    )
    teller = bench.teller()
    await teller.look()
    early = told(bench.duty)

    await bench.pass_by(LEASE / timedelta(minutes=1))
    await teller.look()

    assert (len(claimed), early) == (1, [])
    assert len(told(bench.duty)) == 1


@pytest.mark.parametrize("bad", [BROKEN, Silence()], ids=["an error", "silence"])
async def test_a_notice_that_did_not_arrive_is_seen_and_tried_again(bench: Bench, bad: Answer | Silence) -> None:
    await bench.take(letters("1"))
    bench.duty.answers = (bad, Answer())
    before = figure("duty", "failed")
    teller = bench.teller()

    await teller.look()
    (failing,) = await bench.causes()
    await teller.look()
    asked = len(bench.duty.asked)
    await bench.pass_by(2)
    await teller.look()
    (after,) = await bench.causes()

    assert figure("duty", "failed") == before + 1
    assert (failing.failed, failing.told_at, failing.tries) == ("duty: JSON", None, 1)
    assert asked == 1, "not at once"
    assert (len(told(bench.duty)), after.failed, after.told_count) == (2, None, 1)


async def test_that_nobody_can_be_told_stands_on_the_first_page(bench: Bench) -> None:
    await bench.take(letters("1"))
    bench.duty.answers = (BROKEN,)
    await bench.teller().look()
    transport = httpx.ASGITransport(app=console(Queries(bench.database), KillSwitch(bench.database), tells=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://console.test") as browser:
        tonight, of_letters = [(await browser.get(path)).text for path in ("/", "/dead-letters")]

    assert "Nobody can be told" in tonight
    assert "nobody could be told (duty: JSON), 1 tries" in of_letters


async def test_one_of_two_that_took_it_is_enough_and_the_other_is_counted(bench: Bench) -> None:
    await bench.take(letters("1"))
    before = figure("duty", "partly")
    teller = bench.teller(bench.url(bench.escalation))
    bench.escalation.answers = (BROKEN,)

    await teller.look()
    await bench.pass_by(1)
    await teller.look()

    assert figure("duty", "partly") == before + 1
    assert len(told(bench.duty)) == 1


async def test_a_url_that_nobody_understands_stops_nothing(bench: Bench) -> None:
    await bench.take(letters("1"))
    unknown = AppriseMessenger("DUTY", ["nonsense"])
    teller = Teller(
        PostgresCauses(bench.database, {}), {"support": manner_of(bench.tell)}, duty=unknown, escalation=None
    )

    await teller.look()

    assert [row.failed for row in await bench.causes()] == ["duty: no valid URL"]


async def test_no_word_of_a_url_is_logged_when_it_fails(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    await bench.take(letters("1"))
    bench.duty.answers = (BROKEN,)
    nobody_listens = f"json://kim:pass-word@127.0.0.1:9/{SECRET}"

    await bench.teller(nobody_listens, f"nonsense://{SECRET}").look()

    logged = "".join(capfd.readouterr())
    assert "not everybody was told" in logged
    assert SECRET not in logged
    assert "pass-word" not in logged


class StoppedWhenItWaits(Stop):
    """Ends a loop as soon as it has nothing to do."""

    async def wait(self, seconds: float | None = None) -> bool:
        del seconds
        self.set()
        return True


async def test_while_postgres_is_away_the_teller_waits(bench: Bench) -> None:
    await bench.database.pool.close()

    await bench.teller().run(StoppedWhenItWaits())

    assert bench.duty.asked == []


async def test_a_cause_that_nobody_acknowledges_reaches_the_escalation_once(bench: Bench) -> None:
    await bench.take(letters("1"))
    teller = bench.teller()
    await teller.look()

    for minutes in (29, 1.1, 60):
        await bench.pass_by(minutes)
        await teller.look()
        if minutes == 29:
            assert bench.escalation.asked == []

    assert len(told(bench.escalation)) == 1
    assert (
        json.loads(bench.escalation.asked[0].body)["title"] == "Nightshift: nobody has looked, 1 cause needs a person"
    )
    assert len(told(bench.duty)) == 1


async def test_an_acknowledged_cause_is_silent_for_the_repeat_time(bench: Bench) -> None:
    await bench.take(letters("1"))
    teller = bench.teller()
    await teller.look()
    await bench.acknowledge()
    (seen,) = await bench.causes()

    await bench.pass_by(239)
    await teller.look()
    before = len(told(bench.duty))
    await bench.pass_by(1.1)
    await teller.look()

    assert seen.acknowledged_by == "kim@desk"
    assert (before, len(told(bench.duty))) == (1, 2)
    assert bench.escalation.asked == []
    (after,) = await bench.causes()
    assert after.acknowledged_by is None, "it is asked for anew"


async def test_what_fails_over_and_over_while_those_on_duty_cannot_be_reached_reaches_the_escalation(
    bench: Bench,
) -> None:
    await bench.take(letters("1"))
    bench.duty.answers = (BROKEN,)
    teller = bench.teller()
    await teller.look()

    await bench.pass_by(30)
    await teller.look()

    assert len(told(bench.escalation)) == 1


def quiet_now() -> str:
    now = datetime.now(UTC)
    begin, end = now - timedelta(hours=2), now + timedelta(hours=2)
    return f"{begin:%H:%M}-{end:%H:%M}"


async def test_in_quiet_hours_causes_are_collected_and_told_together_afterwards(bench: Bench) -> None:
    await bench.take(letters("1", "2"))
    other = Story("3", datetime.now(UTC))
    other.opens()
    other.dies()
    raised = other.events[-1]
    await bench.take([*other.events[:-1], of_another_code(raised)])
    bench.tell = Tell(quiet_hours=quiet_now())
    await bench.teller().look()
    at_night = told(bench.duty)

    bench.tell = Tell()
    await bench.teller().look()

    (in_the_morning,) = told(bench.duty)
    assert at_night == []
    assert "2 dead letters" in in_the_morning
    assert "1 dead letter," in in_the_morning


def of_another_code(raised: Event[Fact]) -> Event[Fact]:
    return Event(
        event_id=raised.event_id,
        source=raised.source,
        time=raised.time,
        process=raised.process,
        case_id=raised.case_id,
        correlation_id=raised.correlation_id,
        causation_id=raised.causation_id,
        data=raised.data.model_copy(update={"code": "text_erased"}),
    )


async def test_a_first_reply_that_is_nearly_late_is_told_in_quiet_hours(bench: Bench) -> None:
    await bench.take(letters("1", minutes_ago=50))
    bench.tell = Tell(quiet_hours=quiet_now())

    await bench.teller().look()

    assert "late in 9 min" in told(bench.duty)[0]


async def redrive_ordered(bench: Bench) -> tuple[Story, DeadLetterRaised, RedriveRequested]:
    """A dead letter of which those on duty know, and a redrive that somebody asks for."""
    events = letters("1")
    await bench.take(events)
    await bench.teller().look()
    (letter,) = [event.data for event in events if isinstance(event.data, DeadLetterRaised)]
    story = Story("1", datetime.now(UTC))
    order = RedriveRequested(
        nonce=story.run, dead_letter_id=letter.dead_letter_id, service=letter.service, by="kim@desk"
    )
    await bench.take([story.say(order)])
    await bench.teller().look()
    return story, letter, order


async def test_what_somebody_redrives_is_told_again_when_that_failed(bench: Bench) -> None:
    story, letter, _ = await redrive_ordered(bench)
    (while_it_is_tried,) = await bench.causes()
    again = story.say(letter.model_copy(update={"attempts": 3}), source="classifier")
    assert again.causation_id == story.events[-2].event_id
    await bench.take([again])
    await bench.teller().look()
    at_once = len(told(bench.duty))

    await bench.pass_by(10)
    await bench.teller().look()

    assert (while_it_is_tried.count, while_it_is_tried.ordered) == (1, 1)
    assert (at_once, len(told(bench.duty))) == (1, 2)


async def test_what_was_redriven_needs_nobody(bench: Bench) -> None:
    story, _, order = await redrive_ordered(bench)
    before = await bench.causes()

    await bench.take([story.say(DeadLetterRedriven(**order.model_dump()))])
    await bench.teller().look()

    assert (len(before), await bench.causes()) == (1, [])


async def test_a_redrive_that_nobody_carries_out_is_told_to_the_escalation(bench: Bench) -> None:
    await redrive_ordered(bench)

    await bench.pass_by(30)
    await bench.teller().look()

    assert "1 asked for, not done yet" in told(bench.escalation)[0]


async def test_cases_that_nobody_comes_for_are_told_of_and_answered_ones_are_not(bench: Bench) -> None:
    start = datetime.now(UTC) - timedelta(minutes=45)
    fresh = datetime.now(UTC) - timedelta(minutes=1)
    await bench.take(
        tell("1", "refused", start)
        + tell("2", "refused", start)
        + tell("3", "approval", start)
        + tell("4", "answered", start)
        + tell("5", "refused", fresh)
        + tell("6", "skipped", start)
    )

    await bench.teller().look()

    (message,) = told(bench.duty)
    lines = [line for line in message.splitlines() if line.startswith("- ")]
    assert any("support: 2 cases held for a person, and nobody has come" in line for line in lines)
    assert any("support: 1 approval without an answer" in line for line in lines)
    assert len(lines) == 2


def later_question(object_id: str) -> Story:
    """Answered in time; the customer asks again, and the rules hold that."""
    story = Story(object_id, datetime.now(UTC) - timedelta(minutes=45))
    story.opens()
    story.decides("execute", "Every rule is content.", effects=[story.effect])
    story.attempts()
    story.acknowledges()
    story.observes()
    story.asks_again()
    story.decides("hold", "The reply cites nothing.")
    return story


async def test_a_later_question_that_nobody_comes_for_is_told_of_until_somebody_closes_the_ticket(bench: Bench) -> None:
    waits, closed = later_question("1"), later_question("2")
    closed.changes("status_changed", author="staff", status="solved")
    await bench.take(waits.events + closed.events)

    await bench.teller().look()

    (message,) = told(bench.duty)
    assert "support: 1 case held for a person, and nobody has come" in message
    assert "first reply is late" not in message, "it was given: later questions have no clock"


async def test_an_approval_without_an_answer_is_told_of_after_the_first_reply_too(bench: Bench) -> None:
    story = Story("1", datetime.now(UTC) - timedelta(minutes=45))
    story.opens()
    story.decides("execute", "Every rule is content.", effects=[story.effect])
    story.attempts()
    story.acknowledges()
    story.observes()
    story.asks_again()
    story.decides("hold", "The refund of 480.00 is above the limit of 50.00.")
    story.asks()
    await bench.take(story.events)

    await bench.teller().look()

    (message,) = told(bench.duty)
    assert "support: 1 approval without an answer" in message


async def test_without_a_url_causes_are_counted_and_nobody_is_told(bench: Bench) -> None:
    await bench.take(letters("1", "2"))
    teller = Teller(PostgresCauses(bench.database, {}), {"support": manner_of(Tell())}, duty=None, escalation=None)

    await teller.look()

    (row,) = await bench.causes()
    assert (row.count, row.told_count) == (2, 0)


async def test_the_work_of_a_look_does_not_rise_with_what_was_told(bench: Bench) -> None:
    await bench.take(letters("1"))
    async with bench.database.connection() as connection:
        await connection.execute(
            "INSERT INTO causes (cause, process, kind, service, work, code, count, since, told_at) "
            "SELECT 'old ' || n, 'support', 'dead_letter', 's', 'w', n::text, 0, now() - interval '9 d', "
            "now() - interval '9 d' FROM generate_series(1, 500) n"
        )

    await bench.teller().look()

    async with bench.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM causes") == 1
