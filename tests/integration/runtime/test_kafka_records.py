"""What comes over the wire is taken whole, and a start that fails leaves nobody behind."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from contracts import topics
from contracts.envelope import Record
from nightshift.embedded.broker import EmbeddedBroker
from services.runtime import kafka
from services.runtime.config import RuntimeSettings
from services.runtime.kafka import Link, Take
from services.runtime.kafka_clients import Consumer, Producer
from services.runtime.postgres import Database
from services.runtime.stop import Stop
from tests.waiting import until


def link_to(broker: EmbeddedBroker, database: Database, subscriptions: Sequence[str], take: Take) -> Link:
    return Link(
        settings=RuntimeSettings(database_url="", kafka_bootstrap=broker.bootstrap, kafka_idempotence=False),
        service="actor",
        database=database,
        subscriptions=subscriptions,
        take=take,
        producer=Producer(),
        relays=[],
    )


async def pass_over(records: Sequence[Record]) -> None:
    del records


async def test_a_record_with_headers_that_nobody_can_read_takes_no_other_with_it(
    database: Database, tmp_path: Path
) -> None:
    taken: list[Record] = []

    async def take(records: Sequence[Record]) -> None:
        taken.extend(records)

    stop = Stop()
    with EmbeddedBroker(tmp_path) as broker:
        link = link_to(broker, database, [topics.CONTROL], take)
        async with asyncio.TaskGroup() as group:
            group.create_task(link.run(stop))
            await until(lambda: link.connected)
            async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as foreign:
                for headers in ([], [("a", b"\xff")], [("a", None)], []):
                    await foreign.send(topics.CONTROL, b"{}", key=b"one partition", headers=headers)
            await until(lambda: len(taken) == 4)
            stop.set()

    assert [record.headers for record in taken] == [{}, {"a": "\ufffd"}, {"a": ""}, {}]


@pytest.mark.parametrize(
    ("fails", "hangs"),
    [
        pytest.param(1, False, id="the watch"),
        pytest.param(3, False, id="a topic's, beside two that run"),
        pytest.param(3, True, id="a topic's that never comes to its end"),
    ],
)
async def test_consumers_of_a_start_that_failed_halfway_are_stopped_and_the_next_start_is_whole(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int, *, hangs: bool
) -> None:
    usual_seconds = kafka.START_SECONDS_MAX
    if hangs:
        monkeypatch.setattr(kafka, "START_SECONDS_MAX", 0.1)
    starts: list[Consumer] = []
    running: set[Consumer] = set()
    start, end = Consumer.start, Consumer.stop

    async def start_or_fail(consumer: Consumer) -> None:
        starts.append(consumer)
        running.add(consumer)
        if len(starts) == fails and hangs:
            monkeypatch.setattr(kafka, "START_SECONDS_MAX", usual_seconds)
            await asyncio.Event().wait()
        if len(starts) == fails:
            raise KafkaConnectionError("the broker went away")
        await start(consumer)

    async def stop_and_tell(consumer: Consumer) -> None:
        running.discard(consumer)
        await end(consumer)

    monkeypatch.setattr(Consumer, "start", start_or_fail)
    monkeypatch.setattr(Consumer, "stop", stop_and_tell)
    stop = Stop()
    with EmbeddedBroker(tmp_path) as broker:
        link = link_to(broker, database, [topics.CONTROL, topics.CASES], pass_over)
        async with asyncio.TaskGroup() as group:
            group.create_task(link.run(stop))
            await until(lambda: link.connected)
            stop.set()

    assert running == set()


async def test_a_link_that_closes_says_that_it_is_not_connected_however_long_that_takes(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, may_end, end = asyncio.Event(), asyncio.Event(), Consumer.stop

    async def stop_slowly(consumer: Consumer) -> None:
        closing.set()
        await may_end.wait()
        await end(consumer)

    async def another_life(watch: Consumer) -> UUID:
        del watch
        return uuid4()

    stop = Stop()
    with EmbeddedBroker(tmp_path) as broker:
        link = link_to(broker, database, [], pass_over)
        async with asyncio.TaskGroup() as group:
            group.create_task(link.run(stop))
            await until(lambda: link.connected)
            monkeypatch.setattr(Consumer, "stop", stop_slowly)
            monkeypatch.setattr(kafka, "read_epoch", another_life)
            await closing.wait()
            said = await link.check()
            stop.set()
            may_end.set()

    assert said == "the broker is not connected"
