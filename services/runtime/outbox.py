"""Events that a service will say, written in the transaction of their cause; `relay.py` publishes them."""

from collections.abc import Sequence

from contracts.base import Fact
from contracts.envelope import Event
from services.runtime.postgres import Connection

_APPEND = """
INSERT INTO outbox (event_id, topic, key, headers, body)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::bytea[])
ON CONFLICT (event_id) DO NOTHING
"""


async def append(connection: Connection, events: Sequence[Event[Fact]]) -> None:
    """Owe these events to the world: they are published if and only if the transaction commits."""
    if not events:
        return
    records = [event.to_record() for event in events]
    await connection.execute(
        _APPEND,
        [event.event_id for event in events],
        [record.topic for record in records],
        [record.key for record in records],
        [record.headers for record in records],
        [record.body for record in records],
    )
