"""What is known of each hour of each door, in Postgres; and what the outbox says was heard."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import orjson

from contracts.envelope import Event, follow_up_id
from contracts.events.cases import CaseChanged, CaseOpened, IntakeReconciled
from services.ingest.domain.reconciliation import Heard, Hour
from services.ingest.outbound.events import SOURCE
from services.ingest.ports import Claim, LeaseLostError
from services.runtime import outbox
from services.runtime.postgres import Connection, Database
from services.runtime.process import case_id_of

LEASE_SECONDS = 120.0
HEARD_BEFORE = timedelta(minutes=10)
"""As far as clocks may be apart."""
HEARD_AFTER = timedelta(hours=2)
"""A webhook that is later than that was missing."""
ROWS_AT_ONCE = 300
"""Read and parsed in some milliseconds, in which no webhook is answered."""

_NAMES = UUID("5f0f4c3a-1f2f-5d38-9f55-0a1f3f6a7e11")

_BEGIN = """
INSERT INTO reconciled_doors (process, source, since)
SELECT $1, $2, $3
WHERE EXISTS (SELECT FROM tallies WHERE process = $1 AND source = $2 AND accepted > 0)
  AND NOT EXISTS (SELECT FROM reconciled_doors WHERE process = $1 AND source = $2)
ON CONFLICT DO NOTHING
"""
_CLAIM = """
UPDATE reconciled_doors SET token = token + 1, due_at = clock_timestamp() + make_interval(secs => $3)
WHERE process = $1 AND source = $2 AND due_at <= clock_timestamp() RETURNING since, token
"""
_HOLD = """
UPDATE reconciled_doors SET due_at = clock_timestamp() + make_interval(secs => $4)
WHERE process = $1 AND source = $2 AND token = $3 RETURNING token
"""
_OPEN = """
INSERT INTO reconciled_hours (process, source, hour)
SELECT $1, $2, h FROM generate_series(
    coalesce((SELECT max(hour) FROM reconciled_hours WHERE process = $1 AND source = $2),
             date_trunc('hour', $3::timestamptz, 'UTC')),
    $4::timestamptz, '1 hour') h
ON CONFLICT DO NOTHING
"""
_UNSETTLED = """
SELECT hour, greatest(hour, $3::timestamptz) AS since, state, listed, missing, digest, same_since, code, settled,
       due_at
FROM reconciled_hours
WHERE process = $1 AND source = $2 AND NOT settled AND hour <= $4 AND (due_at IS NULL OR due_at <= $4)
ORDER BY due_at NULLS FIRST, hour DESC
"""
"""An hour that has not begun was opened by a clock that ran ahead; it would take the place of one that has."""
# Ids are given in the order of time, as far as that matters here; the time itself has no index.
FIRST_ID = """
WITH RECURSIVE search AS (
    SELECT coalesce(min(id), 0) AS low, coalesce(max(id), 0) + 1 AS high FROM outbox
    UNION ALL
    SELECT CASE WHEN is_before THEN middle + 1 ELSE low END, CASE WHEN is_before THEN high ELSE middle END
    FROM search, LATERAL (SELECT (low + high) / 2 AS middle) m,
         LATERAL (SELECT created_at < $1 AS is_before FROM outbox WHERE id >= middle ORDER BY id LIMIT 1) found
    WHERE low < high)
SELECT max(low) FROM search
"""
_HEARD = "SELECT body FROM outbox WHERE id >= $1 AND id < $2 AND topic = $3 AND key = ANY ($4)"
_ANY_HEARD = """
SELECT body FROM outbox
WHERE id >= $1 AND id < $2 AND topic = $3 AND starts_with(key, $4) AND headers ->> 'ce_type' = ANY ($5)
"""
_STORED = "SELECT delivery FROM seen WHERE delivery = ANY ($1::uuid[])"
_KEEP = """
UPDATE reconciled_hours h SET state = $5, listed = $6, missing = $7, digest = $8, same_since = $9, code = $10,
       settled = $11, due_at = $12, revision = revision + $13::boolean::integer
FROM reconciled_doors d
WHERE d.process = $1 AND d.source = $2 AND d.token = $3 AND h.process = $1 AND h.source = $2 AND h.hour = $4
RETURNING h.revision
"""


class ReconciledHours:
    """See ports.Hours."""

    def __init__(self, database: Database, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self._lease_seconds = lease_seconds

    async def claim(self, process: str, source: str, now: datetime) -> Claim | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_CLAIM, process, source, self._lease_seconds)
            if row is None:  # not due, or not begun
                await connection.execute(_BEGIN, process, source, now.replace(microsecond=0))
        return None if row is None else Claim(process, source, row["since"], row["token"])

    async def hold(self, claim: Claim) -> None:
        await self._due_in(claim, self._lease_seconds)

    async def release(self, claim: Claim, *, seconds: float) -> None:
        await self._due_in(claim, seconds)

    async def _due_in(self, claim: Claim, seconds: float) -> None:
        async with self._database.connection() as connection:
            if await connection.fetchval(_HOLD, claim.process, claim.source, claim.token, seconds) is None:
                raise LeaseLostError

    async def unsettled(self, claim: Claim, now: datetime) -> Sequence[Hour]:
        async with self._database.connection() as connection:
            await connection.execute(_OPEN, claim.process, claim.source, claim.since, now)
            rows = await connection.fetch(_UNSETTLED, claim.process, claim.source, claim.since, now)
        return [Hour(**row) for row in rows]

    async def heard(self, claim: Claim, since: datetime, until: datetime, object_ids: Collection[str]) -> list[Heard]:
        keys = [case_id_of(claim.process, claim.source, object_id) for object_id in object_ids]
        return await self._heard(since, until, _HEARD, keys)

    async def any_heard(self, claim: Claim, since: datetime, until: datetime) -> list[Heard]:
        door = case_id_of(claim.process, claim.source, "")
        return await self._heard(since, until, _ANY_HEARD, door, [CaseOpened.TYPE, CaseChanged.TYPE])

    async def _heard(self, since: datetime, until: datetime, statement: str, *of: object) -> list[Heard]:
        heard: list[Heard] = []
        async with self._database.connection() as connection:
            low: int = await connection.fetchval(FIRST_ID, since - HEARD_BEFORE)
            high: int = await connection.fetchval(FIRST_ID, until + HEARD_AFTER)
            for start in range(low, high, ROWS_AT_ONCE):
                end = min(start + ROWS_AT_ONCE, high)
                rows = await connection.fetch(statement, start, end, CaseChanged.TOPIC, *of)
                heard += [_heard(told) for (body,) in rows if not (told := orjson.loads(body)).get("late")]
        return heard

    async def known(self, delivery_ids: Collection[str]) -> Collection[str]:
        async with self._database.connection() as connection:
            return {str(row[0]) for row in await connection.fetch(_STORED, list(delivery_ids))}

    async def keep(self, claim: Claim, before: Hour, after: Hour, now: datetime) -> None:
        if after == before:
            return
        async with self._database.transaction() as connection:
            revision = await connection.fetchval(
                _KEEP,
                *(claim.process, claim.source, claim.token, after.hour),
                *(after.state, after.listed, after.missing, after.digest, after.same_since, after.code, after.settled),
                after.due_at,
                is_news := after.word() != before.word(),
            )
            if revision is None:
                raise LeaseLostError
            if is_news:
                await _say(connection, claim, after, revision, now)


async def _say(connection: Connection, claim: Claim, hour: Hour, revision: int, now: datetime) -> None:
    assert hour.state != "open", "there is nothing to say of it"
    case_id = f"{claim.process}:{claim.source}:intake-{hour.hour:%Y-%m-%dT%H}"
    run = uuid5(_NAMES, case_id)
    told = IntakeReconciled(
        door=claim.source,
        hour=hour.hour,
        since=hour.since,
        revision=revision,
        state=hour.state,
        listed=hour.listed,
        missing=hour.missing,
        code=hour.code,
        settled=hour.settled,
        compared_at=now,
    )
    event = Event(
        event_id=follow_up_id(run, told.TYPE, revision),
        source=SOURCE,
        time=now,
        process=claim.process,
        case_id=case_id,
        correlation_id=run,
        causation_id=None,
        data=told,
    )
    await outbox.append(connection, [event])


def _heard(told: dict[str, Any]) -> Heard:
    """Of an event that ingest itself wrote. Where the object is newer than its change, the change's own time counts."""
    moments = (datetime.fromisoformat(told["version"]), datetime.fromisoformat(told["occurred_at"]))
    return Heard(
        object_id=told["object_id"],
        kind=told["kind"],
        at=min(moments).replace(microsecond=0),
        comment_id=told["fields"].get("comment_id"),
        hint=told["hint"],
    )
