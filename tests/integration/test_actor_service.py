"""The actor as it runs: a process of its own, on Postgres and the broker."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
from aiokafka import AIOKafkaProducer

from contracts.envelope import Record
from services.runtime.config import KafkaSettings
from services.runtime.make_topics import make_topics
from tests.conftest import MigratedDatabase
from tests.fakes.acting import PROCESSES, Bench, bench
from tests.stacks import Broker
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS_MAX = 60


async def test_a_proposal_on_the_topics_becomes_a_decision_and_sigterm_ends_it_in_time(
    migrated: MigratedDatabase, kafka: Broker, free_port: int
) -> None:
    settings = {
        "NIGHTSHIFT_DATABASE_URL": migrated.url("nightshift_actor"),
        **kafka.settings,
        "NIGHTSHIFT_HTTP_PORT": str(free_port),
        "NIGHTSHIFT_PROCESSES": "tiny",
        "NIGHTSHIFT_PROCESSES_FOLDER": str(PROCESSES),
    }
    await make_topics(KafkaSettings(kafka_bootstrap=kafka.bootstrap), partitions=4, replication=1)
    async with bench(migrated) as actor:
        change = actor.outside.says("actor-service")
        records = [
            (await actor.sealed(change)).to_record(),
            (await actor.proposal("actor-service", [change])).to_record(),
        ]
        await publish(kafka.bootstrap, records)
        run = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.actor", cwd=ROOT, env={**os.environ, **settings}
        )
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                # the connector `none` knows no such object: the effect is attempted and ends as gone
                await until(lambda: ended_as_gone(actor))
                async with httpx.AsyncClient() as client:
                    health = await client.get(f"http://127.0.0.1:{free_port}/healthz")
            run.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                ended = await run.wait()
        finally:
            if run.returncode is None:
                run.kill()
                await run.wait()

    assert health.status_code == 200
    assert ended == 0


async def publish(broker: str, records: list[Record]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    try:
        for record in records:
            headers = [(name, value.encode()) for name, value in record.headers.items()]
            await producer.send_and_wait(record.topic, record.body, key=record.key.encode(), headers=headers)
    finally:
        await producer.stop()


async def ended_as_gone(actor: Bench) -> bool:
    return "superseded" in (await actor.states()).values()
