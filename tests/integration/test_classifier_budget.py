"""A classifier whose money ends: a run's is a person's, a day's is tomorrow's, and nobody's loop spends on."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import pytest
from prometheus_client import REGISTRY

from contracts.base import Fact
from contracts.events.control import RedriveRequested
from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.proposals import BudgetExhausted, ProposalDropped, ProposalFailed, ProposalMade
from contracts.failures import LaterError, PermanentError
from nightshift.supervisor import PROJECT
from services.classifier.outbound.budget import PostgresBudget
from services.classifier.outbound.patient import FAILURES_MAX, PatientProvider
from services.classifier.ports import Answer, AnswerLostError, Ask, Cost
from tests.conftest import MigratedDatabase
from tests.fakes.acting import tiny
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.events import event, named
from tests.fakes.hanging import WORST
from tests.fakes.proposing import GOOD, Bench, ScriptedModel, bench
from tests.virtual import set_clock

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0) + timedelta(days=1)
BAD = '{"confidence": 7}'
TOOK = Decimal("0.04")
F = TypeVar("F", bound=Fact)


@asynccontextmanager
async def desk(migrated: MigratedDatabase, *answers: str | Exception, **ceilings: float) -> AsyncIterator[Bench]:
    """Each call takes four cents, and ten at most. It is noon, so that no day ends during a test."""
    async with bench(migrated, tiny(budget=ceilings)) as made:
        await made.admin.execute("SET search_path = classifier, pg_catalog")
        await set_clock(made.admin, "classifier", NOON)
        made.outside.now = NOON - timedelta(minutes=1)
        made.model = ScriptedModel(worst=WORST, cost_usd=TOOK, answers=[*answers] or [GOOD])
        made.worker = made.new_worker()
        yield made


async def ask(desk: Bench, *tickets: str) -> None:
    """One after the other."""
    for ticket in tickets:
        await desk.hear(desk.outside.says(ticket))
        while await desk.worker.step():
            pass


async def tasks(desk: Bench) -> list[tuple[str, int, str | None]]:
    """State, attempts and the last code of each piece of work."""
    rows = await desk.admin.fetch("SELECT state, attempts, last_code FROM classifier.tasks ORDER BY case_id")
    return [tuple(row) for row in rows]


async def wait_seconds(desk: Bench) -> float:
    seconds: float = await desk.admin.fetchval(
        "SELECT extract(epoch FROM min(available_at) - clock_timestamp())::float8 FROM classifier.tasks"
        " WHERE state = 'open'"
    )
    return seconds


async def till_midnight(desk: Bench) -> float:
    seconds: float = await desk.admin.fetchval(
        "SELECT extract(epoch FROM date_trunc('day', clock_timestamp(), 'UTC') + interval '1 day'"
        " - clock_timestamp())::float8"
    )
    return seconds


async def spent(desk: Bench) -> Decimal:
    usd: Decimal = await desk.admin.fetchval("SELECT cost_usd FROM classifier.model_spend WHERE period = 'total'")
    return usd


async def next_day(desk: Bench) -> None:
    """The first minute of the day after: what waits for tomorrow is due."""
    await set_clock(desk.admin, "classifier", NOON + timedelta(hours=12, seconds=1))


async def said(desk: Bench, kind: type[F]) -> list[F]:
    return [event.data for event in await desk.said(kind) if isinstance(event.data, kind)]


async def test_a_run_past_its_ceiling_is_a_persons_and_says_what_it_took(migrated: MigratedDatabase) -> None:
    async with desk(migrated, BAD, run_usd_max=0.12) as found:  # the first call fits, the second might not
        await ask(found, "1")

        [failed] = await said(found, ProposalFailed)
        [dead] = await said(found, DeadLetterRaised)
        assert (failed.code, failed.cost_usd, failed.attempts) == ("run_budget_exhausted", TOOK, 1)
        assert dead.message == (
            "the run's ceiling is 0.12 usd: 0.04 are spent, 0 reserved, and the call to scripted can take 0.10"
        )
        assert await found.said(BudgetExhausted) == []


async def test_past_the_days_ceiling_work_waits_for_tomorrow_uses_up_no_attempt_and_it_is_said_once(
    migrated: MigratedDatabase,
) -> None:
    async with desk(migrated, day_usd_max=0.15) as found:
        await ask(found, "1", "2", "3", "4")

        [told] = await said(found, BudgetExhausted)
        assert (told.period, told.unit, told.model, told.asked_by) == ("day", "usd", "scripted", "tiny:none:3")
        assert (told.ceiling, told.spent, told.asked) == (Decimal("0.15"), TOOK * 2, WORST.cost_usd)
        assert (told.dearest, told.dearest_spent) == ("tiny:none:1", TOOK)
        assert [*await tasks(found)].count(("open", 0, "day_budget_exhausted")) == 2
        assert abs(await till_midnight(found) - await wait_seconds(found)) < 5
        assert len(await found.said(ProposalMade)) == 2

        await next_day(found)
        await ask(found, "5")
        for _ in range(2):  # of those that go on side by side, one may have to wait for another
            await found.hurry()
            await found.worker.step()

        assert len(await found.said(ProposalMade)) == 4, "two of each day"
        assert [event.case_id for event in await found.said(BudgetExhausted)] == [
            f"tiny:budget-{(NOON + timedelta(days=days)).date()}" for days in range(2)
        ]


async def test_past_the_total_work_waits_until_the_ceiling_is_raised_and_each_height_is_said_once(
    migrated: MigratedDatabase,
) -> None:
    async with desk(migrated, total_usd_max=0.15) as found:
        await ask(found, "1", "2", "3", "4")
        await next_day(found)
        while await found.worker.step():
            pass
        still = await tasks(found)

        found.process = tiny(budget={"total_usd_max": 0.2})
        await PostgresBudget(found.database, found.process).let_go()
        found.worker = found.new_worker()
        for _ in range(3):  # of two that go on side by side, one may have to wait for the other
            await found.worker.step()
            await found.hurry()

        assert still.count(("open", 0, "total_budget_exhausted")) == 2
        assert [one.ceiling for one in await said(found, BudgetExhausted)] == [Decimal("0.15"), Decimal("0.2")]
        assert len(await found.said(ProposalMade)) == 3
        assert await spent(found) <= Decimal("0.2")


async def test_what_only_calls_under_way_forbid_waits_a_moment_and_is_no_failure(migrated: MigratedDatabase) -> None:
    async with desk(migrated, day_usd_max=0.15) as found:
        await found.hear(found.outside.says("1"))
        [held] = await found.worker.claim()
        purse = PostgresBudget(found.database, found.process).purse(held)
        call = await purse.reserve(WORST, "scripted")
        await ask(found, "2")
        waiting, seconds = await tasks(found), await wait_seconds(found)

        await purse.settle(call, Cost(tokens_in=10, cost_usd=TOOK))
        await found.admin.execute("UPDATE classifier.tasks SET available_at = now() WHERE last_code IS NOT NULL")
        await found.worker.step()

        assert ("open", 0, "budget_reserved") in waiting
        assert seconds <= 2
        assert await found.said(BudgetExhausted) == []
        assert len(await found.said(ProposalMade)) == 1


async def test_what_is_too_old_to_be_answered_unattended_waits_for_calls_under_way_and_not_for_tomorrow(
    migrated: MigratedDatabase,
) -> None:
    async with desk(migrated, day_usd_max=0.15) as found:
        found.outside.tick(-25 * 3600)  # max_age_hours is 24
        await found.hear(found.outside.says("1"))
        [held] = await found.worker.claim()
        purse = PostgresBudget(found.database, found.process).purse(held)
        call = await purse.reserve(WORST, "scripted")
        await ask(found, "2")
        waiting = await tasks(found)

        await purse.settle(call, WORST)
        await found.admin.execute("UPDATE classifier.tasks SET available_at = now() WHERE last_code IS NOT NULL")
        await found.worker.step()

        assert ("open", 0, "budget_reserved") in waiting
        [failed] = await said(found, ProposalFailed)
        assert failed.code == "day_budget_exhausted", "a person has it"


async def test_what_waits_for_money_is_let_go_and_what_is_worked_on_is_left_alone(
    migrated: MigratedDatabase,
) -> None:
    async with desk(migrated, day_usd_max=0.05) as found:
        await ask(found, "1")
        budget = PostgresBudget(found.database, found.process)
        await budget.let_go()
        claimed = await found.worker.claim()
        await budget.let_go()

        assert len(claimed) == 1
        assert await found.worker.claim() == []


async def test_an_event_tells_what_all_tries_of_its_work_took(migrated: MigratedDatabase) -> None:
    lost = AnswerLostError("model_timeout", "no answer", seconds=0)
    turned_away = LaterError("model_overloaded", "busy", seconds=0)
    async with desk(migrated, BAD, turned_away, lost, GOOD) as found:
        await ask(found, "1")

        [made] = await said(found, ProposalMade)
        assert made.cost_usd == TOOK + WORST.cost_usd + TOOK, (
            "invalid, lost, accepted; nothing for what was turned away"
        )
        assert await spent(found) == made.cost_usd


async def test_an_event_tells_what_earlier_tries_took_where_the_last_one_is_turned_away_for_good(
    migrated: MigratedDatabase,
) -> None:
    lost = AnswerLostError("model_timeout", "no answer", seconds=0)
    async with desk(migrated, lost, PermanentError("model_key_rejected", "401")) as found:
        await ask(found, "1")

        [failed] = await said(found, ProposalFailed)
        [dead] = await said(found, DeadLetterRaised)
        assert (failed.code, dead.code, dead.message) == ("model_key_rejected", "model_key_rejected", "401")
        assert failed.cost_usd == await spent(found) == WORST.cost_usd


async def test_what_lost_calls_took_is_told_where_the_model_is_left_alone_until_waiting_is_over(
    migrated: MigratedDatabase,
) -> None:
    lost = AnswerLostError("model_timeout", "no answer", seconds=0)
    async with desk(migrated, lost) as found:
        found.provider = PatientProvider(found.model)
        found.worker = found.new_worker()
        await ask(found, "1")  # again and again, until the model is left alone
        asked = len(found.model.asked)
        await set_clock(found.admin, "classifier", NOON + timedelta(hours=25))  # max_age_hours is 24
        await found.worker.step()

        [failed] = await said(found, ProposalFailed)
        assert (failed.code, asked) == ("model_left_alone", FAILURES_MAX)
        assert failed.cost_usd == await spent(found) == WORST.cost_usd * FAILURES_MAX


@dataclass
class Overtaken(ScriptedModel):
    """Takes its time over the first answer, and the customer writes again meanwhile."""

    desk: Bench = field(kw_only=True)

    async def propose(self, ask: Ask) -> Answer:
        answer = await super().propose(ask)
        if len(self.asked) == 1:
            self.desk.outside.tick()
            await self.desk.hear(self.desk.outside.says("1"))
            await PostgresBudget(self.desk.database, self.desk.process).say_what_was_dropped()
        return answer


async def told(desk: Bench) -> Decimal:
    """What all events of the cases say that models took, once it was looked for what none of them told."""
    for _ in range(2):
        await PostgresBudget(desk.database, desk.process).say_what_was_dropped()
    costs = [one.cost_usd for one in await said(desk, ProposalMade)]
    costs += [one.cost_usd for one in await said(desk, ProposalFailed)]
    costs += [one.cost_usd for one in await said(desk, ProposalDropped)]
    return sum(costs, Decimal(0))


@pytest.mark.parametrize("first", [GOOD, BAD])
async def test_what_overtaken_work_took_is_told_once(migrated: MigratedDatabase, first: str) -> None:
    async with desk(migrated, first, GOOD) as found:
        found.model = Overtaken(worst=WORST, cost_usd=TOOK, answers=found.model.answers, desk=found)
        found.worker = found.new_worker()
        await ask(found, "1")

        dropped = 1 if first == GOOD else 2
        assert await told(found) == await spent(found) == TOOK * (dropped + 1)
        events = await found.said(ProposalDropped)
        assert [one.case_id for one in events] == ["tiny:none:1"] * dropped
        assert len(await found.said(ProposalMade)) == 1
        assert await found.admin.fetchval("SELECT count(*) FROM classifier.untold_calls") == 0


async def test_what_a_lost_call_took_is_told_where_something_newer_came_while_its_work_waited(
    migrated: MigratedDatabase,
) -> None:
    async with desk(migrated, AnswerLostError("model_timeout", "no answer", seconds=3600), GOOD) as found:
        await ask(found, "1")
        before = await told(found)
        found.outside.tick()
        await found.hear(found.outside.says("1"))
        await found.worker.step()

        assert before == 0, "its work waits, and will tell it"
        assert await told(found) == await spent(found) == WORST.cost_usd + TOOK


async def test_what_work_took_that_died_of_an_unforeseen_failure_is_told(migrated: MigratedDatabase) -> None:
    async with desk(migrated, RuntimeError("a fault of ours")) as found:
        await ask(found, "1")
        for _ in range(2):  # attempts_max is 3
            await found.hurry()
            await found.worker.step()
        alive = await told(found)
        await found.admin.execute("UPDATE model_calls SET live_until = now() - interval '1 day'")

        assert [one.code for one in await said(found, DeadLetterRaised)] == ["unforeseen"]
        assert alive == 0, "a call that may be under way is not over"
        assert await told(found) == await spent(found) == WORST.cost_usd * 3


async def test_what_is_used_of_each_ceiling_is_told_as_a_figure(migrated: MigratedDatabase) -> None:
    async with desk(migrated, day_usd_max=0.5, total_tokens_max=9000) as found:
        await ask(found, "1")
        await PostgresBudget(found.database, found.process).look()

        def figure(name: str, period: str, unit: str) -> float | None:
            labels = {"process": "tiny", "period": period, "unit": unit}
            return REGISTRY.get_sample_value(f"nightshift_budget_{name}", labels)

        assert (figure("used", "day", "usd"), figure("ceiling", "day", "usd")) == (0.04, 0.5)
        assert (figure("used", "total", "tokens"), figure("ceiling", "total", "tokens")) == (110, 9000)


async def test_a_provider_that_costs_nothing_leaves_the_ledger_alone(migrated: MigratedDatabase) -> None:
    async with desk(migrated, day_usd_max=0.01) as found:
        found.model.worst = None
        await ask(found, "1")

        assert len(await found.said(ProposalMade)) == 1
        assert await found.admin.fetchval("SELECT count(*) FROM classifier.model_spend") == 0


@pytest.mark.parametrize(("run_usd_max", "ends"), [(0.15, "dead run_budget_exhausted"), (0.25, "proposed")])
async def test_a_classifier_killed_while_its_model_thinks_has_spent_the_most_that_the_call_can_take(
    migrated: MigratedDatabase, run_usd_max: float, ends: str
) -> None:
    async with desk(migrated, run_usd_max=run_usd_max) as found:
        await found.hear(found.outside.says("1"))
        url = migrated.url("nightshift_classifier")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fakes.hanging", url), cwd=PROJECT, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        async with asyncio.timeout(60):
            while b"asking" not in (line := await child.stdout.readline()):
                assert line, "it ended"
        child.send_signal(signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL

        await found.hurry()
        await found.worker.step()
        while_it_may_live = await tasks(found)
        await found.admin.execute("UPDATE classifier.model_calls SET live_until = now() WHERE settled_at IS NULL")
        await found.hurry()
        await found.worker.step()

        dead = [one.code for one in await said(found, DeadLetterRaised)]
        made = [one.cost_usd for one in await said(found, ProposalMade)]
        if ends == "proposed":
            assert (made, dead) == ([WORST.cost_usd + TOOK], [])
        else:
            assert while_it_may_live == [("open", 1, "budget_reserved")], "the killed try alone was one"
            assert (made, dead) == ([], ["run_budget_exhausted"])
        assert await spent(found) == sum(made, WORST.cost_usd if dead else Decimal(0)) <= Decimal(str(run_usd_max))


@pytest.mark.parametrize(
    ("ceilings", "most"),
    [({"day_usd_max": 0.05}, "0.05"), ({"total_tokens_max": 30_000}, "0.06"), ({"run_usd_max": 0.01}, "0.10")],
    ids=["day", "total", "run"],
)
async def test_a_loop_of_refused_outputs_and_cases_that_keep_coming_back_stops_at_the_ceiling(
    migrated: MigratedDatabase, ceilings: dict[str, float], most: str
) -> None:
    """Eight hundred dollars in an afternoon: a schema that the model never meets, and somebody who redrives it all."""
    model = FakeAnthropic("I would rather not say.")  # 1600 tokens and 0.00204 dollars a call
    async with bench(migrated, tiny(budget=ceilings)) as found:
        found.provider = model.claude()
        found.worker = found.new_worker()
        rounds = []
        for number in range(12):
            if number == 0 or "run_usd_max" not in ceilings:  # a customer who writes again begins a run of its own
                await ask(found, *(str(ticket) for ticket in range(10)))
            await found.worker.step()
            await _redrive_all(found, f"round {number}")
            await found.hurry()
            rounds.append(len(model.sent))

        assert rounds[-1] == rounds[-4], "nobody is asked any more"
        assert await spent(found) == Decimal("0.00204") * len(model.sent) <= Decimal(most)
        assert len(model.sent) >= 10, "and what the ceiling allows was asked"
        assert len(await found.said(BudgetExhausted)) == (0 if "run_usd_max" in ceilings else 1)


async def _redrive_all(desk: Bench, name: str) -> None:
    dead = await desk.admin.fetch(
        "SELECT dead_letter_id, case_id FROM classifier.dead_letters WHERE redriven_at IS NULL"
    )
    for row in dead:
        nonce = named(f"{name} {row['case_id']}")
        order = RedriveRequested(dead_letter_id=row["dead_letter_id"], service="classifier", nonce=nonce, by="Ada")
        await desk.inbox.take([event(str(nonce), order, case_id=row["case_id"]).to_record()])
