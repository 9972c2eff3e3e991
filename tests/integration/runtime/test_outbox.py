import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from uuid import UUID

from contracts.envelope import Record
from services.runtime import outbox
from services.runtime.config import RuntimeSettings
from services.runtime.kafka import Link
from services.runtime.kafka_clients import Producer
from services.runtime.postgres import Database
from services.runtime.relay import Relay
from services.runtime.stop import Stop, Wake
from tests.fakes.events import event, named
from tests.waiting import until

WAITS_FOR_A_LOCK = """
SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()
"""


class RememberingPublisher:
    def __init__(self) -> None:
        self.published: list[str] = []
        self.refuses: set[str] = set()
        self.is_down = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def publish(self, records: Sequence[Record]) -> Sequence[str | None]:
        if self.is_down:
            raise ConnectionError
        if records and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        self.published += [record.headers["ce_id"] for record in records]
        return ["too_large" if record.headers["ce_id"] in self.refuses else None for record in records]


def relay_of(database: Database) -> tuple[Relay, RememberingPublisher]:
    publisher = RememberingPublisher()
    return Relay(database, "actor", publisher, Wake()), publisher


async def test_a_row_committed_late_with_an_earlier_id_is_not_skipped(database: Database) -> None:
    relay, publisher = relay_of(database)
    async with database.pool.acquire() as slow, database.pool.acquire() as fast:
        early = slow.transaction()
        await early.start()
        await outbox.append(slow, [event("early")])
        async with fast.transaction():
            await outbox.append(fast, [event("late")])
        await relay.publish_once()
        before_commit = list(publisher.published)
        await early.commit()
    await relay.publish_once()

    assert before_commit == [str(named("late"))]
    assert publisher.published == [str(named("late")), str(named("early"))]


async def test_nothing_is_published_of_a_transaction_that_rolled_back(database: Database) -> None:
    relay, publisher = relay_of(database)
    async with database.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await outbox.append(connection, [event("undone")])
        await transaction.rollback()

    assert await relay.publish_once() == 0
    assert publisher.published == []


async def test_a_relay_that_meets_another_while_both_mark_the_same_rows_publishes_on(database: Database) -> None:
    relay, publisher = relay_of(database)
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO broker_epoch (epoch) VALUES (gen_random_uuid()) ON CONFLICT DO NOTHING")
        await outbox.append(connection, [event("one")])
    stop = Stop()
    async with asyncio.TaskGroup() as group, database.pool.acquire() as look:
        async with database.transaction() as other:
            await other.execute("SELECT FROM outbox FOR UPDATE")
            group.create_task(relay.run(stop))
            await until(lambda: look.fetchval(WAITS_FOR_A_LOCK))
            await other.execute("SELECT FROM broker_epoch FOR UPDATE")  # a deadlock: who waits longest is told so
        await until(lambda: look.fetchval("SELECT bool_and(published_at IS NOT NULL) FROM outbox"))
        stop.set()

    assert publisher.published == [str(named("one"))] * 2, "what it could not mark it published again"


async def test_a_broker_that_is_away_costs_no_event(database: Database) -> None:
    relay, publisher = relay_of(database)
    async with database.transaction() as connection:
        await outbox.append(connection, [event("one")])
    publisher.is_down = True
    try:
        await relay.publish_once()
    except ConnectionError:
        publisher.is_down = False

    assert await relay.publish_once() == 1
    assert await relay.publish_once() == 0


async def test_an_event_appended_twice_is_published_once(database: Database) -> None:
    relay, publisher = relay_of(database)
    for _ in range(2):
        async with database.transaction() as connection:
            await outbox.append(connection, [event("same")])

    await relay.publish_once()

    assert publisher.published == [str(named("same"))]


async def test_what_the_broker_refuses_is_marked_and_stops_nobody(database: Database) -> None:
    relay, publisher = relay_of(database)
    publisher.refuses.add(str(named("huge")))
    async with database.transaction() as connection:
        await outbox.append(connection, [event("huge"), event("small")])

    await relay.publish_once()
    await relay.publish_once()

    assert publisher.published.count(str(named("huge"))) == 1
    assert str(named("small")) in publisher.published
    async with database.connection() as connection:
        refused = await connection.fetch("SELECT work, code FROM dead_letters")
    assert [row["code"] for row in refused] == ["refused_by_broker"]


async def test_after_a_broker_forgot_everything_is_published_again(database: Database) -> None:
    relay, publisher = relay_of(database)
    async with database.transaction() as connection:
        await outbox.append(connection, [event("one"), event("two")])
    await relay.publish_once()

    async with database.transaction() as connection:
        await relay.publish_everything_again(connection)
    await relay.publish_once()

    assert publisher.published == [str(named("one")), str(named("two"))] * 2


async def test_what_a_broker_took_before_it_forgot_is_published_again_however_late_its_answer_is_recorded(
    database: Database,
) -> None:
    relay, publisher = relay_of(database)
    link = Link(
        settings=RuntimeSettings(database_url="", kafka_bootstrap="nowhere"),
        service="actor",
        database=database,
        subscriptions=[],
        take=publisher.publish,  # type: ignore[arg-type]  # never called
        producer=Producer(),
        relays=[relay],
    )
    await link._adopt(UUID(int=1))
    async with database.transaction() as connection:
        await outbox.append(connection, [event("one")])

    publisher.meanwhile = partial(link._adopt, UUID(int=2))  # another replica finds the new life first
    for _ in range(3):
        await relay.publish_once()

    assert publisher.published == [str(named("one"))] * 2
