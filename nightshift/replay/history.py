"""The topics, copied record by record into the schema `replay`; an interrupted copy goes on where it stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from contracts.envelope import Record
from nightshift import MendableError
from nightshift.progress import Progress
from nightshift.replay import ROLE, SCHEMA
from nightshift.stack import as_role
from services.reporter.domain.log import Entry, entry_of
from services.runtime.config import KafkaSettings
from services.runtime.kafka import BrokerForgotError, partitions_of, read_epoch
from services.runtime.postgres import Connection, Database, connect

POLL_MS = 300
POLL_RECORDS_MAX = 2000
FETCH_WAIT_MS = 100
"""Only at the end of a topic anybody waits."""
SILENT_SECONDS_MAX = 30.0
"""A broker that owes records and sends none for so long does not answer."""
SCAN_SECONDS_MAX = 3600.0
"""Of a statement that reads or clears everything."""
CONNECTIONS_MAX = 3

_ALONE = "SELECT pg_try_advisory_lock(hashtextextended('nightshift.replay', 0))"
_NOT_ALONE = "SELECT pg_advisory_unlock(hashtextextended('nightshift.replay', 0))"
_KNOWN = "SELECT epoch, options FROM replay.runs WHERE run = $1"
_BEGIN = "INSERT INTO replay.runs (run, epoch, options) VALUES ($1, $2, $3)"
_FORGET = ("DELETE FROM replay.{} WHERE run = $1", ("entries", "offsets", "runs"))
_OFFSETS = "SELECT topic, partition, next, until FROM replay.offsets WHERE run = $1 AND topic = ANY($2)"
_MOVE = """
INSERT INTO replay.offsets (run, topic, partition, next, until)
SELECT $1, * FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[])
ON CONFLICT (run, topic, partition) DO UPDATE SET next = excluded.next, until = excluded.until
"""
_KEEP = """
INSERT INTO replay.entries (run, event_id, topic, type, process, case_id, time, correlation_id, headers, body)
SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::uuid[],
                         $9::text[], $10::bytea[])
ON CONFLICT DO NOTHING RETURNING case_id
"""

Offsets = dict[TopicPartition, int]
Wanted = Callable[[Entry], bool]


class TopicsUnreadableError(MendableError):
    """The broker or its topics are not there."""


@asynccontextmanager
async def replaying(admin_url: str) -> AsyncIterator[Database]:
    """The database as the replay's own role, for one replay at a time. Raises MendableError."""
    async with (
        connect(as_role(admin_url, ROLE), schema=SCHEMA, connections_max=CONNECTIONS_MAX) as database,
        _alone(database),
    ):
        yield database


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[None]:
    try:
        connection = await database.pool.acquire()
        await connection.fetch("SELECT FROM replay.runs")
        alone = await connection.fetchval(_ALONE)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidParameterValueError, asyncpg.UndefinedObjectError) as error:
        raise MendableError(f"the database is not migrated ({error}): `nightshift up` migrates it") from error
    except (OSError, asyncpg.PostgresError) as error:
        raise MendableError(f"the database does not answer ({error}): `nightshift doctor` looks further") from error
    if not alone:
        raise MendableError("another replay runs: wait for its end, or interrupt it")
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(_NOT_ALONE)


@asynccontextmanager
async def reading(kafka: KafkaSettings) -> AsyncIterator["Topics"]:
    """The topics, for the length of the block. Raises TopicsUnreadableError."""
    consumer = AIOKafkaConsumer(
        **kafka.client(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
    )
    try:
        try:
            partitions = await partitions_of(kafka)
            await consumer.start()
            epoch = await read_epoch(consumer)
        except (KafkaError, BrokerForgotError, OSError) as error:
            raise TopicsUnreadableError(f"the broker at {kafka.kafka_bootstrap} does not answer ({error})") from error
        if epoch is None or not partitions:
            raise TopicsUnreadableError(
                f"no service has ever spoken to the broker at {kafka.kafka_bootstrap}: there is no history"
            )
        yield Topics(consumer, epoch, partitions)
    except KafkaError as error:
        raise TopicsUnreadableError(
            f"the broker at {kafka.kafka_bootstrap} went away ({type(error).__name__})"
        ) from error
    finally:
        await consumer.stop()


class Topics:
    """A consumer without a group: it commits nothing and takes no partition from anybody."""

    def __init__(self, consumer: AIOKafkaConsumer, epoch: UUID, partitions: Sequence[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self.epoch = epoch
        """Which life of the broker the offsets belong to."""

    async def ends(self, names: Iterable[str]) -> Offsets:
        """One past the last record of every partition."""
        ends: Offsets = await self._consumer.end_offsets([p for p in self._partitions if p.topic in {*names}])
        return ends

    async def records(self, begin: Offsets, until: Offsets) -> AsyncIterator[tuple[list[Record], Offsets]]:
        """Batches, and where each partition is after them. Raises TopicsUnreadableError.

        `until` is raised to the end that a partition's first answers name: the embedded broker, asked for its last
        offsets, leaves out all but the first record of the last batch.
        """
        at = {partition: begin.get(partition, 0) for partition in until}
        left, raised = sorted(at), set[TopicPartition]()
        self._consumer.assign(left)
        for partition in left:
            self._consumer.seek(partition, at[partition])
        clock = asyncio.get_running_loop().time
        heard = clock()
        while left:
            got = await self._consumer.getmany(*left, timeout_ms=POLL_MS, max_records=POLL_RECORDS_MAX)
            found: list[Record] = []
            for partition, batch in got.items():
                found += map(_record_of, batch)
                at[partition] = batch[-1].offset + 1
            if not got:  # where the last offsets hold no record there is nothing more to come
                at |= {p: max(at[p], await self._consumer.position(p)) for p in left}
            left = [p for p in left if not self._ended(p, at[p], until, raised)]
            heard = clock() if got else heard
            if left and clock() - heard > SILENT_SECONDS_MAX:
                raise TopicsUnreadableError(f"the broker sends nothing of {left[0].topic}")
            yield found, dict(at)

    def _ended(self, partition: TopicPartition, at: int, until: Offsets, raised: set[TopicPartition]) -> bool:
        """Whether everything was read that lay there at the beginning. Raised twice, a busy topic had no end."""
        end = self._consumer.highwater(partition)
        if end is None or at < until[partition]:
            return False
        if at < end and partition not in raised:
            raised.add(partition)
            until[partition] = end
        return at >= until[partition]


def _record_of(raw: "ConsumerRecord[bytes, bytes]") -> Record:
    """As the services take it (services/runtime/kafka.py)."""
    headers = {name: value.decode(errors="replace") for name, value in raw.headers}
    return Record(raw.topic, (raw.key or b"").decode(errors="replace"), headers, raw.value or b"")


@dataclass(frozen=True, slots=True)
class Copy:
    """What one replay has copied so far. `run` names the kind of replay: there is one unfinished of each."""

    database: Database
    topics: Topics
    run: str

    async def begin(self, options: str) -> bool:
        """Go on with the unfinished one, or forget it where the broker or the options are others. True: it goes on."""
        async with self.database.transaction() as connection:
            known = await connection.fetchrow(_KNOWN, self.run)
            if known is not None and (known["epoch"], known["options"]) == (self.topics.epoch, options):
                return True
            await self.forget(connection)
            await connection.execute(_BEGIN, self.run, self.topics.epoch, options)
            return False

    async def forget(self, connection: Connection) -> None:
        """Leave nothing behind."""
        statement, tables = _FORGET
        for table in tables:
            await connection.execute(statement.format(table), self.run, timeout=SCAN_SECONDS_MAX)

    async def take(
        self, names: Sequence[str], *, wanted: Wanted, progress: Progress, further: bool = False, waiting: str = ""
    ) -> int:
        """Copy what is wanted up to the ends as they were when this copy began; `further`, as they are now.

        `waiting`: a statement that is told the cases of what was new, in the same transaction. Returns how many records
        were read.
        """
        async with self.database.connection() as connection:
            rows = await connection.fetch(_OFFSETS, self.run, list(names))
        begin = {TopicPartition(r["topic"], r["partition"]): r["next"] for r in rows}
        until = {TopicPartition(r["topic"], r["partition"]): r["until"] for r in rows}
        if further or not rows:
            until |= await self.topics.ends(names)
        else:  # what was read to its end stays as it is
            until = {partition: end for partition, end in until.items() if begin[partition] < end}
        done, total = sum(begin.get(p, 0) for p in until), sum(until.values())
        if not rows:
            async with self.database.transaction() as connection:
                await self._move(connection, dict.fromkeys(until, 0), until)
        read = 0
        async for records, at in self.topics.records(begin, until):
            once = {entry.event_id: entry for entry in map(entry_of, reversed(records)) if wanted(entry)}
            async with self.database.transaction() as connection:
                fresh = await self._keep(connection, [once[event_id] for event_id in sorted(once)])
                if waiting and fresh:
                    await connection.execute(waiting, sorted(fresh))
                await self._move(connection, at, until)
            if records:
                read += len(records)
                progress("reading topics", done + read, max(total, done + read))
        return read

    async def _keep(self, connection: Connection, entries: Sequence[Entry]) -> set[str]:
        columns = [
            [e.event_id for e in entries],
            [e.topic for e in entries],
            [e.type for e in entries],
            [e.process for e in entries],
            [e.case_id for e in entries],
            [e.time for e in entries],
            [e.correlation_id for e in entries],
            [orjson.dumps(e.headers).decode() for e in entries],
            [e.body for e in entries],
        ]
        return {row[0] for row in await connection.fetch(_KEEP, self.run, *columns)} if entries else set()

    async def _move(self, connection: Connection, at: Offsets, until: Mapping[TopicPartition, int]) -> None:
        order = sorted(at)
        await connection.execute(
            _MOVE,
            self.run,
            [p.topic for p in order],
            [p.partition for p in order],
            [at[p] for p in order],
            [until[p] for p in order],
        )


def everything(entry: Entry) -> bool:
    """Every record is wanted."""
    del entry
    return True


def entry_from(row: Any) -> Entry:
    """An entry out of a row of `replay.entries`."""
    told = {name: row[name] for name in Entry.__dataclass_fields__}
    return Entry(**told | {"headers": orjson.loads(told["headers"])})
