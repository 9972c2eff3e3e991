"""Deliveries and their events in Postgres: a group of them by one read of keys and one statement that stores all."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import orjson

from contracts.envelope import Record
from contracts.events.cases import CaseChanged
from contracts.sealed import KEY_BYTES
from services.ingest.domain.delivery import Delivery, Outcome
from services.ingest.outbound.events import record_of
from services.runtime import dead_letters, outbox, vault
from services.runtime.postgres import CONNECT_TIMEOUT_SECONDS, Connection, Database
from services.runtime.vault import CaseKeys, NewKey

SERVICE = "ingest"
WORK = "delivery"
"""The word for a delivery among dead letters."""
KEY_TRIES_MAX = 5
"""Each failed one means that another transaction made a case's first key meanwhile."""

# One statement stores what came through one door: each round trip costs both sides as much as several deliveries do.
# Texts come as lines, since asyncpg takes longer over an array's element than over all else of it; in JSON is no break.
# What is unique is inserted in one order everywhere: two groups that share some wait for each other, never both. The
# outbox takes its ids before that, in the order of arrival, since the relay publishes by them.
# A change counts only if its delivery was new: a delivery id that comes again with other content loses nothing.
# A delivery is kept if it owns a change that was never said (the first in the group that brings it does), or has none.
_STORE = r"""
WITH delivery AS MATERIALIZED (
    SELECT * FROM unnest(string_to_array($1, E'\n')::uuid[], string_to_array($2, E'\n'), $3::bytea[]) WITH ORDINALITY
        d(delivery, about, body, n)),
change AS MATERIALIZED (
    SELECT nextval('outbox_id_seq') AS id, *
    FROM unnest(string_to_array($4, E'\n')::int[], string_to_array($5, E'\n')::uuid[],
                string_to_array($6, E'\n')::jsonb[], $7::bytea[]) c(n, event_id, headers, body)),
fresh AS (
    INSERT INTO seen (delivery) SELECT delivery FROM delivery ORDER BY delivery
    ON CONFLICT DO NOTHING RETURNING delivery),
fresh_n AS MATERIALIZED (SELECT n FROM delivery JOIN fresh USING (delivery)),
new AS (
    INSERT INTO outbox_known (event_id) SELECT event_id FROM change WHERE n IN (SELECT n FROM fresh_n) ORDER BY event_id
    ON CONFLICT DO NOTHING RETURNING event_id),
first AS MATERIALIZED (
    SELECT DISTINCT ON (event_id) id FROM change JOIN new USING (event_id) WHERE n IN (SELECT n FROM fresh_n)
    ORDER BY event_id, id),
said AS (
    INSERT INTO outbox (id, event_id, topic, key, headers, body) OVERRIDING SYSTEM VALUE
    SELECT id, event_id, $8, headers ->> 'ce_subject', headers, body FROM change WHERE id IN (SELECT id FROM first)),
kept AS (
    INSERT INTO deliveries (delivery, about, body)
    SELECT delivery, about::json, body FROM delivery
    WHERE n IN (SELECT n FROM fresh_n)
      AND (n IN (SELECT n FROM change JOIN first USING (id)) OR n NOT IN (SELECT n FROM change))
    ORDER BY n
    RETURNING id, delivery),
kept_n AS MATERIALIZED (SELECT n, id FROM delivery JOIN kept USING (delivery)),
keyed AS (
    INSERT INTO vault.case_keys (case_id, version, key)
    SELECT DISTINCT ON (case_id) case_id, version, key
    FROM unnest($9::int[], $10::text[], $11::int[], $12::bytea[]) k(n, case_id, version, key)
    WHERE n IN (SELECT n FROM kept_n)
    ORDER BY case_id),
tallied AS (
    INSERT INTO tallies AS t (process, source, day, shard, accepted, duplicate, no_case, unreadable)
    SELECT $13, $14, $15::date, $16::smallint,
           count(*) FILTER (WHERE n IN (SELECT n FROM change)), $17::int - count(*),
           count(*) FILTER (WHERE n NOT IN (SELECT n FROM change) AND n <> ALL ($18::int[])),
           count(*) FILTER (WHERE n = ANY ($18::int[]))
    FROM kept_n
    ON CONFLICT (process, source, day, shard) DO UPDATE SET
        accepted = t.accepted + excluded.accepted, duplicate = t.duplicate + excluded.duplicate,
        no_case = t.no_case + excluded.no_case, unreadable = t.unreadable + excluded.unreadable)
SELECT n, id FROM delivery LEFT JOIN kept_n USING (n) WHERE id IS NULL OR n = ANY ($18::int[])
"""
_SEAL_ANEW = "UPDATE deliveries SET about = $2::text::json, body = $3 WHERE id = $1"
_OPEN = "SELECT delivery, about, body FROM deliveries WHERE id = $1"
_LAST = """
SELECT concat(about ->> 'process', '/', about ->> 'source') AS source, stored_at FROM deliveries
ORDER BY id DESC LIMIT 1
"""
_PRUNE = """
DELETE FROM seen WHERE delivery IN (
    SELECT delivery FROM seen WHERE at < now() - make_interval(days => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


class Last(NamedTuple):
    """When a delivery came, and through which door."""

    source: str
    at: datetime


class DeliveryStore:
    """See ports.Store."""

    def __init__(self, database: Database, *, record_bytes_max: int) -> None:
        """`record_bytes_max`: an event that the broker would never take is not made."""
        self._database = database
        self._record_bytes_max = record_bytes_max
        self._kept: dict[int, asyncpg.pool.PoolConnectionProxy[asyncpg.Record]] = {}
        """A connection for each shard: taking one from the pool and giving it back costs two tasks a group."""

    async def write(self, deliveries: Sequence[Delivery], shard: int) -> Sequence[Outcome]:
        """Commit all of them, or raise and commit none. In the order of `deliveries`."""
        for _ in range(KEY_TRIES_MAX - 1):
            try:
                return await self._write(deliveries, shard)
            except asyncpg.UniqueViolationError:
                continue
        return await self._write(deliveries, shard)

    async def _write(self, deliveries: Sequence[Delivery], shard: int) -> Sequence[Outcome]:
        copies = Counter(one.delivery_id for one in deliveries)
        first = {one.delivery_id: one for one in reversed(deliveries)}
        asked = list(first.values())
        tallies: dict[tuple[str, str, date], list[Delivery]] = {}
        for one in asked:
            tallies.setdefault((one.process, one.source, one.received_at.astimezone(UTC).date()), []).append(one)
        async with self._connection(shard) as connection:
            if len(tallies) == 1 and all(one.unreadable is None for one in asked):
                told = await self._store(connection, asked, copies, next(iter(tallies)), shard)
            else:
                told = {}
                async with connection.transaction():
                    for tally, of_tally in sorted(tallies.items()):
                        told |= await self._store(connection, of_tally, copies, tally, shard)
                    for one in asked:
                        if one.unreadable is not None and (row_id := told.get(one.delivery_id)) is not None:
                            await _raise_dead_letter(connection, one, row_id)
        return [
            "duplicate" if told.get(one.delivery_id, 0) is None or first[one.delivery_id] is not one else _outcome(one)
            for one in deliveries
        ]

    @asynccontextmanager
    async def _connection(self, shard: int) -> AsyncIterator[Connection]:
        """The shard's own. One that was lost, or that a group failed on, goes back to the pool."""
        connection = self._kept.pop(shard, None)
        if connection is None or _is_lost(connection):
            connection = await self._database.pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS)
        try:
            yield connection
        except BaseException:
            await self._database.pool.release(connection)
            raise
        self._kept[shard] = connection

    async def _store(
        self,
        connection: Connection,
        deliveries: Sequence[Delivery],
        copies: Mapping[str, int],
        tally: tuple[str, str, date],
        shard: int,
    ) -> Mapping[str, int | None]:
        """Of each duplicate none, of each unreadable delivery its row's id, of others nothing."""
        keys, new_keys = await vault.read_or_propose(
            connection, {case_id for one in deliveries for case_id in one.case_ids}
        )
        bodies, owners, records = [], [], []
        # What one key seals is sealed in one go: making its cipher costs as much as using it.
        for n, one in enumerate(deliveries, 1):
            bodies.append(_sealed_body(one, keys))
            for change in one.changes:
                owners.append(str(n))
                records.append(record_of(one, change, keys[change.case_id], bytes_max=self._record_bytes_max))
        rows = await connection.fetch(
            _STORE,
            "\n".join([one.delivery_id for one in deliveries]),
            b"\n".join([_about(one) for one in deliveries]).decode(),
            bodies,
            "\n".join(owners),
            "\n".join([record.headers["ce_id"] for record in records]),
            b"\n".join([orjson.dumps(record.headers) for record in records]).decode(),
            [record.body for record in records],
            CaseChanged.TOPIC,
            *_key_columns(deliveries, new_keys),
            *tally,
            shard,
            sum([copies[one.delivery_id] for one in deliveries]),
            [n for n, one in enumerate(deliveries, 1) if one.unreadable is not None],
        )
        return {deliveries[n - 1].delivery_id: row_id for n, row_id in rows}

    async def say_again(self, connection: Connection, row_id: int, delivery: Delivery) -> None:
        """Owe the events of a redriven delivery to the world; those that were said before stay said once.

        Of which cases they are is known only now, where nobody could read it when it came: its body lay under the key
        of a day, or of one case alone.
        """
        fresh = {change.case_id: secrets.token_bytes(KEY_BYTES) for change in delivery.changes}
        keys = await vault.make(connection, fresh)
        records = [
            record_of(delivery, change, keys[change.case_id], bytes_max=self._record_bytes_max)
            for change in delivery.changes
        ]
        await outbox.append_records(connection, records)
        await connection.execute(_SEAL_ANEW, row_id, _about(delivery).decode(), _sealed_body(delivery, keys))

    async def open(self, connection: Connection, row_id: int) -> Delivery | None:
        """A stored delivery with its body as it was signed, byte for byte, and no changes yet; none if there is none.

        Raises UnsealableError when the key of one of its cases was erased.
        """
        row = await connection.fetchrow(_OPEN, row_id)
        if row is None:
            return None
        about = row["about"]
        keys = await vault.read(connection, about["case_ids"])
        body: bytes = row["body"]
        for case_id in reversed(about["case_ids"]):
            body = keys[case_id].unseal_bytes(body)
        received_at = datetime.fromisoformat(about.pop("received_at"))
        return Delivery(delivery_id=str(row["delivery"]), body=body, received_at=received_at, changes=(), **about)

    async def last(self) -> Last | None:
        """The newest delivery that was kept; none if there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_LAST)
        return None if row is None else Last(row["source"], row["stored_at"])

    async def prune(self, *, seen_days: int, rows_max: int) -> int:
        """Forget what was seen longer ago, up to a bound; returns how many rows that were."""
        async with self._database.transaction() as connection:
            await connection.execute("SET LOCAL enable_seqscan = off")
            answer: str = await connection.execute(_PRUNE, seen_days, rows_max)
        return int(answer.removeprefix("DELETE "))


def _is_lost(connection: Connection) -> bool:
    """A connection that closes goes back to the pool by itself, and its proxy then answers nothing."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def _outcome(kept: Delivery) -> Outcome:
    if kept.unreadable is not None:
        return "unreadable"
    return "accepted" if kept.changes else "no_case"


def _about(delivery: Delivery) -> bytes:
    return orjson.dumps(
        {
            "process": delivery.process,
            "source": delivery.source,
            "sender_id": delivery.sender_id,
            "case_ids": delivery.case_ids,
            "signed": delivery.signed,
            "traceparent": delivery.traceparent,
            "received_at": delivery.received_at,
            "late": delivery.late,
        }
    )


def _key_columns(deliveries: Sequence[Delivery], new_keys: Mapping[str, NewKey]) -> Iterable[Sequence[object]]:
    """A new key comes into being with the first delivery that is kept and speaks of its case."""
    wanted = [(n, new_keys[case]) for n, one in enumerate(deliveries, 1) for case in one.case_ids if case in new_keys]
    return (
        [n for n, _ in wanted],
        [new.case_id for _, new in wanted],
        [new.version for _, new in wanted],
        [new.key for _, new in wanted],
    )


def _sealed_body(delivery: Delivery, keys: Mapping[str, CaseKeys]) -> bytes:
    """Sealed under each case in turn: erasing any of them erases the whole, since it may speak of all."""
    body = delivery.body
    for case_id in delivery.case_ids:
        body = keys[case_id].seal_bytes(body)
    return body


async def _raise_dead_letter(connection: Connection, delivery: Delivery, row_id: int) -> None:
    """The dead letter names the stored delivery, so that a redrive reads it again and no copy of the body is made."""
    assert delivery.unreadable is not None, "it is why"
    case_id = delivery.case_ids[0]
    await dead_letters.raise_for_event(
        connection,
        service=SERVICE,
        record=Record(
            topic=WORK,
            key=case_id,
            headers={
                "ce_id": delivery.delivery_id,
                "ce_type": WORK,
                "ce_subject": case_id,
                "ce_process": delivery.process,
                "row": str(row_id),
            },
            body=b"",
        ),
        event_id=UUID(delivery.delivery_id),
        code=delivery.unreadable.code,
        message=delivery.unreadable.message,
    )
