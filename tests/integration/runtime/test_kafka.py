import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidReplicationFactorError, UnknownMemberIdError
from aiokafka.protocol.group import HeartbeatRequest

from contracts import topics
from contracts.base import Fact
from contracts.envelope import Event, Record
from contracts.events.control import ProcessPaused
from services.runtime import outbox
from services.runtime.config import KafkaSettings, RuntimeSettings
from services.runtime.inbox import Inbox
from services.runtime.kafka import Link
from services.runtime.kafka_clients import Consumer, Producer
from services.runtime.make_topics import make_topics
from services.runtime.postgres import Connection, Database
from services.runtime.relay import Relay
from services.runtime.stop import Stop, Wake
from tests.fakes.events import event, named
from tests.stacks import Broker, Stack
from tests.waiting import PATIENCE_SECONDS, until


def settings_of(broker: Broker) -> RuntimeSettings:
    idempotence = broker.settings.get("NIGHTSHIFT_KAFKA_IDEMPOTENCE", "true") == "true"
    return RuntimeSettings(database_url="", kafka_bootstrap=broker.bootstrap, kafka_idempotence=idempotence)


@pytest.mark.parametrize("forgets", [True, False], ids=["empty", "as it was"])
async def test_a_broker_that_comes_back_gets_what_it_lacks_and_consumers_ignore_what_they_know(
    database: Database, stack: Stack, tmp_path: Path, *, forgets: bool
) -> None:
    handled: list[UUID] = []

    async def handle(connection: Connection, events: list[Event[Fact]]) -> None:
        del connection
        handled.extend(one.event_id for one in events)

    stop, wake, producer = Stop(), Wake(), Producer()
    inbox = Inbox(database, "actor", {ProcessPaused: handle})  # type: ignore[dict-item]  # a list is a Sequence
    relay = Relay(database, "actor", producer, wake)
    with stack.broker(tmp_path) as broker:
        if not forgets and not broker.is_kafka:
            pytest.skip("the embedded broker always forgets")
        link = Link(
            settings=settings_of(broker),
            service="actor",
            database=database,
            subscriptions=[topics.CONTROL],
            take=inbox.take,
            producer=producer,
            relays=[relay],
        )

        async def say(name: str) -> None:
            async with database.transaction() as connection:
                await outbox.append(connection, [event(name)])
            wake.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(link.run(stop))
            group.create_task(relay.run(stop))
            await say("before")
            await until(lambda: named("before") in handled)
            broker.kill()
            await say("while it is away")
            broker.start_empty() if forgets else broker.start()
            await until(lambda: named("while it is away") in handled)
            async with database.connection() as connection:
                await until(lambda: connection.fetchval("SELECT bool_and(published_at IS NOT NULL) FROM outbox"))
            stop.set()

    assert handled == [named("before"), named("while it is away")], "published twice, handled once"


async def test_a_producer_publishes_on_after_the_broker_refused_a_record(kafka: Broker) -> None:
    await make(kafka, NewTopic("with-a-limit", 1, 1, topic_configs={"max.message.bytes": "5000"}))

    async with attached(kafka) as producer:
        answers = [list(await producer.publish([record("with-a-limit", size)])) for size in (10, 9000, 10, 10)]

    limit = "too_large" if kafka.is_kafka else None  # the embedded one takes any
    assert answers == [[None], [limit], [None], [None]]


async def test_a_record_above_our_own_limit_is_refused_and_its_neighbours_are_published(kafka: Broker) -> None:
    await make(kafka, NewTopic("neighbours", 1, 1))

    async with attached(kafka) as producer:
        answers = await producer.publish([record("neighbours", size) for size in (10, 2_000_000, 10)])

    assert list(answers) == [None, "too_large", None]


async def test_a_producer_leaves_in_time_while_the_broker_is_away(stack: Stack, tmp_path: Path) -> None:
    with stack.broker(tmp_path) as broker:
        await make(broker, NewTopic("away", 1, 1))
        async with attached(broker) as producer, asyncio.TaskGroup() as group:
            await producer.publish([record("away", 10)])
            broker.kill()
            waiting = group.create_task(refused(producer, record("away", 10)))
            await until(lambda: is_cut_off(producer))
            async with asyncio.timeout(5):
                await producer.detach()
                assert await waiting


async def test_a_consumer_ends_alone_also_while_the_broker_is_away(stack: Stack, tmp_path: Path) -> None:
    with stack.broker(tmp_path) as broker:
        await make(broker, NewTopic("away", 1, 1))
        consumer = Consumer("away", bootstrap_servers=broker.bootstrap, retry_backoff_ms=1000 * PATIENCE_SECONDS)
        await consumer.start()
        await until(lambda: bool(consumer._fetcher._pending_tasks))
        broker.kill()
        await until(lambda: any("sleep" in waits_in(task) for task in consumer._fetcher._pending_tasks))

        await consumer.stop()

    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing of it goes on, and we do"


async def test_a_group_can_be_joined_again_after_its_consumers_ended_one_after_the_other(kafka: Broker) -> None:
    async with two_joined(kafka, "left") as (first, second, third):
        known = second._coordinator.member_id
        await second.stop()
        is_waited_for = await knows(first, known)
        await first.stop()  # it led, and has not heard yet that the group forms anew
        async with asyncio.timeout(PATIENCE_SECONDS):
            await third.start()

    assert not is_waited_for, "it left a group that was formed"


async def test_a_group_can_be_joined_again_after_its_consumers_left_over_slow_batches(kafka: Broker) -> None:
    async with two_joined(kafka, "slow") as (first, second, third):
        for one in (second, first):  # as each does by itself after `max_poll_interval_ms`, here at the worst moment
            await one._coordinator._maybe_leave_group()
        for one in (second, first):
            await one.stop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await third.start()


async def test_a_topic_that_was_made_in_passing_gets_unlimited_retention(stack: Stack, tmp_path: Path) -> None:
    with stack.broker(tmp_path) as broker:
        if not broker.is_kafka:
            pytest.skip("the embedded broker makes no topic in passing")
        await make(broker, NewTopic(topics.EFFECTS, 1, 1, topic_configs={"retention.ms": "86400000"}))
        client = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await client.start()
        await client.send_and_wait(topics.CASES, b"")
        await client.stop()

        await make_topics(KafkaSettings(kafka_bootstrap=broker.bootstrap), partitions=1, replication=1)

        found = await retention(broker)
    assert found == {**dict.fromkeys((*topics.ALL, topics.EPOCH), "-1"), topics.EFFECTS: "86400000"}


async def test_topics_that_cannot_be_made_say_why(stack: Stack, tmp_path: Path) -> None:
    with stack.broker(tmp_path) as broker:
        if not broker.is_kafka:
            pytest.skip("the embedded broker takes any replication")
        with pytest.raises(InvalidReplicationFactorError, match=topics.CASES):
            await make_topics(KafkaSettings(kafka_bootstrap=broker.bootstrap), partitions=1, replication=3)


def record(topic: str, size: int) -> Record:
    return Record(topic, "key", {}, b"x" * size)


async def refused(producer: Producer, what: Record) -> bool:
    try:
        await producer.publish([what])
    except ConnectionError:
        return True
    return False


@asynccontextmanager
async def attached(broker: Broker) -> AsyncIterator[Producer]:
    """A producer as the link attaches it."""
    settings = settings_of(broker)

    def new() -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap,
            acks="all",
            enable_idempotence=settings.kafka_idempotence,
            max_request_size=1_000_000,
            request_timeout_ms=10_000,
        )

    producer, client = Producer(), new()
    await client.start()
    producer.attach(client, new)
    try:
        yield producer
    finally:
        await producer.detach()


def waits_in(task: "asyncio.Task[object]") -> list[str]:
    """The functions that a task waits in, the outermost first."""
    names: list[str] = []
    step: Any = task.get_coro()
    while (frame := getattr(step, "cr_frame", None)) is not None:
        names.append(frame.f_code.co_name)
        step = getattr(step, "cr_await", None)
    return names


@asynccontextmanager
async def two_joined(broker: Broker, topic: str) -> AsyncIterator[tuple[Consumer, Consumer, Consumer]]:
    """Three consumers of a topic of its own in a group of that name: the first leads, the last is not started."""
    await make(broker, NewTopic(topic, 1, 1))
    async with AsyncExitStack() as stack:
        first, second, third = (
            Consumer(topic, bootstrap_servers=broker.bootstrap, group_id=topic, session_timeout_ms=6000)
            for _ in range(3)
        )
        for one in (first, second, third):
            stack.push_async_callback(one.stop)
        await first.start()
        await second.start()
        await until(lambda: are_joined(first, second))
        yield first, second, third


def are_joined(*consumers: Consumer) -> bool:
    """Whether the group is formed, and of all these."""
    groups = [one._coordinator for one in consumers]
    return all(group._heartbeat_task for group in groups) and len({group.generation for group in groups}) == 1


async def knows(consumer: Consumer, member_id: str) -> bool:
    """Whether the group of this consumer counts that member in."""
    group = consumer._coordinator
    answer = await group._send_req(HeartbeatRequest(group.group_id, group.generation, member_id))
    return bool(answer.error_code != UnknownMemberIdError.errno)


def is_cut_off(producer: Producer) -> bool:
    client = producer._client
    return client is not None and not any(one.connected() for one in client.client._conns.values())


async def make(broker: Broker, topic: NewTopic) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([topic])
    finally:
        await admin.close()


async def retention(broker: Broker) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in (*topics.ALL, topics.EPOCH)]
        (answer,) = await admin.describe_configs(wanted)
    finally:
        await admin.close()
    return {topic: dict(entry[:2] for entry in entries)["retention.ms"] for *_, topic, entries in answer.resources}
