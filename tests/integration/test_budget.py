"""What models may cost: no ceiling is passed, whatever happens at once, and nothing is stopped that would fit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any, get_args
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from prometheus_client import REGISTRY

from contracts.failures import LaterError
from services.classifier.outbound.budget import PostgresBudget, PostgresPurse
from services.classifier.ports import Cost, MoneyReservedError, RunBudgetExhaustedError
from services.runtime.postgres import Database, connect
from services.runtime.process import PERIODS, Period, Process, Unit
from services.runtime.tasks import Claim
from tests.conftest import MigratedDatabase
from tests.fakes.acting import tiny
from tests.fakes.events import named
from tests.virtual import set_clock

UNITS: tuple[Unit, ...] = get_args(Unit)
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0) + timedelta(days=1)
TODAY = "(clock_timestamp() AT TIME ZONE 'UTC')::date"


@pytest.fixture
async def database(migrated: MigratedDatabase) -> AsyncIterator[Database]:
    """At noon, so that no day ends during a test."""
    await at(migrated, NOON)
    async with connect(migrated.url("nightshift_classifier"), schema="classifier") as found:
        yield found


async def at(migrated: MigratedDatabase, moment: datetime) -> None:
    admin = await asyncpg.connect(migrated.admin_url)
    await set_clock(admin, "classifier", moment)
    await admin.close()


def process(**ceilings: float) -> Process:
    return tiny(budget=ceilings)


def claim(token: int, run: object = 0, work: object = 0) -> Claim:
    return Claim(
        case_id=f"tiny:none:{run}",
        process="tiny",
        kind="propose",
        basis="1",
        cause=named(f"work {run} {work}"),
        correlation_id=named(f"run {run}"),
        traceparent=None,
        token=token,
        attempts=1,
        redrives=0,
        generation=1,
    )


def cost(tokens: int, cents: int) -> Cost:
    return Cost(tokens_in=tokens, tokens_out=0, cost_usd=Decimal(cents) / 100)


async def execute(database: Database, statement: str, *args: object) -> None:
    async with database.connection() as connection:
        await connection.execute(statement, *args)


async def spend(database: Database) -> dict[str, tuple[int, Decimal]]:
    """By period, as the running sums say."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT period, tokens, cost_usd FROM model_spend")
    return {row["period"]: (row["tokens"], row["cost_usd"]) for row in rows}


async def summed(database: Database) -> dict[str, tuple[int, Decimal]]:
    """By period, as the calls say."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT coalesce(day::text, 'total') AS period, sum(tokens_in + tokens_out)::bigint AS tokens, "
            "sum(cost_usd) AS usd FROM model_calls GROUP BY GROUPING SETS ((day), ())"
        )
    return {row["period"]: (row["tokens"], row["usd"]) for row in rows if row["tokens"] is not None}


@dataclass
class Known:
    """A call, as the plainest ledger has it."""

    claim: Claim
    purse: PostgresPurse
    id: UUID
    run: int
    day: int
    worst: Cost
    took: Cost
    state: str = "live"


class Both:
    """The ledger, and beside it a list of calls that says what the ledger must say."""

    def __init__(self, database: Database, ceilings: dict[str, Any]) -> None:
        self.database = database
        self.budget = PostgresBudget(database, process(**ceilings))
        self.ceilings = self.budget.process.settings.budget
        self.calls: list[Known] = []
        self.day = 0

    def used(self, period: Period, unit: Unit, *, run: int = 0, live: bool = True) -> Decimal:
        within = {
            "run": [call for call in self.calls if call.run == run],
            "day": [call for call in self.calls if call.day == self.day],
            "total": self.calls,
        }
        took = [call.took for call in within[period] if live or call.state != "live"]
        return sum((one.cost_usd if unit == "usd" else Decimal(one.tokens_in) for one in took), Decimal(0))

    def expected(self, run: int, worst: Cost) -> str:
        waits = False
        for period in PERIODS:
            for unit in UNITS:
                asked = worst.cost_usd if unit == "usd" else Decimal(worst.tokens_in)
                if (ceiling := self.ceilings.of(period, unit)) is None:
                    continue
                if self.used(period, unit, run=run, live=False) + asked > ceiling:
                    return f"{period}_budget_exhausted"
                waits |= self.used(period, unit, run=run) + asked > ceiling
        return "budget_reserved" if waits else "reserved"

    async def reserve(self, token: int, run: int, worst: Cost) -> None:
        expected, held = self.expected(run, worst), claim(token, run)
        purse = self.budget.purse(held)
        if expected == "reserved":
            call = await purse.reserve(worst, "m")
            self.calls.append(Known(held, purse, call, run, self.day, worst, worst))
            return
        with pytest.raises((LaterError, RunBudgetExhaustedError)) as refused:
            await purse.reserve(worst, "m")
        assert isinstance(refused.value, LaterError | RunBudgetExhaustedError)
        assert refused.value.code == expected

    async def reserve_again(self, known: Known) -> None:
        """Its first answer was lost on the way. A call that is over is not to be had twice."""
        asked = self.budget.purse(known.claim).reserve(known.worst, "m")
        if known.state == "live":
            assert await asked == known.id
        elif self.expected(known.run, known.worst) == "reserved":
            with pytest.raises(asyncpg.UniqueViolationError):
                await asked
        else:
            with pytest.raises((LaterError, RunBudgetExhaustedError)):
                await asked

    async def settle(self, known: Known, share: float) -> None:
        took = part(known.worst, share)
        await known.purse.settle(known.id, took)
        if known.state != "settled":
            known.state, known.took = "settled", took

    async def lose(self, known: Known) -> None:
        await known.purse.lose(known.id)
        known.state = "dead" if known.state == "live" else known.state

    async def die(self, known: Known) -> None:
        past = "UPDATE model_calls SET live_until = clock_timestamp() WHERE call_id = $1"
        await execute(self.database, past, known.id)
        known.state = "dead" if known.state == "live" else known.state

    async def tomorrow(self) -> None:
        self.day += 1
        past = f"({TODAY} - {self.day})"
        await execute(self.database, f"UPDATE model_calls SET day = {past} WHERE day = {TODAY}")
        await execute(self.database, f"UPDATE model_spend SET period = {past}::text WHERE period = {TODAY}::text")

    async def compare(self) -> None:
        sums, spent = await summed(self.database), await spend(self.database)
        assert {period: spent[period] for period in sums} == sums
        tokens, cost_usd = sums.get("total", (0, Decimal(0)))
        assert (Decimal(tokens), cost_usd) == (self.used("total", "tokens"), self.used("total", "usd"))
        for period in PERIODS[1:]:
            for unit in UNITS:
                ceiling = self.ceilings.of(period, unit)
                assert ceiling is None or self.used(period, unit) <= ceiling


def part(worst: Cost, share: float) -> Cost:
    return Cost(tokens_in=int(worst.tokens_in * share), cost_usd=worst.cost_usd * round(Decimal(share), 2))


costs = st.builds(cost, st.integers(0, 4), st.integers(0, 4))
reserves = st.tuples(st.just("reserve"), st.integers(0, 1), costs)
steps = st.lists(
    st.one_of(
        reserves,
        reserves,
        st.tuples(st.just("settle"), st.integers(0, 9), st.floats(0, 1)),
        st.tuples(st.sampled_from(["reserve again", "lose", "die"]), st.integers(0, 9)),
        st.tuples(st.just("tomorrow")),
    ),
    min_size=5,
    max_size=25,
)
some = st.none() | st.integers(4, 9)


def rising(unit: Unit, drawn: tuple[int | None, ...], scale: int) -> dict[str, float]:
    """A longer period may take no less."""
    known = {period: value for period, value in zip(PERIODS, drawn, strict=True) if value is not None}
    heights = list(accumulate(known.values(), max))
    return {f"{period}_{unit}_max": height / scale for period, height in zip(known, heights, strict=True)}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.tuples(some, some, some), cents=st.tuples(some, some, some), script=steps)
@example(
    tokens=(None,) * 3,
    cents=(None, None, 5),
    script=[("reserve", 0, cost(1, 3)), ("die", 0), ("reserve", 1, cost(1, 3))],
)
@example(tokens=(None,) * 3, cents=(None, None, 5), script=[("reserve", 0, cost(1, 3)), ("die", 0), ("settle", 0, 0.0)])
async def test_whatever_happens_the_ledger_refuses_exactly_what_does_not_fit(
    database: Database,
    tokens: tuple[int | None, ...],
    cents: tuple[int | None, ...],
    script: list[tuple[Any, ...]],
) -> None:
    await execute(database, "TRUNCATE model_calls, model_spend")
    both = Both(database, rising("tokens", tokens, 1) | rising("usd", cents, 100))
    acts: dict[str, Callable[..., Awaitable[None]]] = {
        "settle": both.settle,
        "reserve again": both.reserve_again,
        "lose": both.lose,
        "die": both.die,
    }

    for token, step in enumerate(script):
        match step:
            case ("reserve", run, worst):
                await both.reserve(token, run, worst)
            case ("tomorrow",):
                await both.tomorrow()
            case (what, n, *rest) if both.calls:
                await acts[what](both.calls[n % len(both.calls)], *rest)
        await both.compare()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(st.tuples(costs, st.floats(0, 1)), min_size=4, max_size=24),
    day=st.integers(1, 20),
    total=st.integers(10, 30),
)
async def test_calls_side_by_side_never_pass_a_ceiling_and_none_is_stopped_that_would_have_fitted(
    database: Database, calls: list[tuple[Cost, float]], day: int, total: int
) -> None:
    await execute(database, "TRUNCATE model_calls, model_spend")
    budget = PostgresBudget(
        database, process(day_usd_max=day / 100, total_usd_max=max(day, total) / 100, total_tokens_max=total)
    )
    stopped: list[tuple[str, Cost]] = []
    highest = {"day": (0, Decimal(0)), "total": (0, Decimal(0))}

    async def one(number: int, worst: Cost, share: float) -> None:
        purse, call = budget.purse(claim(1, number)), None
        while call is None:
            try:
                call = await purse.reserve(worst, "m")
            except LaterError as error:
                if error.code != "budget_reserved":
                    stopped.append((error.code.partition("_")[0], worst))
                    return
                await asyncio.sleep(0)
        sums = await spend(database)
        for period, found in sums.items():
            name = "total" if period == "total" else "day"
            highest[name] = max(highest[name][0], found[0]), max(highest[name][1], found[1])
        await purse.settle(call, part(worst, share))

    async with asyncio.TaskGroup() as group:
        for number, (worst, share) in enumerate(calls):
            group.create_task(one(number, worst, share))

    assert highest["day"][1] <= Decimal(day) / 100
    assert highest["total"][0] <= total
    assert highest["total"][1] <= Decimal(max(day, total)) / 100
    spent = await summed(database)
    for period, worst in stopped:  # what was settled only grows: it is no less now than it was then
        tokens, usd = spent.get("total", (0, Decimal(0)))
        over_usd = usd + worst.cost_usd > Decimal(day if period == "day" else max(day, total)) / 100
        assert over_usd or (period == "total" and tokens + worst.tokens_in > total)


async def test_a_call_is_taken_for_dead_only_when_its_turn_and_its_answer_are_both_overdue(database: Database) -> None:
    budget = PostgresBudget(database, process(day_usd_max=0.05))
    seconds = budget.process.settings.model.timeout_seconds  # a machine of one's own has as long for a turn
    await budget.purse(claim(1, 1)).reserve(cost(1, 3), "m")
    await execute(
        database, "UPDATE model_calls SET live_until = live_until - make_interval(secs => $1)", 2 * seconds - 1
    )

    with pytest.raises(MoneyReservedError):
        await budget.purse(claim(1, 2)).reserve(cost(1, 3), "m")


async def test_a_call_keeps_the_vendors_name_of_it_from_its_first_settlement(
    database: Database, migrated: MigratedDatabase
) -> None:
    purse = PostgresBudget(database, process()).purse(claim(1, 1))
    await at(migrated, NOON)
    call = await purse.reserve(cost(1, 5), "m")

    await purse.settle(call, cost(1, 4), request_id="req_1")
    await purse.settle(call, cost(1, 3), request_id="req_2")

    async with database.connection() as connection:
        assert await connection.fetchval("SELECT request_id FROM model_calls WHERE call_id = $1", call) == "req_1"
    assert (await spend(database))["total"][1] == Decimal("0.04")


async def test_a_call_that_is_settled_after_midnight_was_the_days_before(
    database: Database, migrated: MigratedDatabase
) -> None:
    midnight = NOON + timedelta(hours=12)
    budget = PostgresBudget(database, process(day_usd_max=0.05))
    purse = budget.purse(claim(1, 1))
    await at(migrated, midnight - timedelta(minutes=1))
    call = await purse.reserve(cost(1, 5), "m")
    await at(migrated, midnight)
    await budget.purse(claim(1, 2)).reserve(cost(1, 5), "m")
    await purse.settle(call, cost(1, 4))

    assert {period: usd for period, (_, usd) in (await spend(database)).items()} == {
        NOON.date().isoformat(): Decimal("0.04"),
        midnight.date().isoformat(): Decimal("0.05"),
        "total": Decimal("0.09"),
    }


async def test_several_classifiers_that_reach_a_ceiling_at_once_say_it_once(database: Database) -> None:
    async def one(number: int) -> None:
        budget = PostgresBudget(database, process(day_usd_max=0.01))
        with pytest.raises(LaterError):
            await budget.purse(claim(1, number)).reserve(cost(1, 2), "m")

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(one(number))

    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 1


async def test_between_two_calls_of_a_piece_of_work_money_that_others_hold_is_waited_for_on_the_spot(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To begin anew would ask for the first answer again, and pay for it, as often as it is looked."""
    monkeypatch.setattr("services.classifier.outbound.budget.BUSY_SECONDS", 0.001)
    budget = PostgresBudget(database, process(day_usd_max=0.05))
    ours, others = budget.purse(claim(1, 1)), budget.purse(claim(1, 2))
    await ours.settle(await ours.reserve(cost(1, 2), "m"), cost(1, 1))
    held, looked = await others.reserve(cost(1, 3), "m"), refused_for_a_moment()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(ours.reserve(cost(1, 2), "m"))
        while refused_for_a_moment() < looked + 2:
            await asyncio.sleep(0)
        await others.settle(held, cost(1, 1))

    assert waiting.result() != held
    assert await spend(database) == await summed(database)


def refused_for_a_moment() -> float:
    labels = {"process": "tiny", "period": "day", "why": "reserved"}
    return REGISTRY.get_sample_value("nightshift_budget_refused_total", labels) or 0.0
