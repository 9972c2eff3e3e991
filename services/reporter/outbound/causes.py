"""The causes of which a person is told, counted from the projections and kept in Postgres."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

import asyncpg

from services.reporter.domain.causes import Cause
from services.reporter.domain.telling import Standing
from services.reporter.domain.views import BudgetRow
from services.reporter.outbound.queries import UNENDED
from services.reporter.ports import Outcome, Telling
from services.runtime.postgres import Database
from services.runtime.process import Ceilings

CAUSES_MAX = 200
"""Of those that hold up most; so many different reasons at once are one reason that nobody has seen yet."""
HELD_DAYS_MAX = 7
"""A first reply that is late for longer, or a later question that is older, is not told any more: reports have it."""

_LETTERS = """
SELECT process, 'dead_letter' AS kind, row ->> 'service' AS service, row ->> 'work' AS work, row ->> 'code' AS code,
       count(*) AS count, count(*) FILTER (WHERE state <> 'open') AS ordered,
       min(at) AS since, min(due_at) FILTER (WHERE due_at > clock_timestamp()) AS due_at
FROM reporter.projections, LATERAL (SELECT (row ->> 'due_at')::timestamptz AS due_at) due
WHERE kind = 'dead_letter' AND state = ANY($2) GROUP BY process, service, work, code ORDER BY count DESC LIMIT $1
"""
_HELD = """
SELECT process, 'held' AS kind,
       count(*) AS count, min(at) AS since, min(due_at) FILTER (WHERE due_at > clock_timestamp()) AS due_at
FROM unnest($1::text[], $2::interval[]) h(process, held), LATERAL (
    SELECT c.at, s.at AS due_at FROM reporter.projections s
    JOIN reporter.projections c ON c.case_id = s.case_id AND c.kind = 'case' AND c.key = ''
        AND c.state IN ('held', 'refused') AND c.at <= clock_timestamp() - h.held
    WHERE s.kind = 'sla' AND s.state = 'waiting' AND s.process = h.process AND s.at > clock_timestamp() - $3::interval
    UNION ALL
    SELECT c.at, NULL FROM reporter.projections c
    WHERE c.kind = 'case' AND c.state IN ('held', 'refused') AND c.process = h.process AND c.row ->> 'waiting' <> ''
        AND c.at > clock_timestamp() - $3::interval AND c.at <= clock_timestamp() - h.held
        AND NOT EXISTS (SELECT FROM reporter.projections s
                        WHERE s.case_id = c.case_id AND s.kind = 'sla' AND s.state = 'waiting')) waits
GROUP BY 1
"""
"""First by the clock of first replies, then later questions: they have no clock, and wait for a person as well."""
_APPROVALS = """
SELECT h.process, 'approval' AS kind,
       count(*) AS count, min(a.at) AS since, min(due_at) FILTER (WHERE due_at > clock_timestamp()) AS due_at
FROM unnest($1::text[], $2::interval[]) h(process, held)
JOIN reporter.projections a ON a.kind = 'approval' AND a.state = 'waiting' AND a.process = h.process
    AND a.at <= clock_timestamp() - h.held,
LATERAL (SELECT (a.row ->> 'due_at')::timestamptz AS due_at) due
GROUP BY 1
"""
_REGIMES = """
SELECT r.process, 'regime' AS kind, 'classifier' AS service, r.model AS work, 'no_passed_eval' AS code,
       1 AS count, r.since, min(s.at) AS due_at
FROM (SELECT process, model, min(since) AS since FROM control.live_regimes WHERE admitted_at IS NULL GROUP BY 1, 2) r
LEFT JOIN reporter.projections s ON s.kind = 'sla' AND s.state = 'waiting' AND s.process = r.process
    AND s.at > clock_timestamp()
GROUP BY r.process, r.model, r.since
"""
_BUDGETS = """
SELECT row::text FROM reporter.projections
WHERE kind = 'budget' AND (state = 'total' OR (row -> 'told' ->> 'until')::timestamptz > clock_timestamp())
ORDER BY at
"""
"""What is said of a day's may come after its midnight."""
_CANDIDATES = """
SELECT process, 'candidate' AS kind, 'actor' AS service, 'canary' AS work, model AS code, 1 AS count,
       changed_at AS since, NULL::timestamptz AS due_at, reason AS detail
FROM control.candidates WHERE mode = 'off' AND changed_by = 'nightshift/actor'
"""
"""Until somebody orders anything about the candidate."""
_SEE = """
WITH found AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[],
                         $8::timestamptz[], $9::timestamptz[], $10::text[], $11::int[])
        f(cause, process, kind, service, work, code, count, since, due_at, detail, ordered)),
ended AS (
    UPDATE reporter.causes SET count = 0, told_count = 0, asked_since = NULL, escalated_at = NULL,
                               acknowledged_at = NULL, acknowledged_by = NULL, tries = 0, failed = NULL, ordered = 0
    WHERE count > 0 AND cause NOT IN (SELECT cause FROM found)),
forgotten AS (
    DELETE FROM reporter.causes WHERE count = 0 AND cause NOT IN (SELECT cause FROM found)
        AND coalesce(told_at, since) < clock_timestamp() - interval '1 day')
INSERT INTO reporter.causes AS c (cause, process, kind, service, work, code, count, since, due_at, detail, ordered)
SELECT * FROM found ORDER BY cause
ON CONFLICT (cause) DO UPDATE SET count = excluded.count, since = excluded.since, due_at = excluded.due_at,
                                  detail = excluded.detail, ordered = excluded.ordered,
    told_count = CASE WHEN excluded.ordered < c.ordered AND excluded.count - excluded.ordered > c.count - c.ordered
                      THEN 0 ELSE c.told_count END
WHERE (c.count, c.since, c.due_at, c.detail, c.ordered)
    IS DISTINCT FROM (excluded.count, excluded.since, excluded.due_at, excluded.detail, excluded.ordered)
"""
"""A redrive that failed is told anew: whoever ordered it thinks that all is well."""
_DUE = """
SELECT *, clock_timestamp() AS now FROM reporter.causes WHERE count > 0 AND try_at <= clock_timestamp()
ORDER BY cause FOR UPDATE SKIP LOCKED
"""
_INTEND = """
UPDATE reporter.causes c SET tries = tries + 1, try_at = clock_timestamp() + $3::interval,
    asked_since = CASE WHEN tells THEN coalesce(asked_since, clock_timestamp()) ELSE asked_since END,
    acknowledged_at = CASE WHEN tells THEN NULL ELSE acknowledged_at END,
    acknowledged_by = CASE WHEN tells THEN NULL ELSE acknowledged_by END
FROM unnest($1::text[], $2::boolean[]) i(cause, tells) WHERE c.cause = i.cause
"""
_RECORD = """
UPDATE reporter.causes c SET
    told_at = CASE WHEN o.told THEN clock_timestamp() ELSE c.told_at END,
    told_count = CASE WHEN o.told AND c.count > 0 THEN o.count ELSE c.told_count END,
    escalated_at = CASE WHEN o.escalated AND c.asked_since IS NOT NULL THEN clock_timestamp() ELSE c.escalated_at END,
    tries = CASE WHEN o.failed IS NULL THEN 0 ELSE c.tries END, failed = o.failed,
    try_at = clock_timestamp() + CASE WHEN o.failed IS NULL THEN interval '0'
        ELSE least($6::interval * 2 ^ least(c.tries - 1, 20), $7::interval) END
FROM unnest($1::text[], $2::int[], $3::boolean[], $4::boolean[], $5::text[]) o(cause, count, told, escalated, failed)
WHERE c.cause = o.cause
"""
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('nightshift.reporter.causes', 0))"
"""Who counted earlier must not write later: what ended would seem to have come back."""


class PostgresCauses:
    """ports.Causes."""

    def __init__(
        self, database: Database, held: Mapping[str, timedelta], ceilings: Mapping[str, Ceilings] = MappingProxyType({})
    ) -> None:
        """`held`: by process, for how long nothing moves in a held case until it is told; none where it never is.

        `ceilings`: by process, what is in force. A budget that was used up below a lower one is no cause any more.
        """
        self._database = database
        self._held = held
        self._ceilings = ceilings

    async def count(self) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_ALONE)
            rows = list(await connection.fetch(_LETTERS, CAUSES_MAX, UNENDED))
            held = list(self._held), list(self._held.values())
            rows += await connection.fetch(_HELD, *held, timedelta(days=HELD_DAYS_MAX))
            rows += await connection.fetch(_APPROVALS, *held)
            rows += await connection.fetch(_REGIMES)
            rows += await connection.fetch(_CANDIDATES)
            found = [Cause(**row) for row in rows]
            budgets = [BudgetRow.model_validate_json(text) for (text,) in await connection.fetch(_BUDGETS)]
            found += [_used_up(budget) for budget in budgets if self._is_in_force(budget)]
            found = list({cause.id: cause for cause in found}.values())  # two of one name would stop the telling of all
            await connection.execute(
                _SEE,
                [cause.id for cause in found],
                [cause.process for cause in found],
                [cause.kind for cause in found],
                [cause.service for cause in found],
                [cause.work for cause in found],
                [cause.code for cause in found],
                [cause.count for cause in found],
                [cause.since for cause in found],
                [cause.due_at for cause in found],
                [cause.detail for cause in found],
                [cause.ordered for cause in found],
            )

    def _is_in_force(self, budget: BudgetRow) -> bool:
        told, ceilings = budget.told, self._ceilings.get(budget.process)
        now = told.ceiling if ceilings is None else ceilings.of(told.period, told.unit)
        return now is not None and now <= told.ceiling

    async def claim(
        self, decide: Callable[[Cause, Standing, datetime], Telling | None], *, lease: timedelta
    ) -> list[Telling]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_DUE)
            claimed = [t for row in rows if (t := decide(_cause(row), _standing(row), row["now"])) is not None]
            if claimed:
                await connection.execute(_INTEND, [t.cause.id for t in claimed], [t.tells for t in claimed], lease)
        return claimed

    async def record(self, outcomes: Sequence[Outcome], *, first: timedelta, most: timedelta) -> None:
        async with self._database.connection() as connection:
            await connection.execute(
                _RECORD,
                [o.cause.id for o in outcomes],
                [o.cause.count for o in outcomes],
                [o.told for o in outcomes],
                [o.escalated for o in outcomes],
                [o.failed for o in outcomes],
                first,
                most,
            )


def _used_up(budget: BudgetRow) -> Cause:
    told = budget.told
    return Cause(
        process=budget.process,
        kind="budget",
        service="classifier",
        work=told.period,
        code=told.unit,
        count=1,
        since=budget.said_at,
        due_at=None,
        detail=f"{told.spent:f} of {told.ceiling:f} {told.unit} are spent, and the next call to {told.model} (for "
        f"{told.asked_by}) can take {told.asked:f}; {told.dearest} took most, {told.dearest_spent:f}",
    )


def _cause(row: asyncpg.Record) -> Cause:
    return Cause(
        process=row["process"],
        kind=row["kind"],
        service=row["service"],
        work=row["work"],
        code=row["code"],
        count=row["count"],
        ordered=row["ordered"],
        since=row["since"],
        due_at=row["due_at"],
        detail=row["detail"],
    )


def _standing(row: asyncpg.Record) -> Standing:
    return Standing(
        told_at=row["told_at"],
        told_count=row["told_count"],
        asked_since=row["asked_since"],
        escalated_at=row["escalated_at"],
        acknowledged_at=row["acknowledged_at"],
    )
