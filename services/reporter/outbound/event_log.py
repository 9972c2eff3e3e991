"""The log and its projections in Postgres. Names are qualified: any connection with rights on the schema will do."""

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

import orjson

from services.reporter.domain.log import Entry, Told
from services.reporter.domain.projection import Projected
from services.reporter.outbound.memory import Known, Memory
from services.runtime.postgres import Connection, Database

ENTRIES_OF_CASE_MAX = 5000
"""A subject with more (only damaged records share one) is projected from its newest."""
DIGEST_ROWS = 1000

Suffix = Literal["", "_fresh"]

SHARE = "SELECT pg_advisory_xact_lock_shared(hashtextextended('nightshift.reporter.projections', 0))"
"""Held by whoever appends; a rebuild takes it alone, for moments."""

_LOCK_CASES = """
SELECT pg_advisory_xact_lock(hashtextextended('nightshift.reporter.case:' || c, 0))
FROM (SELECT unnest($1::text[]) AS c ORDER BY 1) ordered
"""
_APPEND = """
WITH new AS (
    INSERT INTO reporter.event_log_known (event_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING event_id)
INSERT INTO reporter.event_log (event_id, topic, type, process, case_id, time, correlation_id, headers, body)
SELECT e.event_id, e.topic, e.type, e.process, e.case_id, e.time, e.correlation_id, e.headers::jsonb, e.body
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::uuid[], $8::text[],
            $9::bytea[]) e(event_id, topic, type, process, case_id, time, correlation_id, headers, body)
WHERE e.event_id IN (SELECT event_id FROM new) RETURNING event_id
"""
_READ = """
SELECT l.event_id, l.topic, l.type, l.process, l.case_id, l.time, l.correlation_id, l.headers::text AS headers, l.body
FROM unnest($1::text[]) c(case_id) CROSS JOIN LATERAL (
    SELECT * FROM reporter.event_log e WHERE e.case_id = c.case_id ORDER BY time DESC, event_id DESC LIMIT $2) l
"""
_COUNT = """
SELECT c.case_id, n.entries
FROM unnest($1::text[]) c(case_id) CROSS JOIN LATERAL (
    SELECT count(*) AS entries FROM (SELECT FROM reporter.event_log e WHERE e.case_id = c.case_id LIMIT $2) found) n
"""
_KNOWN = """
SELECT case_id, kind, key, process, state, at, row::text AS body FROM reporter.projections{s} WHERE case_id = ANY($1)
"""
_FORGET = """
DELETE FROM reporter.projections{s} p USING unnest($1::text[], $2::text[], $3::text[]) g(case_id, kind, key)
WHERE p.case_id = g.case_id AND p.kind = g.kind AND p.key = g.key
"""
_KEEP = """
INSERT INTO reporter.projections{s} (case_id, kind, key, process, state, at, row)
SELECT n.case_id, n.kind, n.key, n.process, n.state, n.at, n.body::json
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[])
    n(case_id, kind, key, process, state, at, body)
ON CONFLICT (case_id, kind, key) DO UPDATE SET process = excluded.process, state = excluded.state, at = excluded.at,
    row = excluded.row
"""
_MOVE_TOTALS = """
INSERT INTO reporter.totals{s} AS t (process, period, name, amount)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::numeric[])
ON CONFLICT (process, period, name) DO UPDATE SET amount = trim_scale(t.amount + excluded.amount)
"""
_DROP_ZEROS = """
DELETE FROM reporter.totals{s} t USING unnest($1::text[], $2::text[], $3::text[]) z(process, period, name)
WHERE t.process = z.process AND t.period = z.period AND t.name = z.name AND t.amount = 0
"""
_ALL_ROWS = """
SELECT json_build_array(case_id, kind, key, process, state, extract(epoch FROM at), row)::text
FROM reporter.projections ORDER BY case_id, kind, key
"""
_ALL_TOTALS = """
SELECT json_build_array(process, period, name, trim_scale(amount))::text
FROM reporter.totals ORDER BY process, period, name
"""

RowKey = tuple[str, str, str]
_Rows = dict[RowKey, tuple[str, str, datetime, str]]
"""By case, kind and key: process, state, at, body."""
_Sums = set[tuple[str, str, str, str]]
"""What cases add to the totals: case, process, `<period>|<name>`, amount."""


class PostgresProjections:
    """ports.Projections on one connection, inside its transaction: the live tables, or the fresh ones."""

    def __init__(self, connection: Connection, suffix: Suffix = "") -> None:
        self._connection = connection
        self._suffix = suffix

    async def replace(self, cases_: Sequence[Projected]) -> None:
        """See ports.Projections. The caller holds the cases."""
        found = await self._connection.fetch(_KNOWN.format(s=self._suffix), [case.case_id for case in cases_])
        known: _Rows = {(case_id, kind, key): tuple(row) for case_id, kind, key, *row in found}
        wanted: _Rows = {
            (case.case_id, row.kind, row.key): (case.process, row.state, row.at, row.body)
            for case in cases_
            for row in case.rows
        }
        gone = sorted(known.keys() - wanted.keys())
        changed = sorted(key for key, row in wanted.items() if known.get(key) != row)
        if gone:
            await self._execute(_FORGET, *_columns(gone, 3))
        if changed:
            await self._execute(_KEEP, *_columns([(*key, *wanted[key]) for key in changed], 7))
        await self._move_totals(_sums(known), _sums(wanted))

    async def _move_totals(self, before: _Sums, after: _Sums) -> None:
        moved: dict[RowKey, Decimal] = defaultdict(Decimal)
        for sign, sums in ((1, after - before), (-1, before - after)):
            for _, process, name, amount in sums:
                period, _, total = name.partition("|")
                moved[process, period, total] += sign * Decimal(amount)
        keys = sorted(key for key, amount in moved.items() if amount)
        if keys:
            rows = [(*key, moved[key]) for key in keys]
            await self._execute(_MOVE_TOTALS, *_columns(rows, 4))
            await self._execute(_DROP_ZEROS, *_columns(keys, 3))

    async def _execute(self, sql: str, *args: object) -> None:
        await self._connection.execute(sql.format(s=self._suffix), *args)


class PostgresLog(PostgresProjections):
    """ports.Log on one connection, inside its transaction."""

    def __init__(self, connection: Connection, memory: Memory) -> None:
        super().__init__(connection)
        self._memory = memory
        self._added: dict[str, list[Entry]] = defaultdict(list)
        self.known: dict[str, Known] = {}
        """What was told, to be remembered once it is committed."""

    async def hold(self, case_ids: Sequence[str]) -> None:
        await self._connection.execute(SHARE)
        await self._connection.fetch(_LOCK_CASES, sorted(set(case_ids)))

    async def append(self, entries: Sequence[Entry]) -> set[UUID]:
        rows = [
            (
                *(e.event_id, e.topic, e.type, e.process, e.case_id, e.time, e.correlation_id),
                *(orjson.dumps(e.headers).decode(), e.body),
            )
            for e in entries
        ]
        added = {row[0] for row in await self._connection.fetch(_APPEND, *_columns(rows, 9))}
        for entry in entries:
            if entry.event_id in added:
                self._added[entry.case_id].append(entry)
        return added

    async def told_of(self, case_ids: Sequence[str]) -> dict[str, Sequence[Told]]:
        """See ports.Log. The caller holds the cases, so nobody appends to them meanwhile."""
        unknown = []
        for case_id, count in await self._connection.fetch(_COUNT, list(case_ids), ENTRIES_OF_CASE_MAX + 1):
            before, added = self._memory.of(case_id), self._added[case_id]
            if len(before.told) + len(added) == count <= ENTRIES_OF_CASE_MAX:
                self.known[case_id] = before.and_of(added)
            else:
                unknown.append(case_id)
        if unknown:
            for case_id, entries in (await read_entries(self._connection, unknown)).items():
                self.known[case_id] = Known().and_of(entries)
        return {case_id: self.known[case_id].told for case_id in case_ids}


class PostgresStore:
    """ports.Store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._memory = Memory()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresLog]:
        async with self._database.transaction() as connection:
            log = PostgresLog(connection, self._memory)
            yield log
        self._memory.keep(log.known)


async def read_entries(
    connection: Connection, case_ids: Sequence[str], *, limit: int = ENTRIES_OF_CASE_MAX
) -> dict[str, list[Entry]]:
    """The newest `limit` entries of each case, in no order."""
    found: dict[str, list[Entry]] = {}
    for row in await connection.fetch(_READ, list(case_ids), limit):
        entry = Entry(**{**row, "headers": orjson.loads(row["headers"])})
        found.setdefault(entry.case_id, []).append(entry)
    return found


async def digest(connection: Connection) -> str:
    """SHA-256 over every projected row and total, in order: equal projections, equal digest."""
    sha = hashlib.sha256()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for sql in (_ALL_ROWS, _ALL_TOTALS):
            async for row in connection.cursor(sql, prefetch=DIGEST_ROWS):
                sha.update(row[0].encode() + b"\n")
    return sha.hexdigest()


def _sums(rows: _Rows) -> _Sums:
    return {
        (case_id, process, name, amount)
        for (case_id, kind, _), (process, _, _, body) in rows.items()
        if kind == "sums"
        for name, amount in orjson.loads(body).items()
    }


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    """Rows as columns, for unnest; no rows are `width` empty columns."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
