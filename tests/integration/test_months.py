"""Bulky tables are kept by month: nothing is lost or said twice by it, and old months cost nobody anything."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import orjson
import pytest

from contracts.envelope import Record
from nightshift.doctor.outside import _months
from services.actor.handlers import effect_observed
from services.ingest.outbound import postgres as ingest
from services.reporter.domain.log import entry_of
from services.reporter.handlers.append import Appender, Projector
from services.reporter.outbound import event_log
from services.runtime import dead_letters, migrate as migration, months, outbox, tasks
from services.runtime.migrate import migrate
from services.runtime.postgres import Connection, Database, connect
from services.runtime.relay import Relay
from services.runtime.stop import Wake
from tests.conftest import MigratedDatabase
from tests.fakes.events import event, named
from tests.integration.ingest_app import comment, intake
from tests.unit.reporter.night import POLICY, night, records

FILES_BEFORE = {"control": 1, "runtime": 3, "after": 0, "ingest": 3, "classifier": 0, "actor": 3, "reporter": 3}
"""Of each folder of migrations: how many there were before there were months."""
WHOLE = (
    "actor.outbox",
    "classifier.outbox",
    "control.outbox",
    "ingest.deliveries",
    "ingest.outbox",
    "reporter.event_log",
    "reporter.outbox",
)
ROWS_OF_A_MONTH = 10_000
BACKLOG_ROWS = 20_000
LEASE = timedelta(seconds=1)
UNSWITCHED = False
"""Work that obeys no switch."""


class Publisher:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.published: list[str] = []

    async def publish(self, records: Sequence[Record]) -> Sequence[str | None]:
        self.published += [record.headers["ce_id"] for record in records]
        return [None] * len(records)


@asynccontextmanager
async def as_owner(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET timezone = 'UTC'")
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Database]:
    async with connect(migrated.url("nightshift_actor"), schema="actor") as database:
        yield database


@pytest.fixture
async def reporter(migrated: MigratedDatabase) -> AsyncIterator[Database]:
    async with connect(migrated.url("nightshift_reporter"), schema="reporter") as database:
        yield database


@pytest.fixture
def before_months(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """The migrations as they were before; undone, all of them are there again."""
    then = {}
    for scope, (service, folder) in migration.folders().items():
        then[scope] = (service, tmp_path / scope)
        (tmp_path / scope).mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.sql"))[: FILES_BEFORE[scope.rpartition("/")[2]]]:
            shutil.copy(file, tmp_path / scope)

    async def make_none(_: object) -> None:
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migration, "folders", lambda: then)
        patch.setattr(migration, "_make_months", make_none)
        yield patch


def appender(database: Database) -> Appender:
    return Appender(event_log.PostgresStore(database), Projector({"support": POLICY}))


def month_after(months_: int) -> datetime:
    """The middle of the month that comes so many months after this one."""
    now = datetime.now(UTC)
    year, month = divmod(now.year * 12 + now.month - 1 + months_, 12)
    return datetime(year, month + 1, 15, tzinfo=UTC)


async def say(database: Database, *names: str, at: datetime | None = None, url: str = "") -> None:
    """Owe events; `at` another time, which the owner has to write."""
    async with database.transaction() as connection:
        await outbox.append(connection, [event(name) for name in names])
    if at is not None:
        async with as_owner(url) as owner:
            await owner.execute(
                "UPDATE actor.outbox SET created_at = $1 WHERE event_id = ANY($2)", at, [named(name) for name in names]
            )


async def published_by(database: Database) -> list[str]:
    publisher = Publisher()
    relay = Relay(database, "actor", publisher, Wake())
    while await relay.publish_once():
        pass
    return publisher.published


async def count(database: Database, table: str) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


OLD_ROWS = """
INSERT INTO control.switches (process, paused) VALUES ('support', false);
INSERT INTO actor.outbox (event_id, topic, key, headers, body, created_at, published_at)
SELECT gen_random_uuid(), 't', 'k', '{}', 'old', now() - n * interval '9 days', now() FROM generate_series(0, 99) n;
INSERT INTO actor.outbox (event_id, topic, key, headers, body)
SELECT gen_random_uuid(), 't', 'k', jsonb_build_object('ce_id', 'waits ' || n), 'old' FROM generate_series(1, 3) n;
INSERT INTO actor.outbox (event_id, topic, key, headers, body, refused)
VALUES ('00000000-0000-0000-0000-00000000cafe', 't', 'k', '{}', 'old', 'too_large');
INSERT INTO ingest.deliveries (delivery, about, body)
SELECT gen_random_uuid(), '{}', 'old' FROM generate_series(1, 9);
SELECT setval('actor.outbox_id_seq', 1000);
"""
OLD_ENTRY = """
INSERT INTO reporter.event_log (event_id, topic, type, process, case_id, time, headers, body)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8)
"""
EVERYTHING = {
    "control.outbox": "SELECT id, event_id, topic, key, headers, body, created_at, published_at FROM {} ORDER BY id",
    "actor.outbox": "SELECT id, event_id, topic, body, created_at, published_at, refused FROM {} ORDER BY id",
    "ingest.deliveries": "SELECT id, delivery, about::text, body, stored_at FROM {} ORDER BY id",
    "reporter.event_log": "SELECT position, event_id, type, case_id, time, body, appended_at FROM {} ORDER BY position",
}


async def test_an_old_states_rows_are_all_there_after_the_upgrade(
    database_url: str, before_months: pytest.MonkeyPatch
) -> None:
    await migrate(database_url)
    async with as_owner(database_url) as owner:
        await owner.execute(OLD_ROWS)
        for record in records(night(2)):
            e = entry_of(record)
            headers = orjson.dumps(e.headers).decode()
            await owner.execute(OLD_ENTRY, e.event_id, e.topic, e.type, e.process, e.case_id, e.time, headers, e.body)
        old = {table: await owner.fetch(sql.format(table)) for table, sql in EVERYTHING.items()}

        before_months.undo()
        await migrate(database_url)

        assert {table: await owner.fetch(sql.format(table)) for table, sql in EVERYTHING.items()} == old
        assert [row[0] for row in await owner.fetch("SELECT DISTINCT whole::text FROM control.months ORDER BY 1")] == [
            *WHOLE
        ]
        said = next(row["event_id"] for row in old["actor.outbox"] if row["published_at"])
        await owner.execute("SET ROLE nightshift_actor; SET search_path = actor")
        for event_id in (said, named("new")):
            await owner.execute(outbox._APPEND, [event_id], ["t"], ["k"], ["{}"], [b"since"])
        assert [row[0] for row in await owner.fetch("SELECT id FROM outbox WHERE body = 'since'")] == [1001]
        refused = UUID("00000000-0000-0000-0000-00000000cafe")
        assert await owner.fetchval(dead_letters._OWE_AGAIN, refused) == 1
        waiting = await owner.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL AND refused IS NULL")
        assert waiting == 3 + 1 + 1
        await owner.execute("RESET ROLE; SET ROLE nightshift_reporter")
        e = entry_of(records(night(1))[0])
        columns = [[one] for one in (e.event_id, e.topic, e.type, e.process, e.case_id, e.time, None, "{}", e.body)]
        assert await owner.fetch(event_log._APPEND, *columns) == []


async def test_a_replay_a_year_later_is_recognised_also_when_its_month_was_detached(
    migrated: MigratedDatabase, actor: Database, reporter: Database
) -> None:
    told = records(night(1))
    await say(actor, "once")
    await appender(reporter).take(told)
    async with intake(migrated.url("nightshift_ingest")) as running:
        await running.zendesk(comment("e1"), "i1")
        async with as_owner(migrated.admin_url) as owner:
            for table in ("actor.outbox", "ingest.outbox", "ingest.deliveries", "reporter.event_log"):
                await owner.execute(f"ALTER TABLE {table} DETACH PARTITION {table}_before")
            await owner.execute("TRUNCATE ingest.seen")

        await say(actor, "once")
        await appender(reporter).take(told)
        again = await running.zendesk(comment("e1"), "i2")

        assert again.json["duplicate"] is True
        assert await count(actor, "actor.outbox") == await count(reporter, "reporter.event_log") == 0
        assert await running.count("outbox") == await running.count("deliveries") == 0


async def test_a_month_that_nobody_made_loses_nothing(migrated: MigratedDatabase, actor: Database) -> None:
    names = ["now", "next year", "the year after"]
    await say(actor, "now")
    await say(actor, "next year", at=month_after(12), url=migrated.admin_url)
    await say(actor, "the year after", at=month_after(24), url=migrated.admin_url)
    assert await count(actor, "outbox_default") == 2

    assert await published_by(actor) == [str(named(name)) for name in names]
    assert await months.make_months(actor, ["actor.outbox"]) == 2

    assert await count(actor, "outbox_default") == 0
    assert await count(actor, "outbox") == 3
    assert await count(actor, f"outbox_{month_after(12):%Y_%m}") == 1
    await say(actor, *names, "one more")
    assert await count(actor, "outbox") == 4
    assert await months.make_months(actor, ["actor.outbox"]) == 0


LATE_ENTRY = """
INSERT INTO reporter.event_log (event_id, topic, type, process, case_id, time, headers, body, appended_at)
VALUES (gen_random_uuid(), 't', 'late', 'p', 'c', now(), '{}', 'late', $1)
"""


async def test_the_logs_protection_holds_on_every_month_also_on_new_ones(
    migrated: MigratedDatabase, reporter: Database
) -> None:
    await appender(reporter).take(records(night(1)))
    async with as_owner(migrated.url("postgres")) as owner:
        await owner.execute(LATE_ENTRY, month_after(12))
        assert await months.make_months(reporter, [], shared=["reporter.event_log", "control.outbox"]) == 1
        assert await owner.fetchval(f"SELECT type FROM reporter.event_log_{month_after(12):%Y_%m}") == "late"
        parts = [
            row[0]
            for row in await owner.fetch(
                "SELECT part::text FROM control.months WHERE whole = 'reporter.event_log'::regclass"
            )
        ]
        assert len(parts) == 6

        for trick in ("SET session_replication_role = replica", "SET ROLE nightshift_reporter"):
            await owner.execute(trick)
            for table in ("reporter.event_log", "reporter.event_log_known", *parts):
                for order in ("UPDATE {} SET event_id = NULL", "DELETE FROM {}", "TRUNCATE {}"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await owner.execute(order.format(table))
        for way in (
            f"ALTER TABLE reporter.event_log DETACH PARTITION {parts[0]}",
            f"DROP TABLE {parts[0]}",
            "SELECT control.make_months('reporter.event_log', 12)",
            "SELECT control.make_shared_months('actor.outbox')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await owner.execute(way)
    assert await count(reporter, "event_log") == len(night(1)) + 1


async def test_unpublished_rows_of_other_months_are_published_and_after_a_broker_forgot_all_are(
    migrated: MigratedDatabase, actor: Database
) -> None:
    url = migrated.admin_url
    await say(actor, "last month", at=month_after(-1), url=url)
    await say(actor, "this month")
    await say(actor, "next month", at=month_after(1), url=url)
    await say(actor, "in a year", at=month_after(12), url=url)
    said = [str(named(name)) for name in ("last month", "this month", "next month", "in a year")]

    assert await published_by(actor) == said
    assert await published_by(actor) == []

    async with actor.transaction() as connection:
        await Relay(actor, "actor", Publisher(), Wake()).publish_everything_again(connection)
    assert await published_by(actor) == said


MANY_ROWS = """
INSERT INTO actor.outbox (event_id, topic, key, headers, body, created_at, published_at)
SELECT gen_random_uuid(), 't', 'k', '{}', 'x', $1, now() FROM generate_series(1, $2);
"""
MANY_ENTRIES = """
INSERT INTO reporter.event_log (event_id, topic, type, process, case_id, time, headers, body, appended_at)
SELECT gen_random_uuid(), 't', 'y', 'p', 'p:d:' || n % 500, $1, '{}', 'x', $1 FROM generate_series(1, $2) n
"""
SCANNED = """
SELECT relname, seq_scan + coalesce(idx_scan, 0) AS scans, seq_tup_read FROM pg_stat_xact_user_tables
WHERE schemaname = current_schema()
"""
MANY_TASKS = """
INSERT INTO actor.tasks (case_id, kind, process, basis, cause, correlation_id, state)
SELECT 'p:d:' || n, 'decide', 'p', 'b', gen_random_uuid(), gen_random_uuid(),
       CASE WHEN n % 500 = 0 OR n <= $2 THEN 'open' ELSE 'done' END
FROM generate_series(1, $1) n
"""
MANY_LOOKS = """
INSERT INTO actor.looks (case_id, destination, process, due_at)
SELECT 'p:d:' || n, 'zendesk', 'p', clock_timestamp() + interval '1 hour' * sign(n % 2) - interval '1 minute'
FROM generate_series(1, $1) n
"""


async def test_reads_of_one_case_and_one_claim_look_into_indexes_only(
    migrated: MigratedDatabase, actor: Database, reporter: Database
) -> None:
    async with as_owner(migrated.admin_url) as owner:
        for month in (-1, 1, 2, 3):
            await owner.execute(MANY_ROWS, month_after(month), ROWS_OF_A_MONTH)
            await owner.execute(MANY_ENTRIES, month_after(month), ROWS_OF_A_MONTH)
        await owner.execute(MANY_TASKS, ROWS_OF_A_MONTH, 0)
        await owner.execute("ANALYZE actor.outbox, actor.tasks, reporter.event_log")
        row_id = await owner.fetchval("SELECT id FROM actor.outbox WHERE created_at = $1 LIMIT 1", month_after(1))
    relay = Relay(actor, "actor", Publisher(), Wake())
    at = month_after(1)

    async with connect(migrated.url("nightshift_ingest"), schema="ingest") as intake_:
        delivery = await scanned(intake_, ingest._OPEN, 1)
    found = {
        "a stored delivery": delivery,
        "the case's entries": await scanned(reporter, event_log._READ, ["p:d:7"], 10),
        "how many they are": await scanned(reporter, event_log._COUNT, ["p:d:7"], 10),
        "rows to publish": await scanned(actor, relay._take, 10),
        "published rows": await scanned(actor, relay._mark, [row_id], [at], [None], at, at, None),
        "a refused row": await scanned(actor, dead_letters._OWE_AGAIN, named("x")),
        "one more row": await scanned(actor, outbox._APPEND, [named("x")], ["t"], ["k"], [{}], [b""]),
        "a claim": await scanned(actor, tasks._CLAIM, "p", "decide", 10, LEASE, UNSWITCHED),
    }

    assert {what: {table for table, rows in tables.items() if rows} for what, tables in found.items()} == {
        what: set() for what in found
    }
    months = [table for table in found["published rows"] if table.startswith("outbox_2")]
    assert months == [f"outbox_{at:%Y_%m}"], "the other months are not even opened"


async def test_a_claim_from_a_backlog_reads_what_it_takes_and_not_the_whole_table(
    migrated: MigratedDatabase, actor: Database
) -> None:
    async with as_owner(migrated.admin_url) as owner:
        await owner.execute(MANY_TASKS, BACKLOG_ROWS, BACKLOG_ROWS)
        await owner.execute(MANY_LOOKS, BACKLOG_ROWS)
        await owner.execute("ANALYZE actor.tasks, actor.looks")

    found = {
        "tasks": await scanned(actor, tasks._CLAIM, "p", "decide", 64, LEASE, UNSWITCHED),
        "looks": await scanned(actor, effect_observed._CLAIM, "p", "zendesk", LEASE, 32),
    }

    assert {what: tables[what] < BACKLOG_ROWS // 10 for what, tables in found.items()} == {"tasks": True, "looks": True}


async def scanned(database: Database, sql: str, *args: object) -> dict[str, int]:
    """The schema's tables that a statement planned once reads, with how many rows each without an index."""
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        before = {row["relname"]: row for row in await connection.fetch(SCANNED)}
        await connection.fetch(sql, *args)
        return {
            row["relname"]: row["seq_tup_read"] - before[row["relname"]]["seq_tup_read"]
            for row in await connection.fetch(SCANNED)
            if row["scans"] > before[row["relname"]]["scans"]
        }


async def test_the_doctor_tells_when_nobody_made_next_month(migrated: MigratedDatabase) -> None:
    async with as_owner(migrated.admin_url) as owner:
        assert [verdict.level for verdict in await _months(owner)] == ["ok"]

        await owner.execute(f"DROP TABLE actor.outbox_{month_after(1):%Y_%m}")

        (verdict,) = await _months(owner)
        assert verdict.level == "warning"
        assert "actor.outbox;" in verdict.text
        assert await migrate(migrated.admin_url) == []
        assert [verdict.level for verdict in await _months(owner)] == ["ok"]
        assert (
            await owner.fetchval(
                f"SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'outbox_{month_after(1):%Y_%m}' "
                "AND relnamespace = 'actor'::regnamespace"
            )
            == "nightshift_actor"
        )


async def test_months_are_made_by_several_at_once_and_later_while_somebody_reads_for_long(
    migrated: MigratedDatabase, actor: Database
) -> None:
    async with as_owner(migrated.admin_url) as owner:
        await owner.execute(f"DROP TABLE actor.outbox_{month_after(2):%Y_%m}")
        async with owner.transaction():
            await owner.execute("SELECT count(*) FROM actor.outbox")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await months.make_months(actor, ["actor.outbox"])
            await say(actor, "meanwhile")

    made = await asyncio.gather(*(months.make_months(actor, ["actor.outbox"]) for _ in range(4)))

    assert sorted(made) == [0, 0, 0, 1]
