"""What a service heard: each event handled once, unknown ones kept, poison ones put aside for a person."""

import base64
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog
from prometheus_client import Counter

from contracts.base import Fact
from contracts.envelope import Event, Record, UnknownTypeError, UnreadableError, decode
from contracts.events import REGISTRY, UPCASTS
from contracts.events.control import RedriveRequested, SkipRequested
from contracts.events.dead_letters import DeadLetterRaised
from services.runtime import dead_letters
from services.runtime.failures import Later, tell
from services.runtime.postgres import Connection, Database

log = structlog.get_logger()
handled_total = Counter("nightshift_events_handled_total", "Events handled for the first time", ["service", "type"])
known_total = Counter("nightshift_events_known_total", "Events that came again and were ignored", ["service"])
unknown_total = Counter("nightshift_events_unknown_total", "Events of a type this build does not know", ["service"])

Handler = Callable[[Connection, Sequence[Event[Fact]]], Awaitable[None]]
"""Handles events of one type, all of them new, inside the caller's transaction."""

_ADMIT = "INSERT INTO inbox (event_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING event_id"
_KEEP = """
INSERT INTO unread (event_id, topic, type, headers, body)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::bytea[]) ON CONFLICT DO NOTHING
"""
_READABLE = "SELECT event_id, topic, headers, body FROM unread WHERE type = ANY($1) ORDER BY event_id LIMIT $2"
_FORGET = "DELETE FROM unread WHERE event_id = ANY($1)"
READABLE_ROWS_MAX = 1000


class Inbox:
    """Turns records into handled events, one transaction a batch; a batch that fails is tried event by event."""

    def __init__(
        self,
        database: Database,
        service: str,
        handlers: Mapping[type[Fact], Handler],
        again: Mapping[str, Callable[[Connection, Record], Awaitable[None]]] = MappingProxyType({}),
        *,
        counts: bool = True,
    ) -> None:
        """`again`: how dead letters that were never events are handled when redriven, by their `ce_type`.

        `counts`: not where another part of the service takes the same events, and counts them.
        """
        self._database = database
        self._service = service
        self._handlers = handlers
        self._again = again
        self._counts = counts
        for counter in (known_total, unknown_total):
            counter.labels(service)  # from zero on: the first one is an increase as well

    async def take(self, records: Sequence[Record]) -> None:
        """Handle a batch: each record is afterwards handled, known, kept as unknown, or a dead letter, and committed.

        Raises what `failures.tell` calls Later (Postgres is away): nothing is committed then; call again.
        """
        events, unknown, unreadable = _sort([_storable(record) for record in records])
        if unknown:
            await self._keep(unknown)
        for record, error in unreadable:
            await self._put_aside(record, UUID(int=0), error)
        try:
            await self._handle(events)
        except Exception as error:
            if isinstance(tell(error), Later):
                raise
            log.warning("a batch failed; its events are tried singly", size=len(events), error=type(error).__name__)
            for event in events:
                await self._handle_alone(event)

    async def take_what_became_readable(self) -> int:
        """At start: handle the events that an older build could not read, as `take` does. Returns how many.

        They are forgotten after they were handled: a crash in between handles them again, and each is handled once.
        """
        taken = 0
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(_READABLE, [*REGISTRY, *UPCASTS], READABLE_ROWS_MAX)
            if not rows:
                return taken
            await self.take([Record(row["topic"], "", row["headers"], row["body"]) for row in rows])
            async with self._database.connection() as connection:
                await connection.execute(_FORGET, [row["event_id"] for row in rows])
            taken += len(rows)

    async def _redrive(self, tally: Tally[str], connection: Connection, orders: Sequence[Event[Fact]]) -> None:
        """Every service answers for its own dead letters."""
        handle_again = partial(self._handle_again, tally)
        for order in orders:
            await dead_letters.redrive(connection, order, service=self._service, handle_again=handle_again)

    async def _skip(self, connection: Connection, orders: Sequence[Event[Fact]]) -> None:
        for order in orders:
            await dead_letters.skip(connection, order, service=self._service)

    async def _handle_again(self, tally: Tally[str], connection: Connection, record: Record) -> None:
        """Handle the event of a redriven dead letter, inside the transaction that redrives it."""
        handle = self._again.get(record.headers.get("ce_type", ""))
        if handle is not None:
            await handle(connection, record)
        else:
            await self._handle_in(connection, [decode(record.headers, record.body)], tally)

    async def _handle(self, events: Sequence[Event[Fact]]) -> None:
        if not events:
            return
        tally = Tally[str]()
        async with self._database.transaction() as connection:
            known = await self._handle_in(connection, events, tally)
        if self._counts:
            known_total.labels(self._service).inc(known)
            for contract_type, handled in tally.items():
                handled_total.labels(self._service, contract_type).inc(handled)

    async def _handle_in(self, connection: Connection, events: Sequence[Event[Fact]], tally: Tally[str]) -> int:
        """Returns how many were known. `tally` says of each type how many were not, once all is committed."""
        admitted = {row[0] for row in await connection.fetch(_ADMIT, [event.event_id for event in events])}
        fresh: dict[UUID, Event[Fact]] = {event.event_id: event for event in events if event.event_id in admitted}
        in_order: dict[type[Fact], Handler] = {
            **self._handlers,
            RedriveRequested: partial(self._redrive, tally),
            SkipRequested: self._skip,
        }
        for contract, handler in in_order.items():
            of_type = [event for event in fresh.values() if type(event.data) is contract]
            if of_type:
                await handler(connection, of_type)
                tally[contract.TYPE] += len(of_type)
        return len(events) - len(admitted)

    async def _handle_alone(self, event: Event[Fact]) -> None:
        try:
            await self._handle([event])
        except Exception as error:
            if isinstance(tell(error), Later):
                raise
            await self._put_aside(event.to_record(), event.event_id, error)

    async def _keep(self, records: Sequence[Record]) -> None:
        unknown_total.labels(self._service).inc(len(records))
        async with self._database.transaction() as connection:
            await connection.execute(
                _KEEP,
                [_id_of(record) for record in records],
                [record.topic for record in records],
                [record.headers["ce_type"] for record in records],
                [record.headers for record in records],
                [record.body for record in records],
            )

    async def _put_aside(self, record: Record, event_id: UUID, error: Exception) -> None:
        """A poison event becomes a dead letter of its case; its partition flows on.

        News of a dead letter becomes none: that one is open already, and one about it would be news again, for ever.
        """
        failure = tell(error)
        assert not isinstance(failure, Later), "what waits is not put aside"
        log.error("an event cannot be handled", type=record.headers.get("ce_type"), error=type(error).__name__)
        async with self._database.transaction() as connection:
            if event_id.int:
                await connection.execute("INSERT INTO inbox (event_id) VALUES ($1) ON CONFLICT DO NOTHING", event_id)
                if record.headers.get("ce_type") == DeadLetterRaised.TYPE:
                    return
            await dead_letters.raise_for_event(
                connection,
                service=self._service,
                record=record,
                event_id=_id_of(record),
                code=failure.code,
                message=failure.message,
            )


def _sort(
    records: Sequence[Record],
) -> tuple[list[Event[Fact]], list[Record], list[tuple[Record, UnreadableError]]]:
    events: list[Event[Fact]] = []
    unknown: list[Record] = []
    unreadable: list[tuple[Record, UnreadableError]] = []
    for record in records:
        try:
            events.append(decode(record.headers, record.body))
        except UnknownTypeError:
            unknown.append(record)
        except UnreadableError as error:
            unreadable.append((record, error))
    return events, unknown, unreadable


def _storable(record: Record) -> Record:
    """Postgres keeps no NUL in a text; a header that held one shows it."""
    headers = {name.replace("\0", "\ufffd"): value.replace("\0", "\ufffd") for name, value in record.headers.items()}
    return record._replace(headers=headers)


def _id_of(record: Record) -> UUID:
    """The event's id, or one made of the bytes where it has none."""
    try:
        return UUID(record.headers["ce_id"])
    except (KeyError, ValueError):
        return uuid5(NAMESPACE_URL, base64.b64encode(record.body).decode())
