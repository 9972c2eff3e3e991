"""How far a service's consumers are behind the broker, as a metric."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from services.runtime.config import KafkaSettings
from services.runtime.figures import LOOK_SECONDS
from services.runtime.kafka import group_of
from services.runtime.kafka_clients import Consumer
from services.runtime.postgres import UNAVAILABLE, Database
from services.runtime.stop import Stop

log = structlog.get_logger()
lag = Gauge(
    "nightshift_consumer_lag_records",
    "Records of a topic that this service's group has not committed; all partitions, whoever of the group reads them",
    ["service", "topic"],
)


class Lag:
    """Sets the gauge from time to time, over connections of its own: it looks on and takes part in no group."""

    def __init__(self, settings: KafkaSettings, service: str, database: Database, topics: Sequence[str]) -> None:
        self._kafka = settings
        self._service = service
        self._database = database
        self._topics = topics

    async def run(self, stop: Stop) -> None:
        """Until told to stop. While the broker is away there is no figure: the outbox tells of that."""
        while not stop.is_set():
            try:
                await self._one_life(stop)
            except (KafkaError, OSError, *UNAVAILABLE) as error:
                log.info("lag is not known", error=type(error).__name__)
                lag.clear()
            await stop.wait(LOOK_SECONDS)

    async def _one_life(self, stop: Stop) -> None:
        async with AsyncExitStack() as stack:
            consumer = Consumer(**self._kafka.client(), enable_auto_commit=False)
            stack.push_async_callback(consumer.stop)  # also of a start that fails halfway
            await consumer.start()
            admin = AIOKafkaAdminClient(**self._kafka.client())
            await admin.start()
            stack.push_async_callback(admin.close)
            while not stop.is_set():
                await self.look(consumer, admin)
                await stop.wait(LOOK_SECONDS)

    async def look(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient) -> None:
        """Once."""
        async with self._database.connection() as connection:
            epoch = await connection.fetchval("SELECT epoch FROM broker_epoch")
        described = {one["topic"]: one["partitions"] for one in await admin.describe_topics(list(self._topics))}
        for topic in self._topics:
            partitions = [TopicPartition(topic, one["partition"]) for one in described.get(topic, ())]
            if epoch is None or not partitions:  # nobody connected yet: the topic is about to be made
                raise ConnectionError("the topics are not there yet")
            group = group_of(self._service, topic, epoch)
            ends = await consumer.end_offsets(partitions)
            done = await admin.list_consumer_group_offsets(group, partitions=partitions)
            # Retention is unlimited, so a partition of which nothing was committed yet begins at 0.
            behind = [ends[one] - max(0, done[one].offset if one in done else 0) for one in partitions]
            lag.labels(self._service, topic).set(sum(max(0, count) for count in behind))
