"""`python -m services.runtime.make_topics`: make the topics that are missing, and see that all are kept for ever."""

import asyncio
import sys

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from contracts import topics
from services.runtime.config import RuntimeSettings
from services.runtime.kafka import RETENTION, make_topics


async def not_kept(bootstrap: str) -> list[str]:
    """Topics whose records the broker would delete after a while, or at a size."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    await admin.start()
    try:
        answers = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in (*topics.ALL, topics.EPOCH)]
        )
    finally:
        await admin.close()
    found = []
    for answer in answers:
        for _, _, _, topic, entries in answer.resources:
            settings = {entry[0]: entry[1] for entry in entries}
            if any(settings.get(name, value) != value for name, value in RETENTION.items()):
                found.append(topic)
    return sorted(found)


def main() -> None:
    """Exit code 1 where a topic that was there already would lose records."""
    settings = RuntimeSettings(database_url="")
    asyncio.run(
        make_topics(
            settings.kafka_bootstrap, partitions=settings.kafka_partitions, replication=settings.kafka_replication
        )
    )
    if lost := asyncio.run(not_kept(settings.kafka_bootstrap)):
        kept = ",".join(f"{name}={value}" for name, value in RETENTION.items())
        sys.exit(f"{', '.join(lost)} would lose records: kafka-configs.sh --alter --add-config {kept}")
    sys.stdout.write(f"{len(topics.ALL) + 1} topics, kept for ever\n")


if __name__ == "__main__":
    main()
