import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from contracts.envelope import decode
from contracts.events.control import ProcessPaused, ProcessResumed
from services.runtime import switches, tasks
from services.runtime.postgres import Connection, Database, connect
from services.runtime.tasks import Claim, Done, Outcome, Wanted, Worker
from tests.conftest import MigratedDatabase
from tests.fakes.events import named
from tests.integration.runtime.conftest import execute

PAUSE = "UPDATE control.switches SET paused = true, reason = 'fire' WHERE process = 'tiny'"


@pytest.mark.usefixtures("running")
async def test_a_pause_waits_for_the_claim_in_hand_and_stops_every_later_one(
    database: Database, migrated: MigratedDatabase
) -> None:
    async with database.transaction() as claiming:
        before = await switches.running_generation(claiming, "tiny")
        pausing = asyncio.ensure_future(execute(migrated, PAUSE))
        await _somebody_waits_for_a_lock(migrated)
        assert not pausing.done(), "the claim that read the switch first commits first"
    await pausing
    async with database.transaction() as later:
        after = await switches.running_generation(later, "tiny")

    assert (before, after) == (1, None)


@pytest.mark.usefixtures("running")
async def test_no_claim_commits_after_the_pause_under_load(database: Database, migrated: MigratedDatabase) -> None:
    claimed: list[tuple[str, int]] = []

    async def note(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        claimed.extend((claim.case_id, claim.generation) for claim in claims)
        return [Done() for _ in claims]

    async def keep(connection: Connection, finished: Sequence[tuple[Claim, Done]]) -> None:
        del connection, finished

    workers = [
        Worker(
            database=database,
            service="actor",
            process="tiny",
            kind="propose",
            perform=note,
            store=keep,
            attempts_max=3,
            lease_seconds=60,
            batch_max=1,
        )
        for _ in range(4)
    ]
    async with database.transaction() as connection:
        await tasks.want(connection, [_wanted(n) for n in range(400)])

    async def work(worker: Worker) -> None:
        while await worker.step():
            pass

    async def pause_after_some() -> int:
        while len(claimed) < 20:
            await asyncio.sleep(0)
        await execute(migrated, PAUSE)
        return len(claimed)

    async with asyncio.TaskGroup() as group:
        pausing = group.create_task(pause_after_some())
        for worker in workers:
            group.create_task(work(worker))

    assert 20 <= len(claimed) < 400, "the switch stopped the workers on their way"
    assert len(claimed) - pausing.result() <= len(workers), (
        "only what was claimed before the commit is still handed over"
    )
    assert {generation for _, generation in claimed} == {1}


@pytest.mark.usefixtures("running")
async def test_each_change_raises_the_generation_and_says_so_with_kafka_down(migrated: MigratedDatabase) -> None:
    await execute(migrated, PAUSE)
    await execute(migrated, "UPDATE control.switches SET paused = false, reason = 'over', changed_by = 'ana'")
    await execute(migrated, "DELETE FROM control.switches")

    url = migrated.url("nightshift_reporter")
    async with connect(url, schema="reporter") as reporter, reporter.connection() as connection:
        rows = await connection.fetch("SELECT headers, body FROM control.outbox ORDER BY id")
    said = [decode(row["headers"], row["body"]).data for row in rows]

    assert [type(data) for data in said] == [ProcessResumed, ProcessPaused, ProcessResumed, ProcessPaused]
    assert [data.generation for data in said if isinstance(data, ProcessPaused | ProcessResumed)] == [1, 2, 3, 4]
    assert isinstance(said[2], ProcessResumed)
    assert (said[2].reason, said[2].by) == ("over", "ana")


@pytest.mark.usefixtures("running")
async def test_a_switch_that_comes_back_after_it_was_deleted_goes_on_counting(
    database: Database, migrated: MigratedDatabase
) -> None:
    for _ in range(2):
        await execute(migrated, "DELETE FROM control.switches")
        await execute(migrated, "INSERT INTO control.switches (process, paused) VALUES ('tiny', false)")

    async with database.transaction() as connection:
        assert await switches.running_generation(connection, "tiny") == 5


@pytest.mark.usefixtures("running")
async def test_whoever_empties_the_table_pauses_every_process_and_the_generations_go_on(
    database: Database, migrated: MigratedDatabase
) -> None:
    await execute(migrated, "INSERT INTO control.switches (process, paused) VALUES ('other', false)")
    await execute(migrated, "TRUNCATE control.switches")

    async with database.transaction() as connection:
        paused = [await switches.running_generation(connection, process) for process in ("tiny", "other")]
    url = migrated.url("nightshift_reporter")
    async with connect(url, schema="reporter") as reporter, reporter.connection() as connection:
        said = await connection.fetch("SELECT headers ->> 'ce_type' AS type FROM control.outbox ORDER BY id")
    await execute(migrated, "INSERT INTO control.switches (process, paused) VALUES ('tiny', false)")
    async with database.transaction() as connection:
        after = await switches.running_generation(connection, "tiny")

    assert (paused, after) == ([None, None], 3)
    assert [row["type"] for row in said] == [ProcessResumed.TYPE] * 2 + [ProcessPaused.TYPE] * 2


@pytest.mark.usefixtures("running")
async def test_a_switch_is_never_given_to_another_process(database: Database, migrated: MigratedDatabase) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="switch of tiny"):
        await execute(migrated, "UPDATE control.switches SET process = 'other'")

    async with database.transaction() as connection:
        assert await switches.running_generation(connection, "tiny") == 1


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    "odd", ["generation = 0", "generation = -5, changed_at = 'infinity'", "reason = repeat('x', 1000000)"]
)
async def test_whatever_is_written_beside_it_a_pause_pauses_under_the_next_generation(
    database: Database, migrated: MigratedDatabase, odd: str
) -> None:
    await execute(migrated, f"UPDATE control.switches SET paused = true, {odd}")
    async with database.transaction() as connection:
        paused = await switches.running_generation(connection, "tiny")
    await execute(migrated, "UPDATE control.switches SET paused = false")

    async with database.transaction() as connection:
        assert (paused, await switches.running_generation(connection, "tiny")) == (None, 3)


async def test_a_person_s_mode_goes_before_the_written_one(database: Database, migrated: MigratedDatabase) -> None:
    await execute(migrated, "INSERT INTO control.modes (process, action, mode) VALUES ('tiny', 'reply', 'act')")
    async with database.connection() as connection:
        modes = await switches.modes(connection, "tiny", {"reply": "watch", "refund": "draft"})

    assert modes == {"reply": "act", "refund": "draft"}


@pytest.mark.parametrize("statement", ["SELECT * FROM ingest.outbox", "UPDATE control.switches SET paused = true"])
async def test_a_service_s_role_reaches_only_its_own_schema(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        with pytest.raises(Exception, match="permission denied"):
            await connection.execute(statement)


def _wanted(n: int) -> Wanted:
    return Wanted(
        case_id=f"c{n}", process="tiny", kind="propose", basis="1", cause=named(str(n)), correlation_id=named(str(n))
    )


async def _somebody_waits_for_a_lock(migrated: MigratedDatabase) -> None:
    async with connect(migrated.admin_url, schema="public") as admin, admin.connection() as connection:
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        ):
            await asyncio.sleep(0)
