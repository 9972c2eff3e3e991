import asyncio
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import REGISTRY

from contracts import topics
from services.runtime import lag, outbox
from services.runtime.figures import Figures
from services.runtime.inbox import Inbox
from services.runtime.kafka import Link
from services.runtime.kafka_clients import Producer
from services.runtime.postgres import Database
from services.runtime.relay import Relay
from services.runtime.stop import Stop, Wake
from tests.fakes.events import event
from tests.integration.runtime.test_kafka import settings_of
from tests.stacks import Broker
from tests.waiting import until


def figure(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"nightshift_{name}", labels)


async def test_what_the_broker_did_not_take_is_told_while_it_is_away(database: Database) -> None:
    async with database.transaction() as connection:
        await outbox.append(connection, [event("one"), event("two")])
        await connection.execute("UPDATE outbox SET refused = 'too_large' WHERE id = (SELECT max(id) FROM outbox)")

    await Figures(database, "actor", outboxes=["actor"]).look()

    assert figure("outbox_unpublished", schema="actor") == 1, "what is refused waits for a person, not for the broker"
    assert 0 < (figure("outbox_oldest_unpublished_seconds", schema="actor") or 0) < 60


async def test_the_oldest_work_is_told_by_process_and_kind(database: Database) -> None:
    async def age() -> float:
        return 12.5

    await Figures(database, "actor", outboxes=[], oldest={("support", "decide"): age}).look()

    told = figure("oldest_claimable_task_seconds", service="actor", process="support", kind="decide")
    assert told == 12.5


async def test_what_a_group_has_not_committed_is_its_lag(
    database: Database, kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "LOOK_SECONDS", 0.1)
    settings, producer, inbox = settings_of(kafka), Producer(), Inbox(database, "actor", {})
    relay = Relay(database, "actor", producer, Wake())
    async with database.transaction() as connection:
        await outbox.append(connection, [event("lag")])

    async def live(subscriptions: Sequence[str], told: Callable[[float], bool]) -> None:
        """The service with these subscriptions, until its lag is as it should be."""
        stop = Stop()
        link = Link(
            settings=settings,
            service="actor",
            database=database,
            subscriptions=subscriptions,
            take=inbox.take,
            producer=producer,
            relays=[relay],
        )
        async with asyncio.TaskGroup() as group:
            for part in (link, relay, lag.Lag(settings, "actor", database, [topics.CONTROL])):
                group.create_task(part.run(stop))
            await until(lambda: told(figure("consumer_lag_records", service="actor", topic=topics.CONTROL) or 0))
            stop.set()

    await live([], lambda behind: behind > 0)
    await live([topics.CONTROL], lambda behind: behind == 0)
