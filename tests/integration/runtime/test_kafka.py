import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from contracts import topics
from contracts.base import Fact
from contracts.envelope import Event
from contracts.events.control import ProcessPaused
from nightshift.embedded.broker import EmbeddedBroker
from services.runtime import outbox
from services.runtime.config import RuntimeSettings
from services.runtime.inbox import Inbox
from services.runtime.kafka import Link, Producer
from services.runtime.postgres import Connection, Database
from services.runtime.relay import Relay
from services.runtime.stop import Stop, Wake
from tests.fakes.events import event, named

PATIENCE_SECONDS = 40


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_broker_that_forgot_gets_everything_again_and_consumers_ignore_what_they_know(
    database: Database, tmp_path: Path
) -> None:
    handled: list[UUID] = []

    async def handle(connection: Connection, events: list[Event[Fact]]) -> None:
        del connection
        handled.extend(one.event_id for one in events)

    stop, wake, producer = Stop(), Wake(), Producer()
    inbox = Inbox(database, "actor", {ProcessPaused: handle})  # type: ignore[dict-item]  # a list is a Sequence
    relay = Relay(database, "actor", producer, wake)
    with EmbeddedBroker(tmp_path) as broker:
        link = Link(
            settings=RuntimeSettings(database_url="", kafka_bootstrap=broker.bootstrap),
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
            broker.start()
            await until(lambda: named("while it is away") in handled)
            async with database.connection() as connection:
                owed = await connection.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")
            stop.set()

    assert handled == [named("before"), named("while it is away")], "published twice, handled once"
    assert owed == 0
