"""The ledger of what models cost, in Postgres: one row a call, ceilings that no concurrency gets past."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar, get_args
from uuid import NAMESPACE_URL, UUID, uuid5

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from contracts.envelope import Event, follow_up_id
from contracts.events.proposals import BudgetExhausted, ProposalDropped
from contracts.failures import LaterError
from services.classifier.handlers.propose import SOURCE
from services.classifier.ports import Cost, MoneyReservedError, RunBudgetExhaustedError, SpareBudgetError
from services.runtime import outbox
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Connection, Database
from services.runtime.process import PERIODS, Process, Unit
from services.runtime.stop import Stop
from services.runtime.tasks import Claim

LOOK_SECONDS = 10.0
MARGIN = timedelta(seconds=15)
"""Beyond a model's own times, until a call that nobody settled is taken for dead."""
LEASE_MAX = timedelta(minutes=2)
"""What waits for tomorrow waits longer than a lease; what is so near is claimed, or goes on by itself."""
BUSY_SECONDS = 2.0
"""What fits as soon as calls under way take less than they may looks again after so long."""
SPARE_SHARE = Decimal("0.8")
"""Of each ceiling: what lies above it is left for work that somebody waits for."""
_NAMES = uuid5(NAMESPACE_URL, "nightshift:budget")

_RESERVE = """
WITH asked AS (SELECT * FROM reserve_model_call($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)),
untold AS (
    INSERT INTO untold_calls (call_id, cause, redrives, basis, told_by)
    SELECT $1, $13, $14, $15, $16 FROM asked WHERE period IS NULL ON CONFLICT DO NOTHING)
SELECT * FROM asked
"""
_SETTLE = "SELECT * FROM settle_model_call($1, $2, $3, $4, $5)"
_TAKEN = "SELECT * FROM model_calls_taken($1)"
_OVER = """
WITH ended AS (
    DELETE FROM untold_calls u USING model_calls c
    WHERE c.call_id = u.call_id AND c.process = $1 AND (c.settled_at IS NOT NULL OR c.live_until <= clock_timestamp())
      AND NOT EXISTS (SELECT FROM tasks t WHERE t.case_id = c.case_id AND t.kind IN ('propose', 'shadow')
                      AND t.state = 'open' AND t.cause = u.cause AND t.redrives = u.redrives)
    RETURNING c.*, u.cause, u.basis, u.told_by)
SELECT *, clock_timestamp() AS now FROM ended
WHERE tokens_in + tokens_out > 0 AND NOT EXISTS (SELECT FROM outbox_known k WHERE k.event_id = ANY (ended.told_by))
"""
_LOSE = "UPDATE model_calls SET live_until = clock_timestamp() WHERE call_id = $1 AND settled_at IS NULL"
_DEAREST = """
SELECT case_id, CASE $3 WHEN 'tokens' THEN sum(tokens_in + tokens_out) ELSE trim_scale(sum(cost_usd)) END AS spent
FROM model_calls
WHERE process = $1 AND day BETWEEN coalesce($2::date, '-infinity') AND coalesce($2, 'infinity')
GROUP BY case_id ORDER BY 2 DESC, 1 LIMIT 1
"""
_WAS_SAID = "SELECT 1 FROM outbox_known WHERE event_id = $1"
_USED = """
SELECT p.period, coalesce(s.tokens, 0) AS tokens, coalesce(s.cost_usd, 0) AS usd
FROM (VALUES ('day', (clock_timestamp() AT TIME ZONE 'UTC')::date::text), ('total', 'total')) p(period, stored)
LEFT JOIN model_spend s ON s.process = $1 AND s.period = p.stored
"""
_LET_GO = """
UPDATE tasks SET available_at = clock_timestamp()
WHERE process = $1 AND kind = 'propose' AND state = 'open' AND available_at > clock_timestamp() + $2::interval
  AND last_code IN ('day_budget_exhausted', 'total_budget_exhausted')
"""

log = structlog.get_logger()
used = Gauge("nightshift_budget_used", "What models took, reserved calls counted", ["process", "period", "unit"])
ceilings = Gauge("nightshift_budget_ceiling", "The most that models may take", ["process", "period", "unit"])
refused_total = Counter(
    "nightshift_budget_refused_total", "Calls that did not fit below a ceiling", ["process", "period", "why"]
)

T = TypeVar("T")


class PostgresBudget:
    """Implements ports.Budget for a process."""

    def __init__(self, database: Database, process: Process) -> None:
        self.database = database
        self.process = process
        self.tokens_max = [process.settings.budget.of(period, "tokens") for period in PERIODS]
        self.usd_max = [process.settings.budget.of(period, "usd") for period in PERIODS]
        self.live = 2 * timedelta(seconds=process.settings.model.timeout_seconds) + MARGIN
        """How long a call may be under way: a machine of one's own has as long for its turn as for the answer."""
        for period in PERIODS:  # 0 is a figure too: what is not there cannot be seen to grow
            for why in ("spent", "reserved"):
                refused_total.labels(process.name, period, why)

    def purse(self, claim: Claim, told_by: Collection[UUID] = ()) -> "PostgresPurse":
        """See Budget."""
        return PostgresPurse(self, claim, told_by)

    def spare_purse(self, claim: Claim, told_by: Collection[UUID] = ()) -> "PostgresPurse":
        """See Budget."""
        return _SparePurse(self, replace(claim, correlation_id=follow_up_id(claim.cause, "spare_run")), told_by)

    async def run(self, stop: Stop) -> None:
        """Let go at once what waited for money when another setting was in force; then tell what is taken."""
        waits = True
        while not stop.is_set():
            try:
                if waits:
                    await self.let_go()
                    waits = False
                await self.look()
                await self.say_what_was_dropped()
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("figures of the budget wait for postgres", error=type(error).__name__)
            await stop.wait(LOOK_SECONDS)

    async def let_go(self) -> None:
        """A higher ceiling is in force from the start on: whatever waits for money asks again."""
        async with self.database.connection() as connection:
            await connection.execute(_LET_GO, self.process.name, LEASE_MAX)

    async def look(self) -> None:
        """Tell the figures once."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(_USED, self.process.name)
        for row in rows:
            for unit in get_args(Unit):
                used.labels(self.process.name, row["period"], unit).set(row[unit])
                if (ceiling := self.process.settings.budget.of(row["period"], unit)) is not None:
                    ceilings.labels(self.process.name, row["period"], unit).set(float(ceiling))

    async def say_what_was_dropped(self) -> None:
        """Each call that took something, and whose work is over without an event that tells it."""
        async with self.database.transaction() as connection:
            rows = await connection.fetch(_OVER, self.process.name)
            await outbox.append(connection, [_dropped(row) for row in rows])


class PostgresPurse:
    """Implements ports.Purse for one claim."""

    _share = Decimal(1)
    """Of the ceilings of a day and in total."""

    def __init__(self, budget: PostgresBudget, claim: Claim, told_by: Collection[UUID]) -> None:
        self._budget = budget
        self._claim = claim
        self._told_by = told_by
        self._calls = 0
        self._work = follow_up_id(claim.cause, "model_work", claim.redrives)
        self._worst = Cost()
        self._model = ""
        self._is_begun = False
        self.taken: Cost | None = None

    async def reserve(self, worst: Cost, model: str) -> UUID:
        """See Purse. After a call that took something it waits here: to begin anew would pay for that one again."""
        until = time.monotonic() + self._budget.live.total_seconds()
        while True:
            try:
                return await self._reserve(worst, model)
            except MoneyReservedError:
                if not self._is_begun or time.monotonic() >= until:
                    raise
            await asyncio.sleep(BUSY_SECONDS)

    async def _reserve(self, worst: Cost, model: str) -> UUID:
        claim, process = self._claim, self._budget.process
        self._worst, self._model = worst, model
        self._calls += 1
        call = follow_up_id(claim.cause, "model_call", claim.token, self._calls)
        row = await self._twice(
            lambda connection: connection.fetchrow(
                _RESERVE,
                *(call, process.name, claim.case_id, claim.correlation_id, self._work, self._model),
                *(worst.tokens_in, worst.tokens_out, worst.cost_usd),
                self._budget.live,
                *(self._below(self._budget.tokens_max), self._below(self._budget.usd_max)),
                *(claim.cause, claim.redrives, claim.basis, self._told_by),
            )
        )
        assert row is not None, "it answers with a row"
        self.taken = _cost_of(row)
        if row["period"] is not None:
            await self._refuse(row)
        return call

    def _below(self, ceilings: Sequence[Decimal | None]) -> list[Decimal | None]:
        run, *longer = ceilings
        return [run, *(None if ceiling is None else ceiling * self._share for ceiling in longer)]

    async def settle(self, call: UUID, took: Cost, *, request_id: str | None = None) -> None:
        row = await self._twice(
            lambda connection: connection.fetchrow(
                _SETTLE, call, took.tokens_in, took.tokens_out, took.cost_usd, request_id
            )
        )
        assert row is not None, "a call that was reserved is known"
        self.taken = _cost_of(row)
        self._is_begun |= took != Cost()
        if took.cost_usd > self._worst.cost_usd:
            log.error("a call took more than it could", model=self._model, call=str(call), usd=str(took.cost_usd))

    async def look(self) -> None:
        row = await self._twice(lambda connection: connection.fetchrow(_TAKEN, self._work))
        assert row is not None, "it answers with a row"
        if (found := _cost_of(row)) != Cost():
            self.taken = found

    async def lose(self, call: UUID) -> None:
        self._is_begun = True
        await self._twice(lambda connection: connection.execute(_LOSE, call))

    async def _twice(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """Once more where the answer may have been lost on the way: each of these does the same thing once."""
        try:
            async with self._budget.database.connection() as connection:
                return await ask(connection)
        except UNAVAILABLE:
            async with self._budget.database.connection() as connection:
                return await ask(connection)

    async def _refuse(self, row: asyncpg.Record) -> None:
        """Raises what becomes of the work: a person's, tomorrow's, or that of the next moments."""
        period, unit, process, worst = row["period"], row["unit"], self._claim.process, self._worst
        asked = Decimal(worst.tokens_in + worst.tokens_out) if unit == "tokens" else worst.cost_usd
        message = (
            f"the {period}'s ceiling is {row['ceiling']:f} {unit}: {row['spent']:f} are spent, {row['reserved']:f} "
            f"reserved, and the call to {self._model} can take {asked:f}"
        )
        is_spent = row["spent"] + asked > row["ceiling"]
        refused_total.labels(process, period, "spent" if is_spent else "reserved").inc()
        if not is_spent:
            raise MoneyReservedError(message, seconds=BUSY_SECONDS)
        if period == "run":
            raise RunBudgetExhaustedError(message)
        tomorrow = (row["at"] + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        await self._say(row, asked, tomorrow, message)
        raise LaterError(f"{period}_budget_exhausted", message, seconds=(tomorrow - row["at"]).total_seconds())

    async def _say(self, row: asyncpg.Record, asked: Decimal, tomorrow: datetime, message: str) -> None:
        """To whoever listens: once of a day, and once of each height of a total."""
        period, unit, process = row["period"], row["unit"], self._claim.process
        day = row["at"].date() if period == "day" else None
        case_id = f"{process}:budget-{day or 'total'}"
        run = uuid5(_NAMES, case_id)
        event_id = follow_up_id(run, BudgetExhausted.TYPE, *(() if day else (unit, row["ceiling"].normalize())))
        async with self._budget.database.transaction() as connection:
            if await connection.fetchval(_WAS_SAID, event_id):
                return
            dearest = await connection.fetchrow(_DEAREST, process, day, unit)
            told = BudgetExhausted(
                period=period,
                unit=unit,
                ceiling=row["ceiling"],
                spent=row["spent"],
                reserved=row["reserved"],
                asked=asked,
                asked_by=self._claim.case_id,
                asked_run=self._claim.correlation_id,
                model=self._model,
                dearest=self._claim.case_id if dearest is None else dearest["case_id"],
                dearest_spent=Decimal(0) if dearest is None else Decimal(dearest["spent"]),
                until=tomorrow if day else None,
            )
            event = Event(
                event_id=event_id,
                source=SOURCE,
                time=row["at"],
                process=process,
                case_id=case_id,
                correlation_id=run,
                causation_id=None,
                data=told,
            )
            await outbox.append(connection, [event])
        log.error(
            "a budget is used up",
            process=process,
            case=self._claim.case_id,
            run=str(self._claim.correlation_id),
            why=message,
        )


class _SparePurse(PostgresPurse):
    """See Budget.spare_purse."""

    _share = SPARE_SHARE

    async def _refuse(self, row: asyncpg.Record) -> None:
        raise SpareBudgetError(f"the {row['period']}'s ceiling is near: {row['ceiling']:f} {row['unit']} for such work")


def _dropped(row: asyncpg.Record) -> Event[ProposalDropped]:
    return Event(
        event_id=follow_up_id(row["call_id"], ProposalDropped.TYPE),
        source=SOURCE,
        time=row["now"],
        process=row["process"],
        case_id=row["case_id"],
        correlation_id=row["run"],
        causation_id=row["cause"],
        data=ProposalDropped(
            basis=row["basis"],
            model=row["model"],
            tokens_in=row["tokens_in"],
            tokens_out=row["tokens_out"],
            cost_usd=row["cost_usd"],
        ),
    )


def _cost_of(row: asyncpg.Record) -> Cost:
    return Cost(tokens_in=row["tokens_in"], tokens_out=row["tokens_out"], cost_usd=row["cost_usd"])
