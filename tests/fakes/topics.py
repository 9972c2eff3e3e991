"""Topics with a history, for tests that read them."""

from collections.abc import Iterable
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from contracts import topics
from contracts.envelope import Record
from services.runtime.config import KafkaSettings
from services.runtime.make_topics import make_topics
from tests.waiting import until


async def found(bootstrap: str, *, partitions: int = 3) -> UUID:
    """Make the topics anew, and begin the broker's life as the first service does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if old := {*topics.ALL, topics.EPOCH} & {*await admin.list_topics()}:
            await admin.delete_topics(sorted(old))

        async def are_gone() -> bool:
            return not {*topics.ALL, topics.EPOCH} & {*await admin.list_topics()}

        await until(are_gone)
    finally:
        await admin.close()
    await make_topics(KafkaSettings(kafka_bootstrap=bootstrap), partitions=partitions, replication=1)
    epoch = uuid4()
    await publish(bootstrap, [Record(topics.EPOCH, "epoch", {}, str(epoch).encode())])
    return epoch


async def publish(bootstrap: str, records: Iterable[Record]) -> None:
    """In order, as the relay does."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for record in records:
            headers = [(name, value.encode()) for name, value in record.headers.items()]
            await producer.send(record.topic, record.body, key=record.key.encode(), headers=headers)
        await producer.flush()
    finally:
        await producer.stop()


async def groups(bootstrap: str) -> set[str]:
    """The consumer groups that the broker knows."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        return {str(one[0]) for one in await admin.list_consumer_groups()}
    finally:
        await admin.close()
