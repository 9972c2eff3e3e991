from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from contracts.topics import CONTROL
from nightshift.demo.privacy import search
from services.runtime.config import KafkaSettings
from services.runtime.make_topics import make_topics
from tests.conftest import MigratedDatabase

SAID = {"support:zendesk:1": "Où est ma commande, je l'attends depuis lundi"}
_UNREAD = """
INSERT INTO ingest.unread (event_id, topic, type, headers, body) VALUES (gen_random_uuid(), '', '', $1::jsonb, $2)
"""


@pytest.fixture
async def topics_of(broker: str) -> str:
    await make_topics(KafkaSettings(kafka_bootstrap=broker), partitions=4, replication=1)
    return broker


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("{}", b"before Ou\xcc\x80? no: O\xc3\xb9 est ma commande, je l'attends depuis lundi, after"),
        ("{}", b'{"text": "O\\u00f9 est ma commande, je l\'attends depuis lundi"}'),
        ('{"said": "Où est ma commande, je l\'attends depuis lundi"}', b""),
    ],
    ids=["bytes", "bytes that hold JSON in ASCII", "jsonb"],
)
async def test_words_that_lie_in_a_table_are_found_whatever_the_column_and_the_writing(
    migrated: MigratedDatabase, topics_of: str, headers: str, body: bytes
) -> None:
    connection = await asyncpg.connect(migrated.admin_url)
    await connection.execute(_UNREAD, headers, body)
    await connection.close()

    found = await search(migrated.admin_url, topics_of, [], SAID)

    assert found.places == ("table ingest.unread",)


async def test_words_that_lie_in_a_log_are_found(migrated: MigratedDatabase, topics_of: str, tmp_path: Path) -> None:
    log, other = tmp_path / "actor.log", tmp_path / "ingest.log"
    log.write_text(f'{{"event": "{SAID["support:zendesk:1"]}"}}\n')
    other.write_text('{"event": "ready"}\n')

    found = await search(migrated.admin_url, topics_of, [log, other], SAID)

    assert found.places == ("log actor.log",)


async def test_words_that_lie_in_a_topic_are_found(migrated: MigratedDatabase, topics_of: str) -> None:
    words = "only this test says these very words about a parcel"  # topics are shared by all tests
    producer = AIOKafkaProducer(bootstrap_servers=topics_of)
    await producer.start()
    await producer.send_and_wait(CONTROL, f"before {words} after".encode())
    await producer.stop()

    found = await search(migrated.admin_url, topics_of, [], {"support:zendesk:1": words})

    assert found.places == (f"topic {CONTROL}",)


async def test_where_nothing_lies_in_clear_nothing_is_found_and_what_is_not_there_does_not_open(
    migrated: MigratedDatabase, topics_of: str
) -> None:
    found = await search(migrated.admin_url, topics_of, [], SAID)

    assert found.places == ()
    assert (found.pieces, found.opened) == (1, 0)
