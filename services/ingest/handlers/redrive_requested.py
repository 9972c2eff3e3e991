"""`redrive.requested.v1`: a delivery that could not be read is read again, by the connector as it is now."""

from collections.abc import Awaitable, Callable, Sequence

from contracts.envelope import Record
from contracts.failures import PermanentError
from services.ingest.handlers.webhook import OpenDoor, case_ids_of, changes_in, parse
from services.ingest.ports import Archive
from services.runtime.postgres import Connection


def read_again(doors: Sequence[OpenDoor], archive: Archive) -> Callable[[Connection, Record], Awaitable[None]]:
    """For runtime.Inbox: what a redriven dead letter of a delivery comes to. Raises PermanentError, UnsealableError."""
    by_name = {(door.process, door.name): door for door in doors}

    async def handle(connection: Connection, record: Record) -> None:
        row_id = int(record.headers["row"])
        delivery = await archive.open(connection, row_id)
        if delivery is None:
            raise PermanentError("gone", "the delivery is not stored any more")
        door = by_name.get((delivery.process, delivery.source))
        if door is None:
            raise PermanentError("no_such_door", f"the door {delivery.process}/{delivery.source} is not open here")
        changes = changes_in(door, parse(delivery.body), delivery.body, delivery.received_at)
        if changes:
            read = delivery._replace(changes=changes, case_ids=case_ids_of(changes))
            await archive.say_again(connection, row_id, read)

    return handle
