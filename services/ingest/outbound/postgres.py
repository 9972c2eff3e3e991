"""Deliveries and their events in Postgres: a group of them by one read of keys and one statement that stores all."""

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import asyncpg
import orjson

from contracts.envelope import Record
from contracts.sealed import KEY_BYTES
from services.ingest.domain.delivery import Delivery, Outcome
from services.ingest.outbound.events import record_of
from services.runtime import dead_letters, outbox, vault
from services.runtime.postgres import Connection, Database
from services.runtime.vault import CaseKeys, NewKey

SERVICE = "ingest"
WORK = "delivery"
"""The word for a delivery among dead letters."""
KEY_TRIES_MAX = 5
"""Each failed one means that another transaction made a case's first key meanwhile."""

# One statement stores a group: each round trip costs both sides as much as several deliveries do.
# What is unique is inserted in one order everywhere: two groups that share some wait for each other, never both. The
# outbox takes its ids before that, in the order of arrival, since the relay publishes by them.
# A change counts only if its delivery was new: a delivery id that comes again with other content loses nothing.
# A delivery is kept if it owns a change that was never said (the first in the group that brings it does), or has none.
_STORE = """
WITH delivery AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
                         $8::text[], $9::timestamptz[], $10::text[], $11::int[]) WITH ORDINALITY
        d(delivery, process, source, sender_id, case_ids, signed, body, traceparent, received_at, outcome, copies, n)),
change AS MATERIALIZED (
    SELECT nextval('outbox_id_seq') AS id, *
    FROM unnest($12::uuid[], $13::uuid[], $14::text[], $15::text[], $16::text[], $17::bytea[])
        c(delivery, event_id, topic, key, headers, body)),
fresh AS (
    INSERT INTO seen (delivery) SELECT delivery FROM delivery ORDER BY delivery
    ON CONFLICT DO NOTHING RETURNING delivery),
said AS (
    INSERT INTO outbox (id, event_id, topic, key, headers, body) OVERRIDING SYSTEM VALUE
    SELECT id, event_id, topic, key, headers::jsonb, body FROM change WHERE delivery IN (SELECT delivery FROM fresh)
    ORDER BY event_id, id
    ON CONFLICT (event_id) DO NOTHING RETURNING id),
kept AS (
    INSERT INTO deliveries (delivery, process, source, sender_id, case_ids, signed, body, traceparent, received_at)
    SELECT delivery, process, source, sender_id, case_ids::jsonb, signed::jsonb, body, traceparent, received_at
    FROM delivery d
    WHERE delivery IN (SELECT delivery FROM fresh)
      AND (delivery IN (SELECT c.delivery FROM change c JOIN said USING (id))
           OR delivery NOT IN (SELECT c.delivery FROM change c))
    ORDER BY n
    RETURNING id, delivery),
keyed AS (
    INSERT INTO vault.case_keys (case_id, version, key)
    SELECT DISTINCT ON (case_id) case_id, version, key
    FROM unnest($18::uuid[], $19::text[], $20::int[], $21::bytea[]) k(delivery, case_id, version, key)
    WHERE delivery IN (SELECT delivery FROM kept)
    ORDER BY case_id),
tallied AS (
    INSERT INTO tallies AS t (process, source, day, shard, accepted, duplicate, no_case, unreadable)
    SELECT process, source, (received_at AT TIME ZONE 'UTC')::date AS day, $22::smallint,
           count(id) FILTER (WHERE outcome = 'accepted'), sum(copies) - count(id),
           count(id) FILTER (WHERE outcome = 'no_case'), count(id) FILTER (WHERE outcome = 'unreadable')
    FROM delivery LEFT JOIN kept USING (delivery)
    GROUP BY process, source, day ORDER BY process, source, day
    ON CONFLICT (process, source, day, shard) DO UPDATE SET
        accepted = t.accepted + excluded.accepted, duplicate = t.duplicate + excluded.duplicate,
        no_case = t.no_case + excluded.no_case, unreadable = t.unreadable + excluded.unreadable)
SELECT n, id FROM delivery LEFT JOIN kept USING (delivery) WHERE id IS NULL OR outcome = 'unreadable'
"""
_OPEN = """
SELECT delivery, process, source, sender_id, case_ids, signed, body, traceparent, received_at
FROM deliveries WHERE id = $1
"""
_PRUNE = """
DELETE FROM seen WHERE delivery IN (
    SELECT delivery FROM seen WHERE at < now() - make_interval(days => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


class DeliveryStore:
    """See ports.Store."""

    def __init__(self, database: Database, *, record_bytes_max: int) -> None:
        """`record_bytes_max`: an event that the broker would never take is not made."""
        self._database = database
        self._record_bytes_max = record_bytes_max

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
        async with self._database.connection() as connection:
            if any(one.unreadable is not None for one in asked):
                async with connection.transaction():
                    told = await self._store(connection, asked, copies, shard)
                    for one in asked:
                        if one.unreadable is not None and (row_id := told.get(one.delivery_id)) is not None:
                            await _raise_dead_letter(connection, one, row_id)
            else:
                told = await self._store(connection, asked, copies, shard)
        return [
            "duplicate" if told.get(one.delivery_id, 0) is None or first[one.delivery_id] is not one else _outcome(one)
            for one in deliveries
        ]

    async def _store(
        self, connection: Connection, deliveries: Sequence[Delivery], copies: Mapping[str, int], shard: int
    ) -> Mapping[str, int | None]:
        """Of each duplicate none, of each unreadable delivery its row's id, of others nothing."""
        keys, new_keys = await vault.read_or_propose(
            connection, {case_id for one in deliveries for case_id in one.case_ids}
        )
        bodies, owners, records = [], [], []
        for one in deliveries:  # what one key seals is sealed in one go: making its cipher costs as much as using it
            bodies.append(_sealed_body(one, keys))
            for change in one.changes:
                owners.append(one.delivery_id)
                records.append(record_of(one, change, keys[change.case_id], bytes_max=self._record_bytes_max))
        rows = await connection.fetch(
            _STORE,
            *_delivery_columns(deliveries, bodies, copies),
            owners,
            *_record_columns(records),
            *_key_columns(deliveries, new_keys),
            shard,
        )
        return {deliveries[n - 1].delivery_id: row_id for n, row_id in rows}

    async def say_again(self, connection: Connection, delivery: Delivery) -> None:
        """Owe the events of a redriven delivery to the world; those that were said before stay said once."""
        keys = await vault.make(connection, {case_id: secrets.token_bytes(KEY_BYTES) for case_id in delivery.case_ids})
        records = [
            record_of(delivery, change, keys[change.case_id], bytes_max=self._record_bytes_max)
            for change in delivery.changes
        ]
        await outbox.append_records(connection, records)

    async def open(self, connection: Connection, row_id: int) -> Delivery | None:
        """A stored delivery with its body as it was signed, byte for byte, and no changes yet; none if there is none.

        Raises UnsealableError when the key of one of its cases was erased.
        """
        row = await connection.fetchrow(_OPEN, row_id)
        if row is None:
            return None
        keys = await vault.read(connection, row["case_ids"])
        body: bytes = row["body"]
        for case_id in reversed(row["case_ids"]):
            body = keys[case_id].unseal_bytes(body)
        return Delivery(
            delivery_id=str(row["delivery"]),
            process=row["process"],
            source=row["source"],
            sender_id=row["sender_id"],
            case_ids=row["case_ids"],
            signed=row["signed"],
            body=body,
            traceparent=row["traceparent"],
            received_at=row["received_at"],
            changes=(),
        )

    async def prune(self, *, seen_days: int, rows_max: int) -> int:
        """Forget what was seen longer ago, up to a bound; returns how many rows that were."""
        async with self._database.transaction() as connection:
            await connection.execute("SET LOCAL enable_seqscan = off")
            answer: str = await connection.execute(_PRUNE, seen_days, rows_max)
        return int(answer.removeprefix("DELETE "))


def _outcome(kept: Delivery) -> Outcome:
    if kept.unreadable is not None:
        return "unreadable"
    return "accepted" if kept.changes else "no_case"


def _delivery_columns(
    deliveries: Sequence[Delivery], bodies: Sequence[bytes], copies: Mapping[str, int]
) -> Iterable[Sequence[object]]:
    return (
        [one.delivery_id for one in deliveries],
        [one.process for one in deliveries],
        [one.source for one in deliveries],
        [one.sender_id for one in deliveries],
        [orjson.dumps(one.case_ids).decode() for one in deliveries],
        [orjson.dumps(one.signed).decode() for one in deliveries],
        bodies,
        [one.traceparent for one in deliveries],
        [one.received_at for one in deliveries],
        [_outcome(one) for one in deliveries],
        [copies[one.delivery_id] for one in deliveries],
    )


def _record_columns(records: Sequence[Record]) -> Iterable[Sequence[object]]:
    return (
        [record.headers["ce_id"] for record in records],
        [record.topic for record in records],
        [record.key for record in records],
        [orjson.dumps(record.headers).decode() for record in records],
        [record.body for record in records],
    )


def _key_columns(deliveries: Sequence[Delivery], new_keys: Mapping[str, NewKey]) -> Iterable[Sequence[object]]:
    """A new key comes into being with the first delivery that is kept and speaks of its case."""
    wanted = [(one.delivery_id, new_keys[case]) for one in deliveries for case in one.case_ids if case in new_keys]
    return (
        [delivery_id for delivery_id, _ in wanted],
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
