"""Deliveries and their events in Postgres: a group of them in one transaction, by a few statements."""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import get_args
from uuid import UUID

import orjson

from contracts.envelope import Record
from contracts.sealed import KEY_BYTES
from services.ingest.domain.delivery import Change, Delivery, Named, Outcome
from services.ingest.outbound.events import record_of
from services.runtime import dead_letters, outbox, vault
from services.runtime.postgres import Connection, Database
from services.runtime.vault import CaseKeys

SERVICE = "ingest"
WORK = "delivery"
"""The word for a delivery among dead letters."""

# Keys in one order everywhere, deliveries before changes: two groups that share some wait for each other, never both.
# A change counts as seen only if its delivery was new: a delivery id that comes again with other content loses nothing.
_ADMIT = """
WITH delivered AS (
    INSERT INTO seen (key) SELECT unnest($1::bytea[]) ON CONFLICT DO NOTHING RETURNING key),
changed AS (
    INSERT INTO seen (key)
    SELECT c.key FROM unnest($2::bytea[], $3::bytea[]) c(delivery, key)
    WHERE c.delivery IN (SELECT key FROM delivered) ORDER BY c.key
    ON CONFLICT DO NOTHING RETURNING key)
SELECT key FROM delivered UNION ALL SELECT key FROM changed
"""
_KEEP = """
WITH kept AS (
    INSERT INTO deliveries (delivery, process, source, sender_id, case_ids, signed, body, traceparent, received_at)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[], $7::bytea[],
                         $8::text[], $9::timestamptz[])
    RETURNING id, delivery),
tallied AS (
    INSERT INTO tallies AS t (process, source, day, shard, accepted, duplicate, no_case, unreadable)
    SELECT process, source, day, $17::smallint, accepted, duplicate, no_case, unreadable
    FROM unnest($10::text[], $11::text[], $12::date[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[])
        n(process, source, day, accepted, duplicate, no_case, unreadable)
    ORDER BY process, source, day
    ON CONFLICT (process, source, day, shard) DO UPDATE SET
        accepted = t.accepted + excluded.accepted, duplicate = t.duplicate + excluded.duplicate,
        no_case = t.no_case + excluded.no_case, unreadable = t.unreadable + excluded.unreadable)
SELECT id, delivery FROM kept WHERE delivery = ANY($18::uuid[])
"""
_OPEN = """
SELECT delivery, process, source, sender_id, case_ids, signed, body, traceparent, received_at
FROM deliveries WHERE id = $1
"""
_PRUNE = """
DELETE FROM seen WHERE key IN (
    SELECT key FROM seen WHERE at < now() - make_interval(days => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


class DeliveryStore:
    """See ports.Store."""

    def __init__(self, database: Database, *, record_bytes_max: int) -> None:
        """`record_bytes_max`: an event that the broker would never take is not made."""
        self._database = database
        self._record_bytes_max = record_bytes_max

    async def write(self, deliveries: Sequence[Delivery], shard: int) -> Sequence[Outcome]:
        """Commit all of them, or raise and commit none. In the order of `deliveries`."""
        async with self._database.transaction() as connection:
            fresh = await _admit(connection, deliveries)
            outcomes = [_outcome(fresh, delivery) for delivery in deliveries]
            kept = [one for one, outcome in zip(deliveries, outcomes, strict=True) if outcome != "duplicate"]
            keys = await _keys_for(connection, kept)
            records = [
                record_of(one, change, keys[change.case_id], bytes_max=self._record_bytes_max)
                for one in kept
                for change in fresh[one.name.key][1]
            ]
            ids = await _keep(connection, kept, keys, _sums(deliveries, outcomes), shard)
            await outbox.append_records(connection, records)
            for one in kept:
                if one.unreadable is not None:
                    await _raise_dead_letter(connection, one, ids[one.name.uuid])
        return outcomes

    async def say_again(self, connection: Connection, delivery: Delivery) -> None:
        """Owe the events of a redriven delivery to the world; those that were said before stay said once."""
        keys = await _keys_for(connection, [delivery])
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
            name=Named(str(row["delivery"]), row["delivery"].bytes),
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


_Fresh = Mapping[bytes, tuple[Delivery, Sequence[Change]]]


async def _admit(connection: Connection, deliveries: Sequence[Delivery]) -> _Fresh:
    """The deliveries that were never seen, by key, each with its changes that were never seen."""
    first: dict[bytes, Delivery] = {}
    for delivery in deliveries:
        first.setdefault(delivery.name.key, delivery)
    owned = [(key, change.name.key) for key, delivery in first.items() for change in delivery.changes]
    new = {
        row[0]
        for row in await connection.fetch(_ADMIT, sorted(first), [one[0] for one in owned], [one[1] for one in owned])
    }
    fresh: dict[bytes, tuple[Delivery, Sequence[Change]]] = {}
    for key, delivery in first.items():
        if key in new:
            changes = []
            for change in delivery.changes:
                if change.name.key in new:
                    new.discard(change.name.key)  # the next delivery of this group that brings it is late
                    changes.append(change)
            fresh[key] = delivery, changes
    return fresh


def _outcome(fresh: _Fresh, delivery: Delivery) -> Outcome:
    """What becomes of it. Of several equal ones in a group the first is taken, the others are duplicates."""
    one = fresh.get(delivery.name.key)
    if one is None or one[0] is not delivery:
        return "duplicate"
    if delivery.unreadable is not None:
        return "unreadable"
    if not delivery.changes:
        return "no_case"
    return "accepted" if one[1] else "duplicate"


_Sums = Mapping[tuple[str, str, date, Outcome], int]


def _sums(deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> _Sums:
    return Counter(
        (delivery.process, delivery.source, delivery.received_at.date(), outcome)
        for delivery, outcome in zip(deliveries, outcomes, strict=True)
    )


async def _keep(
    connection: Connection, kept: Sequence[Delivery], keys: Mapping[str, CaseKeys], sums: _Sums, shard: int
) -> dict[str, int]:
    """Store what is new and count everything. The row's id of each unreadable delivery."""
    days = sorted({key[:3] for key in sums})
    rows = await connection.fetch(
        _KEEP,
        [one.name.uuid for one in kept],
        [one.process for one in kept],
        [one.source for one in kept],
        [one.sender_id for one in kept],
        [orjson.Fragment(orjson.dumps(one.case_ids)) for one in kept],  # a bare list would be a second dimension
        [one.signed for one in kept],
        [_sealed_body(one, keys) for one in kept],
        [one.traceparent for one in kept],
        [one.received_at for one in kept],
        [day[0] for day in days],
        [day[1] for day in days],
        [day[2] for day in days],
        *([sums.get((*day, outcome), 0) for day in days] for outcome in get_args(Outcome)),
        shard,
        [one.name.uuid for one in kept if one.unreadable is not None],
    )
    return {str(row["delivery"]): row["id"] for row in rows}


async def _keys_for(connection: Connection, deliveries: Sequence[Delivery]) -> dict[str, CaseKeys]:
    if not deliveries:
        return {}
    case_ids = {case_id for delivery in deliveries for case_id in delivery.case_ids}
    chance = secrets.token_bytes(KEY_BYTES * len(case_ids))
    return await vault.make(
        connection,
        {case_id: chance[n * KEY_BYTES : (n + 1) * KEY_BYTES] for n, case_id in enumerate(case_ids)},
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
                "ce_id": delivery.name.uuid,
                "ce_type": WORK,
                "ce_subject": case_id,
                "ce_process": delivery.process,
                "row": str(row_id),
            },
            body=b"",
        ),
        event_id=UUID(delivery.name.uuid),
        code=delivery.unreadable.code,
        message=delivery.unreadable.message,
    )
