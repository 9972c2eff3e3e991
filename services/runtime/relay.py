"""The relay publishes an outbox, each row at least once."""

import asyncio
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import structlog
from prometheus_client import Counter

from contracts.envelope import Record
from services.runtime import dead_letters
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Connection, Database
from services.runtime.stop import Stop, Wake

ROWS_MAX = 1000
IDLE_SECONDS = 1.0
"""The relay looks this often even when nobody wakes it."""

log = structlog.get_logger()
published_total = Counter("nightshift_outbox_published_total", "Events published by the relay", ["schema"])


class Publisher(Protocol):
    """What the relay needs of a broker."""

    async def publish(self, records: Sequence[Record]) -> Sequence[str | None]:
        """Hand the records over; returns when the broker has each, or with the reason why it never will.

        Raises ConnectionError, also for no records, when the broker is not there: nothing may be assumed of any record.
        """


class Relay:
    """Publishes one schema's outbox, each row at least once.

    Rows are taken by id as long as they are unpublished; there is no high-water mark that a late commit could fall
    behind. Twice is possible (a crash between publishing and marking), never is not.
    """

    def __init__(
        self, database: Database, schema: str, publisher: Publisher, wake: Wake, *, seconds_min: float = 0.0
    ) -> None:
        """`seconds_min`: from one batch to the next at least, where nobody waits for the events."""
        self._database = database
        self._schema = schema
        self._publisher = publisher
        self._wake = wake
        self._seconds_min = seconds_min
        self._take = (
            "SELECT id, created_at, event_id, topic, key, headers, body, "  # noqa: S608  # our own schema's name
            f"(SELECT epoch FROM broker_epoch WHERE one) AS epoch FROM {schema}.outbox "
            "WHERE published_at IS NULL AND refused IS NULL ORDER BY id LIMIT $1"
        )
        # Of all months only those of these rows are opened. Adding nothing to a bound keeps one plan for all bounds:
        # the sum is not known before the statement runs, so Postgres sees no use in planning each time anew.
        # A broker that began a new life since has nothing of it; the lock lets nobody adopt that life meanwhile.
        self._mark = (
            f"UPDATE {schema}.outbox o SET refused = m.refused, "  # noqa: S608  # as above
            "published_at = CASE WHEN m.refused IS NULL THEN clock_timestamp() END "
            "FROM unnest($1::bigint[], $2::timestamptz[], $3::text[]) m(id, created_at, refused) "
            "WHERE o.id = m.id AND o.created_at = m.created_at "
            "AND o.created_at BETWEEN $4::timestamptz + interval '0' AND $5::timestamptz + interval '0' "
            "AND (SELECT epoch FROM broker_epoch WHERE one FOR SHARE) IS NOT DISTINCT FROM $6::uuid"
        )
        self._again = f"UPDATE {schema}.outbox SET published_at = NULL WHERE published_at IS NOT NULL"  # noqa: S608  # as above

    async def run(self, stop: Stop) -> None:
        """Publish until told to stop."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            began = loop.time()
            try:
                taken = await self.publish_once()
            except (ConnectionError, *UNAVAILABLE, *CONTENDED) as error:  # two relays mark the same rows in any order
                log.warning("relay waits", schema=self._schema, error=type(error).__name__)
                await stop.wait(IDLE_SECONDS)
                continue
            if taken < ROWS_MAX:
                await self._wake.wait(IDLE_SECONDS, stop)
                if (left := began + self._seconds_min - loop.time()) > 0:
                    await stop.wait(left)

    async def publish_once(self) -> int:
        """Publish what waits, up to ROWS_MAX rows; returns how many there were."""
        await self._publisher.publish([])  # a broker that is away is no reason to read a thousand rows each second
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._take, ROWS_MAX)
        if not rows:
            return 0
        records = {row["id"]: Record(row["topic"], row["key"], row["headers"], row["body"]) for row in rows}
        answers = await self._publisher.publish(list(records.values()))
        times = [row["created_at"] for row in rows]
        as_one = self._database.transaction if any(answers) else self._database.connection
        async with as_one() as connection:
            ids = [row["id"] for row in rows]
            await connection.execute(self._mark, ids, times, list(answers), min(times), max(times), rows[0]["epoch"])
            for row, refused in zip(rows, answers, strict=True):
                if refused is not None:
                    await self._put_aside(connection, row["event_id"], records[row["id"]], refused)
        published_total.labels(self._schema).inc(len(rows))
        return len(rows)

    async def _put_aside(self, connection: Connection, event_id: UUID, record: Record, refused: str) -> None:
        log.error("the broker refused an event", event_id=str(event_id), reason=refused)
        await dead_letters.raise_for_event(
            connection,
            service=self._database.schema,
            record=record,
            event_id=event_id,
            code="refused_by_broker",
            message=f"the broker will never take this event: {refused}",
        )

    async def publish_everything_again(self, connection: Connection) -> None:
        """The broker forgot: every row is unpublished again. Consumers ignore what they know.

        In the transaction that adopts the broker's new life, after it took the lock of its row.
        """
        await connection.execute(self._again)

    def wake(self) -> None:
        """There is something to publish."""
        self._wake.set()
