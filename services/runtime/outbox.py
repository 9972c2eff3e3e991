"""Events that a service will say, written in the transaction of their cause; `relay.py` publishes them."""

from collections.abc import Sequence

from contracts.base import Fact
from contracts.envelope import Event, Record
from services.runtime.postgres import Connection

_APPEND = """
WITH said AS (
    INSERT INTO outbox_known (event_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING event_id)
INSERT INTO outbox (event_id, topic, key, headers, body)
SELECT event_id, topic, key, headers, body
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::bytea[]) WITH ORDINALITY
    r(event_id, topic, key, headers, body, n)
WHERE event_id IN (SELECT event_id FROM said)
ORDER BY n
"""


async def append(connection: Connection, events: Sequence[Event[Fact]]) -> None:
    """Owe these events to the world: they are published if and only if the transaction commits."""
    await append_records(connection, [event.to_record() for event in events])


async def append_records(connection: Connection, records: Sequence[Record]) -> None:
    """Like `append`, for events that are bytes already."""
    if not records:
        return
    first = {record.headers["ce_id"]: record for record in reversed(records)}
    once = list(reversed(first.values()))
    await connection.execute(
        _APPEND,
        [record.headers["ce_id"] for record in once],
        [record.topic for record in once],
        [record.key for record in once],
        [record.headers for record in once],
        [record.body for record in once],
    )
