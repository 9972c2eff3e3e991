"""The reporter made anew from the topics alone is the live one, byte for byte; a switch loses nothing that arrives."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import asyncpg
import pytest

from contracts import generate
from contracts.envelope import Record
from contracts.events import REGISTRY
from nightshift import MendableError
from nightshift.replay import reporter
from nightshift.replay.reporter import NotSwitchedError, Replayed, replay_topics
from services.reporter.app import policies_of, rebuild
from services.reporter.config import RebuildSettings
from services.reporter.handlers.append import Appender, Projector
from services.reporter.outbound.event_log import PostgresStore, digest
from services.runtime.postgres import Database, connect
from tests.conftest import MigratedDatabase
from tests.fakes.events import event
from tests.fakes.topics import found, groups, publish
from tests.stacks import Stack
from tests.unit.reporter.night import night, records, tell, unknown_record

POLICIES = policies_of(RebuildSettings(database_url=""))


@pytest.fixture(scope="module")
def our_broker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of these tests alone: each makes the topics anew."""
    with stack.broker(tmp_path_factory.mktemp("broker")) as server:
        yield server.bootstrap


@pytest.fixture
async def history(our_broker: str) -> str:
    """Topics of this test alone, empty."""
    await found(our_broker)
    return our_broker


@pytest.fixture
async def database(migrated: MigratedDatabase) -> AsyncIterator[Database]:
    async with connect(migrated.url("nightshift_reporter"), schema="reporter", connections_max=4) as opened:
        yield opened


def live(database: Database) -> Appender:
    return Appender(PostgresStore(database), Projector(POLICIES))


async def digest_of(database: Database) -> str:
    async with database.connection() as connection:
        return await digest(connection)


async def replay(migrated: MigratedDatabase, history: str, *, switch: bool = False) -> Replayed:
    return await replay_topics(migrated.admin_url, history, switch=switch, in_flight_seconds=0.2)


async def test_the_topics_alone_give_the_same_bytes_and_no_group_notices(
    migrated: MigratedDatabase, history: str, database: Database
) -> None:
    told = [*records(night(40)), unknown_record()]
    await publish(history, told)
    await live(database).take(told)
    before, known = await digest_of(database), await groups(history)

    done = await replay(migrated, history)

    assert not done.differences
    assert (done.events, done.digest, done.switched) == (len(told), before, False)
    assert await groups(history) == known
    admin = await asyncpg.connect(migrated.admin_url)
    assert await admin.fetchval("SELECT to_regclass('replay.projections') IS NULL"), "it leaves nothing behind"
    assert await admin.fetchval("SELECT count(*) FROM replay.entries") == 0
    await admin.close()


async def test_it_says_which_cases_differ_and_a_switch_mends_them(
    migrated: MigratedDatabase, history: str, database: Database
) -> None:
    lost = records(tell("77", "answered"))
    told = [*records(night(10)), *lost]
    await publish(history, told)
    await live(database).take(told)
    right = await digest_of(database)
    async with database.connection() as connection:
        await connection.execute("UPDATE projections SET state = 'odd' WHERE case_id = 'support:zendesk:1003'")
        await connection.execute("UPDATE totals SET amount = amount + 1 WHERE name = 'cases'")

    compared = await replay(migrated, history)
    switched = await replay(migrated, history, switch=True)

    assert compared.differences.cases == {"support:zendesk:1003": ["other rows"]}
    assert switched.differences.cases == compared.differences.cases
    assert await digest_of(database) == switched.digest == right
    await rebuild(database, POLICIES)
    assert await digest_of(database) == right
    assert not (await replay(migrated, history)).differences


async def test_what_the_log_never_got_is_named_and_a_switch_adds_it(
    migrated: MigratedDatabase, history: str, database: Database
) -> None:
    told = records(night(6))
    await publish(history, told)
    await live(database).take(told[:-9])

    compared = await replay(migrated, history)
    await replay(migrated, history, switch=True)
    added = await replay(migrated, history)

    assert {what for whats in compared.differences.cases.values() for what in whats} == {"not in the log"}
    assert set(compared.differences.cases) == {record.headers["ce_subject"] for record in told[-9:]}
    assert not added.differences
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM event_log") == len(told)
    await live(database).take(told)  # its consumer comes to them later
    assert await digest_of(database) == added.digest


async def test_nothing_is_switched_where_the_log_would_lose_something(
    migrated: MigratedDatabase, history: str, database: Database
) -> None:
    told = records(night(6))
    await publish(history, told[:-1])
    await live(database).take(told)
    before = await digest_of(database)

    with pytest.raises(NotSwitchedError, match="not on the topics"):
        await replay(migrated, history, switch=True)

    assert await digest_of(database) == before
    compared = await replay(migrated, history)
    assert list(compared.differences.cases.values()) == [["not on the topics"]]


async def test_what_arrives_while_it_switches_is_not_lost_and_the_appender_goes_on(
    migrated: MigratedDatabase, history: str, database: Database
) -> None:
    first, rest = records(night(15)), records(night(40, first=5000))
    await publish(history, first)
    appender = live(database)
    await appender.take(first)
    stop = asyncio.Event()

    async def keep_coming() -> Sequence[Record]:
        sent: list[Record] = []
        for start in range(0, len(rest), 7):
            batch = rest[start : start + 7]
            await publish(history, batch)
            await appender.take(batch)
            sent += batch
            if stop.is_set():
                break
        return sent

    async with asyncio.TaskGroup() as group:
        coming = group.create_task(keep_coming())
        done = await replay_topics(migrated.admin_url, history, switch=True, in_flight_seconds=1.0)
        stop.set()
    sent = coming.result()
    await appender.take(rest)

    assert not done.differences
    assert done.switched
    assert sent
    swapped = await digest_of(database)
    await rebuild(database, POLICIES)
    assert await digest_of(database) == swapped
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM event_log") == len(
            {record.headers["ce_id"] for record in (*first, *rest)}
        )


async def test_an_interrupted_replay_goes_on_where_it_stopped(
    migrated: MigratedDatabase, history: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "CASES_PER_BATCH_MAX", 7)
    told = records(night(40))
    await publish(history, told)
    await live(database).take(told)
    seen: list[tuple[str, int]] = []

    def interrupt(phase: str, done: int, total: int) -> None:
        seen.append((phase, done))
        if phase == "projecting cases" and done >= 14 and total > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await replay_topics(migrated.admin_url, history, in_flight_seconds=0.2, progress=interrupt)
    seen.clear()
    done = await replay_topics(
        migrated.admin_url, history, in_flight_seconds=0.2, progress=lambda phase, n, _: seen.append((phase, n))
    )

    assert done.resumed
    assert not done.differences
    assert done.events == len(told)
    assert [phase for phase, _ in seen if phase == "reading topics"] == []
    assert max(n for phase, n in seen if phase == "projecting cases") < 41


async def test_a_log_written_by_the_first_version_of_every_contract_still_replays(
    migrated: MigratedDatabase, history: str, database: Database
) -> None:
    told = []
    for example in sorted(generate.EXAMPLES.glob("*.1.json")):
        event_type = example.name.rsplit(".", 2)[0]
        data = REGISTRY[event_type].model_validate_json(example.read_bytes())
        record = event(example.name, data, case_id="support:zendesk:42").to_record()
        told.append(record._replace(body=example.read_bytes()))
    await publish(history, told)
    await live(database).take(told)

    done = await replay(migrated, history)

    assert not done.differences
    assert done.events == len(told)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM projections WHERE kind = 'unread'") == 0


async def test_one_replay_at_a_time_and_no_broker_is_said_in_a_sentence(
    migrated: MigratedDatabase, history: str, free_port: int
) -> None:
    async with connect(migrated.admin_url, schema="replay") as other, other.connection() as connection:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended('nightshift.replay', 0))")
        with pytest.raises(MendableError, match="another replay runs"):
            await replay(migrated, history)

    with pytest.raises(MendableError, match="does not answer"):
        await replay(migrated, f"127.0.0.1:{free_port}")


_MAY_WRITE = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind IN ('r', 'p', 'v', 'S') AND c.relnamespace::regnamespace::text = ANY($1)
  AND has_table_privilege('nightshift_replay', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
"""
_MAY_MAKE = """
SELECT nspname FROM pg_namespace
WHERE nspname NOT IN ('replay') AND nspname !~ '^pg_' AND has_schema_privilege('nightshift_replay', oid, 'CREATE')
"""

_MEMBER_OF = "SELECT roleid::regrole FROM pg_auth_members WHERE member = 'nightshift_replay'::regrole"


async def test_the_role_of_a_replay_can_write_to_no_schema_but_its_own(migrated: MigratedDatabase) -> None:
    services = ["ingest", "classifier", "actor", "reporter", "control", "vault", "nightshift"]
    admin = await asyncpg.connect(migrated.admin_url)
    try:
        assert await admin.fetch(_MAY_WRITE, services) == []
        assert await admin.fetch(_MAY_MAKE) == []
        assert await admin.fetch(_MEMBER_OF) == []
    finally:
        await admin.close()
