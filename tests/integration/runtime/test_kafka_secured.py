"""A broker that asks for TLS, or for a name and a password, is spoken to as its settings say."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trustme
from aiokafka.errors import KafkaError

from contracts import topics
from contracts.envelope import Record
from nightshift.embedded.child import free_port
from services.runtime.config import KafkaSettings, RuntimeSettings
from services.runtime.kafka import Link
from services.runtime.kafka_clients import Producer
from services.runtime.make_topics import make_topics
from services.runtime.postgres import Database
from services.runtime.stop import Stop
from tests.chaos.proxy import Proxy, listening, to_broker
from tests.fakes.events import event
from tests.stacks import Broker, ContainerBroker, Real, Stack
from tests.waiting import until

AUTHORITY = trustme.CA()
CA = AUTHORITY.cert_pem.bytes().decode()


@pytest.fixture
async def behind_tls(stack: Stack, tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker that is reached by TLS alone, with a certificate of AUTHORITY."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    port = free_port()
    with stack.broker(tmp_path, advertised_port=port) as broker:
        proxy = Proxy(to_broker(broker))
        async with listening(proxy, port, tls=context):
            yield broker


async def test_what_a_service_says_by_tls_it_hears(behind_tls: Broker, database: Database) -> None:
    settings = RuntimeSettings(
        database_url="",
        kafka_bootstrap=behind_tls.bootstrap,
        kafka_security_protocol="SSL",
        kafka_ca=CA,
        kafka_idempotence=behind_tls.is_kafka,
    )

    await _says_and_hears(settings, database)


async def test_a_broker_whose_certificate_nobody_vouches_for_is_not_spoken_to(behind_tls: Broker) -> None:
    unknown = KafkaSettings(kafka_bootstrap=behind_tls.bootstrap, kafka_security_protocol="SSL")

    with pytest.raises(KafkaError, match="Unable to bootstrap"):
        await make_topics(unknown, partitions=1, replication=1)


async def test_a_name_and_its_password_open_a_broker_that_asks_for_them(stack: Stack, database: Database) -> None:
    if not isinstance(stack, Real):
        pytest.skip("the embedded broker asks for no password")
    with ContainerBroker(password="right") as broker:
        given = {
            "database_url": "",
            "kafka_bootstrap": broker.bootstrap,
            "kafka_security_protocol": "SASL_PLAINTEXT",
            "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": "nightshift",
        }
        await _says_and_hears(RuntimeSettings.model_validate(given | {"kafka_sasl_password": "right"}), database)

        wrong = RuntimeSettings.model_validate(given | {"kafka_sasl_password": "wrong"})
        with pytest.raises(KafkaError, match="Unable to bootstrap"):
            await make_topics(wrong, partitions=1, replication=1)


async def _says_and_hears(settings: RuntimeSettings, database: Database) -> None:
    heard: list[Record] = []

    async def take(records: Sequence[Record]) -> None:
        heard.extend(records)

    stop, producer = Stop(), Producer()
    link = Link(
        settings=settings,
        service="actor",
        database=database,
        subscriptions=[topics.CONTROL],
        take=take,
        producer=producer,
        relays=[],
    )
    said = event("said").to_record()
    async with asyncio.TaskGroup() as group:
        group.create_task(link.run(stop))
        await until(lambda: link.connected)
        assert await producer.publish([said]) == [None]
        await until(lambda: len(heard) > 0)
        stop.set()
    assert heard == [said]
