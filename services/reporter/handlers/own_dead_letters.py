"""What people order and the broker refused for good is a dead letter of the reporter's, which relays orders."""

from collections.abc import Sequence
from uuid import UUID

from contracts import topics
from contracts.base import Fact
from contracts.envelope import Event, Record, UnknownTypeError, UnreadableError, decode
from contracts.events.control import RedriveRequested, SkipRequested
from services.runtime import dead_letters
from services.runtime.postgres import Connection, Database

SERVICE = "reporter"

_ORDERED = frozenset({RedriveRequested.TYPE, SkipRequested.TYPE})
_OWE_AGAIN = "UPDATE control.outbox SET refused = NULL WHERE event_id = $1 AND refused IS NOT NULL"


async def end_own_dead_letters(database: Database, records: Sequence[Record]) -> None:
    """Carry out the redrives and skips of these dead letters, each once; those of other services are theirs."""
    orders = [order for record in records if (order := _order(record)) is not None]
    if not orders:
        return
    async with database.transaction() as connection:
        for order in orders:
            if isinstance(order.data, RedriveRequested):
                await dead_letters.redrive(connection, order, service=SERVICE, handle_again=_owe_again)
            else:
                await dead_letters.skip(connection, order, service=SERVICE)


def _order(record: Record) -> Event[Fact] | None:
    """None where it is no such order, or cannot be read: the log has it all the same."""
    if record.topic != topics.CONTROL or record.headers.get("ce_type") not in _ORDERED:
        return None
    try:
        return decode(record.headers, record.body)
    except (UnknownTypeError, UnreadableError):
        return None


async def _owe_again(connection: Connection, record: Record) -> None:
    await connection.execute(_OWE_AGAIN, UUID(record.headers["ce_id"]))
