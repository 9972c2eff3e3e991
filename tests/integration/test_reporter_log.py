"""The log only grows, and the projections are what the log says: whatever the order, and after a rebuild."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from contracts.envelope import Record
from services.reporter.app import heal, rebuild, version_of
from services.reporter.domain.log import Told
from services.reporter.domain.projection import Projected
from services.reporter.domain.sla import Policy
from services.reporter.handlers.append import Appender, Projector
from services.reporter.handlers.rebuild import rebuild as rebuild_tables
from services.reporter.outbound.event_log import ENTRIES_OF_CASE_MAX, PostgresStore, digest
from services.reporter.outbound.rebuilding import RebuildRunsError, projected_by, rebuilding
from services.runtime.migrate import migrate
from services.runtime.postgres import Database, connect
from services.runtime.stop import Stop
from tests.conftest import MigratedDatabase
from tests.unit.reporter.night import POLICY, night, records, tell, unknown_record

POLICIES: dict[str, Policy] = {"support": POLICY}


@pytest.fixture
async def database(migrated: MigratedDatabase) -> AsyncIterator[Database]:
    async with connect(migrated.url("nightshift_reporter"), schema="reporter", connections_max=4) as opened:
        yield opened


def appender(database: Database) -> Appender:
    return Appender(PostgresStore(database), Projector(POLICIES))


async def digest_of(database: Database) -> str:
    async with database.connection() as connection:
        return await digest(connection)


async def value(database: Database, sql: str, *args: object) -> object:
    async with database.connection() as connection:
        return await connection.fetchval(sql, *args)


ORDERS = (
    "UPDATE reporter.event_log SET type = ''",
    "DELETE FROM reporter.event_log",
    "TRUNCATE reporter.event_log",
)


WAYS_AROUND = (
    "DROP TRIGGER event_log_keeps_rows ON reporter.event_log",
    "ALTER TABLE reporter.event_log DISABLE TRIGGER ALL",
    "CREATE OR REPLACE FUNCTION reporter.event_log_only_grows() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
    "DROP TABLE reporter.event_log",
    "DROP SCHEMA reporter CASCADE",
    "ALTER TABLE reporter.event_log OWNER TO nightshift_reporter",
)


@pytest.mark.parametrize("existing", [False, True], ids=["new database", "log of before"])
async def test_the_services_role_can_take_no_protection_off_the_log(
    migrated: MigratedDatabase, database: Database, *, existing: bool
) -> None:
    if existing:
        admin = await asyncpg.connect(migrated.admin_url)
        await admin.execute("""
            ALTER SCHEMA reporter OWNER TO nightshift_reporter;
            ALTER TABLE reporter.event_log OWNER TO nightshift_reporter;
            ALTER FUNCTION reporter.event_log_only_grows() OWNER TO nightshift_reporter;
            DELETE FROM nightshift.migrations WHERE name = 'reporter/0002_log_owner.sql'
        """)
        await admin.close()
        await migrate(migrated.admin_url)
    await appender(database).take(records(night(1)))

    for way in WAYS_AROUND:
        async with database.connection() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(way)

    assert await value(database, "SELECT count(*) FROM event_log") == len(night(1))


@pytest.mark.parametrize(
    ("role", "trick"),
    [
        ("nightshift_reporter", "SELECT 1"),
        ("nightshift_reporter", "GRANT ALL ON reporter.event_log TO nightshift_reporter"),
        ("postgres", "SELECT 1"),
        ("postgres", "SET session_replication_role = replica"),
    ],
    ids=["service", "service that helps itself", "owner", "superuser who plays a replica"],
)
async def test_the_log_refuses_every_change(
    migrated: MigratedDatabase, database: Database, role: str, trick: str
) -> None:
    await appender(database).take(records(night(1)))
    connection = await asyncpg.connect(migrated.url(role))
    try:
        await connection.execute(trick)
        for order in ORDERS:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(order)
    finally:
        await connection.close()

    assert await value(database, "SELECT count(*) FROM event_log") == len(night(1))


async def test_the_same_events_twice_are_in_the_log_once(database: Database) -> None:
    told = records(night(3))
    await appender(database).take(told)
    before = await digest_of(database)

    await appender(database).take(told + told)

    assert await value(database, "SELECT count(*) FROM event_log") == len(told)
    assert await digest_of(database) == before


async def test_an_event_of_an_unknown_type_is_in_the_log(database: Database) -> None:
    await appender(database).take([unknown_record()])

    assert await value(database, "SELECT type FROM event_log") == "case.opened.v9"
    assert await value(database, "SELECT count(*) FROM projections WHERE kind = 'unread'") == 1


async def test_a_record_that_nobody_can_read_is_in_the_log_and_spoils_no_other(database: Database) -> None:
    damaged = Record("nightshift.cases", "", {"ce_type": "case.opened.v1", "a\0": "b\0"}, b"\xff\x00 no JSON")

    await appender(database).take([damaged, *records(night(1))])

    assert await value(database, "SELECT body FROM event_log WHERE case_id = 'unknown'") == damaged.body
    assert await value(database, "SELECT count(*) FROM projections WHERE kind = 'case'") == 1


class _Clumsy(Projector):
    """Cannot project one case."""

    def __call__(self, told: Mapping[str, Sequence[Told]]) -> list[Projected]:
        if "support:zendesk:1000" in told:
            raise ValueError("a bug")
        return super().__call__(told)


async def test_a_case_that_cannot_be_projected_is_in_the_log_and_spoils_no_other(database: Database) -> None:
    told = records(night(3))

    await Appender(PostgresStore(database), _Clumsy(POLICIES)).take(told)

    assert await value(database, "SELECT count(*) FROM event_log") == len(told)
    assert await value(database, "SELECT count(*) FROM projections WHERE kind = 'case'") == 2
    await rebuild(database, POLICIES)
    assert await value(database, "SELECT count(*) FROM projections WHERE kind = 'case'") == 3


async def test_a_case_that_cannot_be_projected_spoils_no_rebuild(database: Database) -> None:
    await appender(database).take(records(night(3)))

    async with rebuilding(database) as tables:
        await rebuild_tables(tables, _Clumsy(POLICIES), version="new", progress=lambda _: None)

    assert await value(database, "SELECT count(*) FROM projections WHERE kind = 'case'") == 2
    assert await projected_by(database) == "new"


async def test_an_event_whose_time_has_no_offset_is_unread_and_spoils_nothing_of_its_case(database: Database) -> None:
    *told, last = records(night(1))
    odd = last._replace(headers={**last.headers, "ce_time": "2026-11-22T01:00:00"})

    await appender(database).take([*told, odd])

    assert await value(database, "SELECT count(*) FROM projections WHERE kind = 'case'") == 1
    assert await value(database, "SELECT count(*) FROM projections WHERE kind = 'unread'") == 1


class _Shaky(Projector):
    """Is away once, when asked to."""

    away = False

    def __call__(self, told: Mapping[str, Sequence[Told]]) -> list[Projected]:
        if self.away:
            self.away = False
            raise ConnectionError("Postgres is away")
        return super().__call__(told)


async def test_what_was_not_committed_is_not_remembered(database: Database) -> None:
    projector = _Shaky(POLICIES)
    reporter, other = Appender(PostgresStore(database), projector), appender(database)
    first, second, third, fourth, *_ = records(tell("1", "answered"))
    await reporter.take([first])

    projector.away = True
    with pytest.raises(ConnectionError):
        await reporter.take([second])
    await other.take([third])
    await reporter.take([fourth])

    live = await digest_of(database)
    assert await value(database, "SELECT row ->> 'events' FROM projections WHERE kind = 'case'") == "3"
    await rebuild(database, POLICIES)
    assert await digest_of(database) == live


async def test_a_subject_with_more_events_than_are_read_is_projected_from_its_newest(database: Database) -> None:
    odd = unknown_record()
    told = [odd._replace(headers={**odd.headers, "ce_id": str(UUID(int=n))}) for n in range(ENTRIES_OF_CASE_MAX + 1)]
    reporter = appender(database)

    for batch in (told[:-1], told[-1:]):
        await reporter.take(batch)

    live = await digest_of(database)
    unread = await value(database, "SELECT count(*) FROM projections WHERE kind = 'unread'")
    assert unread == ENTRIES_OF_CASE_MAX
    await rebuild(database, POLICIES)
    assert await digest_of(database) == live


def batches(told: Sequence[Record], cuts: Sequence[int]) -> list[list[Record]]:
    edges = [0, *sorted({cut % (len(told) + 1) for cut in cuts}), len(told)]
    return [list(told[start:end]) for start, end in itertools.pairwise(edges) if start < end]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chance=st.randoms(use_true_random=False), again=st.integers(0, 60), cuts=st.lists(st.integers(0, 10**4)))
async def test_any_arrival_order_any_duplicates_and_any_batches_give_the_same_bytes(
    database: Database, chance: random.Random, again: int, cuts: list[int]
) -> None:
    known = await value(database, "SELECT count(*) FROM event_log")
    told = records(night(22, first=1000 + int(str(known))))
    shuffled = [*told, *chance.sample(told, again)]
    chance.shuffle(shuffled)

    reporters = [appender(database), appender(database)]
    for batch in batches(shuffled, cuts):
        await chance.choice(reporters).take(batch)

    live = await digest_of(database)
    await rebuild(database, POLICIES)
    assert await digest_of(database) == live


async def test_a_rebuild_equals_the_live_projections_and_says_what_it_was_made_by(database: Database) -> None:
    told = records(night(40))
    random.Random(3).shuffle(told)
    reporter = appender(database)
    for start in range(0, len(told), 37):
        await reporter.take(told[start : start + 37])
    live, seen = await digest_of(database), list[int]()

    cases = await rebuild(database, POLICIES, progress=seen.append)

    assert await digest_of(database) == live
    subjects = {record.key for record in told}
    assert (cases, seen) == (len(subjects), [len(subjects)])
    assert await projected_by(database) == version_of(POLICIES)


async def test_a_rebuild_mends_projections_that_somebody_damaged(database: Database) -> None:
    await appender(database).take(records(night(10)))
    live = await digest_of(database)
    async with database.connection() as connection:
        await connection.execute("UPDATE projections SET state = 'odd'")
        await connection.execute("UPDATE totals SET amount = amount + 1")
        assert await digest(connection) != live

    await rebuild(database, POLICIES)

    assert await digest_of(database) == live


async def test_events_that_come_while_a_rebuild_runs_are_in_the_new_projections(database: Database) -> None:
    told = records(night(30))
    await appender(database).take(told[:150])
    tail = iter(told[150:])

    async with rebuilding(database) as tables:
        project = Projector(POLICIES)
        position = await tables.begin()
        await tables.fill((await tables.case_ids_after("", 500))[:20], project)
        await appender(database).take(list(tail))
        for case_id in await tables.case_ids_after("", 500):
            await tables.fill([case_id], project)
        changed, _ = await tables.changed_since(position)
        assert changed
        await tables.swap(position, project, "test")
    swapped = await digest_of(database)

    await rebuild(database, POLICIES)
    assert await digest_of(database) == swapped


async def test_one_rebuild_at_a_time(database: Database) -> None:
    async with rebuilding(database):
        with pytest.raises(RebuildRunsError):
            await rebuild(database, POLICIES)


async def test_other_policies_rebuild_the_projections_at_the_start(database: Database) -> None:
    await appender(database).take(records(night(10)))
    await rebuild(database, POLICIES)
    strict = {"support": Policy(first_reply_minutes=0.001, automated_reply_counts=True)}

    await heal(database, strict, _StopAtWait())

    assert await projected_by(database) == version_of(strict)
    assert await value(database, "SELECT count(*) FROM projections WHERE kind = 'sla' AND state = 'met'") == 0


class _StopAtWait(Stop):
    """Is told to stop as soon as somebody waits on it."""

    async def wait(self, seconds: float | None = None) -> bool:
        self.set()
        return await super().wait(seconds)


async def test_no_total_is_zero_and_every_total_is_the_sum_of_its_cases(database: Database) -> None:
    told = records(night(20))
    reporter = appender(database)
    for start in range(0, len(told), 5):
        await reporter.take(told[start : start + 5])

    wrong = await value(
        database,
        """
        SELECT count(*) FROM (
            SELECT process, split_part(name, '|', 1) AS period, split_part(name, '|', 2) AS name,
                   sum(v::numeric) AS amount
            FROM projections, json_each_text(row) AS s(name, v) WHERE kind = 'sums' GROUP BY 1, 2, 3) s
        FULL JOIN totals t USING (process, period, name)
        WHERE s.amount IS DISTINCT FROM t.amount OR t.amount = 0
        """,
    )

    assert wrong == 0


async def test_several_reporters_and_a_rebuild_at_once_give_the_same_bytes(database: Database) -> None:
    told = records(night(40))
    chance = random.Random(5)

    async def report() -> None:
        mine, reporter = chance.sample(told, len(told)), appender(database)
        for start in range(0, len(mine), 50):
            while not await _taken(reporter, mine[start : start + 50]):
                continue

    async def _taken(reporter: Appender, batch: list[Record]) -> bool:
        try:
            await reporter.take(batch)
        except asyncpg.DeadlockDetectedError:  # the link to the broker takes such a batch again
            return False
        return True

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(report())
        group.create_task(rebuild(database, POLICIES))

    live = await digest_of(database)
    await rebuild(database, POLICIES)
    assert await digest_of(database) == live
    assert await value(database, "SELECT count(*) FROM event_log") == len(told)
