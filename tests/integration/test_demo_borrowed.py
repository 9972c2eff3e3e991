"""Where a demo may play beside its embedded stack: nowhere where somebody works."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from contracts import topics
from nightshift.demo.borrowed import BorrowedError, settings
from services.runtime.config import KafkaSettings
from services.runtime.make_topics import make_topics
from tests.conftest import MigratedDatabase
from tests.stacks import Broker, Stack

LIFE = "0192f0c1-2a68-7c4e-9d9e-0b6a4f5f1e11"


@pytest.fixture
async def used_broker(stack: Stack, tmp_path: Path) -> AsyncIterator[Broker]:
    """One that some system has published to."""
    with stack.broker(tmp_path) as broker:
        await make_topics(KafkaSettings(kafka_bootstrap=broker.bootstrap), partitions=1, replication=1)
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await producer.start()
        await producer.send_and_wait(topics.EPOCH, LIFE.encode(), key=b"epoch")
        await producer.stop()
        yield broker


async def test_a_demo_asks_for_both_and_for_both_to_answer(database_url: str, free_port: int) -> None:
    named = {"NIGHTSHIFT_DATABASE_URL": database_url, "NIGHTSHIFT_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port}"}
    only_one = {"NIGHTSHIFT_DATABASE_URL": database_url, "NIGHTSHIFT_ZENDESK_URL": "https://somebody.example"}

    assert await settings(only_one) == {}
    with pytest.raises(BorrowedError, match="does not answer"):
        await settings(named)


async def test_a_demo_leaves_a_database_alone_that_works_for_somebody(
    migrated: MigratedDatabase, kafka: Broker
) -> None:
    with pytest.raises(BorrowedError, match="no demo"):
        await settings({**kafka.settings, "NIGHTSHIFT_DATABASE_URL": migrated.admin_url})


async def test_a_demo_leaves_a_broker_alone_that_holds_other_events_and_goes_on_with_its_own(
    database_url: str, migrated: MigratedDatabase, used_broker: Broker
) -> None:
    with pytest.raises(BorrowedError, match="another system"):
        await settings({**used_broker.settings, "NIGHTSHIFT_DATABASE_URL": database_url})

    connection = await asyncpg.connect(migrated.admin_url)
    await connection.execute(f"CREATE SCHEMA shop; INSERT INTO reporter.broker_epoch (epoch) VALUES ('{LIFE}')")
    await connection.close()
    its_own = {**used_broker.settings, "NIGHTSHIFT_DATABASE_URL": migrated.admin_url}

    assert await settings({**its_own, "NIGHTSHIFT_ZENDESK_URL": "https://somebody.example"}) == its_own
