"""What people order and the broker refuses for good is a dead letter of the reporter's, which relays orders."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from contracts import topics
from contracts.envelope import Record
from contracts.events import REGISTRY
from contracts.events.control import RedriveRequested, SkipRequested
from contracts.failures import PermanentError
from services.runtime.inbox import Inbox
from services.runtime.postgres import Connection, Database

SERVICE = "reporter"

_ENDING = frozenset({RedriveRequested.TYPE, SkipRequested.TYPE})
_ORDERS = [name for name, contract in REGISTRY.items() if contract.TOPIC == topics.CONTROL]
_OWE_AGAIN = "UPDATE control.outbox SET refused = NULL WHERE event_id = $1 AND refused IS NOT NULL RETURNING 1"


def own_dead_letters(database: Database) -> Callable[[Sequence[Record]], Awaitable[None]]:
    """What carries out the redrives and skips of these, each once; other records it passes over.

    Counted they are as entries of the log.
    """
    inbox = Inbox(database, SERVICE, {}, again=dict.fromkeys(_ORDERS, _owe_again), counts=False)

    async def take(records: Sequence[Record]) -> None:
        await inbox.take([record for record in records if record.headers.get("ce_type") in _ENDING])

    return take


async def _owe_again(connection: Connection, record: Record) -> None:
    if await connection.fetchval(_OWE_AGAIN, UUID(record.headers["ce_id"])) is None:
        raise PermanentError("not_refused", "the broker did not refuse it")
