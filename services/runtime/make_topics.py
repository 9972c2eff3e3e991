"""`python -m services.runtime.make_topics`: make the topics that are missing, and see that all are kept for ever."""

import asyncio
import sys
from collections.abc import Sequence

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from contracts import topics
from services.runtime.config import KafkaSettings, RuntimeSettings

RETENTION = {"retention.ms": "-1", "retention.bytes": "-1"}
"""The topics are the history that a replay reads."""
SET_ON_THE_TOPIC = 1
"""Where a setting comes from, in Kafka's numbers."""

log = structlog.get_logger()


async def make_topics(kafka: KafkaSettings, *, partitions: int, replication: int) -> None:
    """Make the topics that are missing: unlimited retention, one partition for the epoch.

    A topic without any setting of its own was made in passing, when a client of an earlier life asked for it, and would
    forget after a week: it gets our retention. Where somebody gave it settings, it is theirs.
    """
    admin = AIOKafkaAdminClient(**kafka.client(), request_timeout_ms=10_000)
    await admin.start()
    try:
        there = set(await admin.list_topics())
        for topic in (*topics.ALL, topics.EPOCH):
            if topic in there:
                continue
            count = 1 if topic == topics.EPOCH else partitions
            answer = await admin.create_topics([NewTopic(topic, count, replication, topic_configs=RETENTION)])
            for _, code, reason in answer.topic_errors:
                if code == TopicAlreadyExistsError.errno:
                    log.debug("another service was faster", topic=topic)
                elif code:
                    raise for_code(code)(f"topic {topic}: {reason}")
        await _keep_what_was_made_in_passing(admin, sorted(there.intersection((*topics.ALL, topics.EPOCH))))
    finally:
        await admin.close()


async def _keep_what_was_made_in_passing(admin: AIOKafkaAdminClient, there: Sequence[str]) -> None:
    if not there:
        return
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic) for topic in there])
    forgetful = []
    for _, _, _, topic, entries in (resource for answer in answers for resource in answer.resources):
        kept = {name: value for name, value, *_ in entries}.get("retention.ms", "-1")
        theirs = any(source == SET_ON_THE_TOPIC for _, _, _, source, *_ in entries)
        if kept != "-1" and theirs:
            log.warning("a topic forgets: a replay will lack what is older", topic=topic, retention_ms=kept)
        elif kept != "-1":
            forgetful.append(topic)
    if forgetful:
        log.warning("topics were made in passing; they get unlimited retention", topics=forgetful)
        answers = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, t, RETENTION) for t in forgetful])
        for code, reason, _, topic in (resource for answer in answers for resource in answer.resources):
            if code:
                log.error("a topic forgets, and may not be changed", topic=topic, reason=reason)


async def not_kept(kafka: KafkaSettings) -> list[str]:
    """Topics whose records the broker would delete after a while, or at a size."""
    admin = AIOKafkaAdminClient(**kafka.client(), request_timeout_ms=10_000)
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
    asyncio.run(make_topics(settings, partitions=settings.kafka_partitions, replication=settings.kafka_replication))
    if lost := asyncio.run(not_kept(settings)):
        kept = ",".join(f"{name}={value}" for name, value in RETENTION.items())
        sys.exit(f"{', '.join(lost)} would lose records: kafka-configs.sh --alter --add-config {kept}")
    sys.stdout.write(f"{len(topics.ALL) + 1} topics, kept for ever\n")


if __name__ == "__main__":
    main()
