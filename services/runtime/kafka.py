"""The broker, seen by one service: one consumer, one producer, and which life of the broker they belong to.

Each life of a broker has an epoch: the id in the first record of the topic `nightshift.epoch`. Where it differs from
the one in Postgres the broker forgot everything: the outbox is published again, and a new consumer group reads from the
start.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaError,
)
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from contracts import topics
from contracts.envelope import Record
from services.runtime.config import KafkaSettings, RuntimeSettings
from services.runtime.failures import Later, tell
from services.runtime.kafka_clients import RECORD_BYTES_MAX, Consumer, Producer, end
from services.runtime.make_topics import make_topics
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Database
from services.runtime.relay import Relay
from services.runtime.stop import Stop
from services.runtime.together import Together

BATCH_RECORDS_MAX = 1000
FETCH_WAIT_MS = 500
URGENT_WAIT_MS = 20
"""How long a fetch of the urgent topic waits for news.

The embedded broker looks for news twice in that time and no more often: at 500 ms that alone is 250 ms at p99. And of
any broker a client has one fetch in flight, which holds up what the other partitions bring meanwhile.
"""
SESSION_MS = 6000
"""How long a dead consumer's partitions wait for it: the shortest that Kafka's brokers allow by default."""
EPOCH_LOOK_SECONDS = 2.0
EPOCH_ANSWER_SECONDS = 5.0
RECONNECT_SECONDS = 1.0
START_SECONDS_MAX = 60.0
"""A group takes a consumer in within some 12 s, after a crash; what takes longer is begun anew."""

log = structlog.get_logger()

Take = Callable[[Sequence[Record]], Awaitable[None]]
Parse = Callable[[Any], Awaitable[KafkaMessage]]


class BrokerForgotError(Exception):
    """The broker began a new life, or does not answer: connect anew."""


async def _start(broker: KafkaBroker, kafka: KafkaSettings) -> None:
    """Start all subscribers side by side: each waits for seconds until its group took it in, after a crash the longest.

    FastStream's own start takes one after the other. The class of its consumers has no public name.
    """
    await broker.connect()
    config = broker.config.broker_config
    assert isinstance(config.builder, partial), "connecting made it"
    config.builder = partial(Consumer, **config.builder.keywords | kafka.client())
    failures: list[Exception] = []

    async def tried(start: Callable[[], Awaitable[None]]) -> None:
        try:
            await start()
        except Exception as error:  # noqa: BLE001  # raised below, when no other is cancelled by it
            failures.append(error)

    # aiokafka leaves the first connection open of a start that is cancelled.
    async with asyncio.TaskGroup() as group:
        for subscriber in broker.subscribers:
            group.create_task(tried(subscriber.start))
    if failures:
        raise failures[0]


class Link:
    """Keeps a service connected.

    Consumes `subscriptions` into `take`, lets the relay publish, and heals after a new epoch.
    """

    def __init__(
        self,
        *,
        settings: RuntimeSettings,
        service: str,
        database: Database,
        subscriptions: Sequence[str],
        take: Take,
        producer: Producer,
        relays: Sequence[Relay],
        urgent: str | None = None,
        batch_seconds_min: float = 0.0,
        before_consuming: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._kafka = settings
        self._partitions = settings.kafka_partitions
        self._replication = settings.kafka_replication
        self._idempotence = settings.kafka_idempotence
        self._service = service
        self._database = database
        self._subscriptions = subscriptions
        self._take = take
        self._producer = producer
        self._relays = relays
        self._urgent = urgent
        """The topic whose news somebody waits for."""
        self._batch_seconds_min = batch_seconds_min
        """From one batch to the next at least: who is in no hurry handles more at once."""
        self._before_consuming = before_consuming
        """Handles what an older build could not read."""
        self.connected = False

    async def run(self, stop: Stop) -> None:
        """Connect, work, and connect again until told to stop."""
        while not stop.is_set():
            try:
                await self._one_life(stop)
            except (KafkaError, BrokerForgotError, OSError, *UNAVAILABLE, *CONTENDED) as error:
                log.warning("broker is away", error=type(error).__name__, reason=str(error)[:200])
            await stop.wait(RECONNECT_SECONDS)

    async def check(self) -> str | None:
        """For health: whether the broker is connected."""
        return None if self.connected else "the broker is not connected"

    async def _one_life(self, stop: Stop) -> None:
        """From one connection to its loss, or to a new epoch."""
        await make_topics(self._kafka, partitions=self._partitions, replication=self._replication)
        async with AsyncExitStack() as stack:
            watch = Consumer(**self._kafka.client(), enable_auto_commit=False, auto_offset_reset="earliest")
            stack.push_async_callback(watch.stop)  # also of a start that fails halfway
            await watch.start()
            client = self._new_client()
            stack.push_async_callback(end, client)
            await client.start()
            epoch = await self._agree_on_epoch(watch, client)
            await self._adopt(epoch)
            self._producer.attach(client, self._new_client)
            stack.push_async_callback(self._producer.detach)
            if self._before_consuming is not None:
                await self._before_consuming()
            if self._subscriptions:
                broker = self._consumer(epoch, stop)
                stack.push_async_callback(broker.stop)  # also of a start that fails halfway
                async with asyncio.timeout(START_SECONDS_MAX):
                    await _start(broker, self._kafka)
            self.connected = True
            log.info("connected to the broker", epoch=str(epoch))
            try:
                while not await stop.wait(EPOCH_LOOK_SECONDS):
                    if await read_epoch(watch) != epoch:
                        raise BrokerForgotError("the broker began a new life")
            finally:
                self.connected = False  # and what is closed now may take its time

    def _new_client(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._kafka.client(),
            acks="all",
            enable_idempotence=self._idempotence,
            max_request_size=RECORD_BYTES_MAX,
            request_timeout_ms=10_000,
        )

    def _consumer(self, epoch: UUID, stop: Stop) -> KafkaBroker:
        """A subscriber a topic. Offsets are committed after `take` returned, so after its transaction committed.

        NACK_ON_ERROR: an exception rewinds the batch. `take` raises only for what is Later (Postgres away), and waits
        before it does, so nothing spins; poison never raises, it becomes a dead letter.
        """
        broker = KafkaBroker(
            self._kafka.kafka_bootstrap, consumer_only=True, apply_types=False, logger=None, graceful_timeout=5.0
        )
        together = Together(partial(self._take_at_leisure, stop=stop))

        async def decode(message: KafkaMessage) -> Any:
            return message.raw_message

        async def parse(raw: tuple[Any, ...], usual: Parse) -> KafkaMessage:
            # FastStream reads headers strictly; where one is no UTF-8 it drops the whole batch, and commits past it
            message = await usual(tuple(replace(record, headers=()) for record in raw))
            message.raw_message = raw
            return message

        async def consume(raw: Any) -> None:
            await together.handle(
                [
                    Record(
                        r.topic,
                        (r.key or b"").decode(errors="replace"),
                        {n: (v or b"").decode(errors="replace") for n, v in r.headers},
                        r.value or b"",
                    )
                    for r in raw
                ]
            )

        for topic in self._subscriptions:
            wait_ms = URGENT_WAIT_MS if topic == self._urgent else FETCH_WAIT_MS
            broker.subscriber(
                topic,
                batch=True,
                group_id=group_of(self._service, topic, epoch),
                auto_offset_reset="earliest",
                ack_policy=AckPolicy.NACK_ON_ERROR,
                max_records=BATCH_RECORDS_MAX,
                batch_timeout_ms=wait_ms,
                fetch_max_wait_ms=wait_ms,
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=SESSION_MS // 4,
                parser=parse,
                decoder=decode,
            )(consume)
        return broker

    async def _take_at_leisure(self, records: Sequence[Record], *, stop: Stop) -> None:
        """From one batch to the next at least `batch_seconds_min`: what comes meanwhile is one batch."""
        began = asyncio.get_running_loop().time()
        await self._take_patiently(records, stop)
        left = began + self._batch_seconds_min - asyncio.get_running_loop().time()
        if left > 0 and len(records) < BATCH_RECORDS_MAX:
            await stop.wait(left)

    async def _take_patiently(self, records: Sequence[Record], stop: Stop) -> None:
        """Wait for Postgres as long as it takes: without it there is nothing else to do for this batch."""
        while True:
            try:
                await self._take(records)
            except Exception as error:
                failure = tell(error)
                if not isinstance(failure, Later) or stop.is_set():
                    raise
                log.warning("consumer waits", code=failure.code)
                await stop.wait(failure.seconds)
            else:
                return

    async def _agree_on_epoch(self, watch: AIOKafkaConsumer, producer: AIOKafkaProducer) -> UUID:
        """The first record decides; whoever finds none offers one."""
        epoch = await read_epoch(watch)
        if epoch is not None:
            return epoch
        async with self._database.connection() as connection:
            offer: UUID = await connection.fetchval("SELECT gen_random_uuid()")
        await producer.send_and_wait(topics.EPOCH, str(offer).encode(), key=b"epoch")
        for _ in range(10):
            epoch = await read_epoch(watch)
            if epoch is not None:
                return epoch
        raise BrokerForgotError("the broker took an epoch and does not show it")

    async def _adopt(self, epoch: UUID) -> None:
        """Compare with the epoch that the rows were published to; where it differs, owe them again."""
        async with self._database.transaction() as connection:
            known = await connection.fetchval("SELECT epoch FROM broker_epoch FOR UPDATE")
            if known == epoch:
                return
            await connection.execute(
                "INSERT INTO broker_epoch (epoch) VALUES ($1) "
                "ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, seen_at = clock_timestamp()",
                epoch,
            )
            if known is not None:
                log.warning("the broker forgot; publishing everything again", before=str(known), now=str(epoch))
                for relay in self._relays:
                    await relay.publish_everything_again(connection)
        for relay in self._relays:
            relay.wake()


async def read_epoch(watch: AIOKafkaConsumer) -> UUID | None:
    """The epoch in the first record of its topic; none when the topic is empty.

    Raises BrokerForgotError when the broker does not answer in time or knows no such topic.
    """
    partition = TopicPartition(topics.EPOCH, 0)
    watch.assign([partition])
    watch.seek(partition, 0)
    try:
        async with asyncio.timeout(EPOCH_ANSWER_SECONDS):
            got = await watch.getmany(partition, timeout_ms=1000, max_records=1)
    except (TimeoutError, KafkaError) as error:
        raise BrokerForgotError(f"no answer: {type(error).__name__}") from error
    for records in got.values():
        return UUID(records[0].value.decode())
    return None


def group_of(service: str, topic: str, epoch: UUID) -> str:
    """The consumer group of a service for a topic, in one life of the broker."""
    return f"nightshift.{service}.{topic}.{epoch}"


async def partitions_of(kafka: KafkaSettings) -> list[TopicPartition]:
    """Of every topic. A consumer without subscriptions is told none by a real broker, so the admin's client asks."""
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        described = await admin.describe_topics(list(topics.ALL))
    finally:
        await admin.close()
    return [TopicPartition(one["topic"], part["partition"]) for one in described for part in one["partitions"]]
