"""Events that a service will say, written in the transaction of their cause; `relay.py` publishes them."""

from collections.abc import Sequence

from contracts.base import Fact
from contracts.envelope import Event, Record
from services.runtime.postgres import Connection

_APPEND = """
INSERT INTO outbox (event_id, topic, key, headers, body)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::bytea[])
ON CONFLICT (event_id) DO NOTHING
"""


async def append(connection: Connection, events: Sequence[Event[Fact]]) -> None:
    """Owe these events to the world: they are published if and only if the transaction commits."""
    await append_records(connection, [event.to_record() for event in events])


async def append_records(connection: Connection, records: Sequence[Record]) -> None:
    """Like `append`, for events that are bytes already."""
    if not records:
        return
    await connection.execute(
        _APPEND,
        [record.headers["ce_id"] for record in records],
        [record.topic for record in records],
        [record.key for record in records],
        [record.headers for record in records],
        [record.body for record in records],
    )
