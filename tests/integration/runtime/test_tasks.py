import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from contracts.envelope import Record
from contracts.events.control import RedriveRequested, SkipRequested
from contracts.failures import LaterError, PermanentError
from services.runtime import dead_letters, tasks
from services.runtime.failures import backoff_seconds
from services.runtime.health import progress_of
from services.runtime.postgres import Connection, Database
from services.runtime.stop import Stop
from services.runtime.tasks import Claim, Done, Outcome, Wanted, Worker
from tests.conftest import MigratedDatabase
from tests.fakes.events import event, named
from tests.integration.runtime.conftest import execute


class Ledger:
    """Remembers which results were committed, in order."""

    def __init__(self) -> None:
        self.committed: list[tuple[str, str]] = []

    async def store(self, connection: Connection, finished: Sequence[tuple[Claim, Done]]) -> None:
        del connection
        self.committed += [(claim.case_id, claim.basis) for claim, _ in finished]


async def succeed(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
    return [Done() for _ in claims]


def worker_of(database: Database, ledger: Ledger, perform: tasks.Perform = succeed, **options: int) -> Worker:
    return Worker(
        database=database,
        service="actor",
        process="tiny",
        kind="propose",
        perform=perform,
        store=ledger.store,
        attempts_max=options.get("attempts_max", 3),
        lease_seconds=60,
        batch_max=options.get("batch_max", 10),
    )


def wanted(case_id: str, basis: str) -> Wanted:
    return Wanted(
        case_id=case_id,
        process="tiny",
        kind="propose",
        basis=basis,
        cause=named(case_id + basis),
        correlation_id=named(basis),
    )


async def want(database: Database, *work: Wanted) -> None:
    async with database.transaction() as connection:
        await tasks.want(connection, work)


async def leases_expire(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE tasks SET available_at = clock_timestamp() - interval '1 s'")


async def rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(statement)]


@pytest.mark.usefixtures("running")
async def test_a_newer_basis_takes_the_place_of_an_older_one(database: Database) -> None:
    ledger = Ledger()
    await want(database, wanted("c", "1"), wanted("c", "2"))
    await want(database, wanted("c", "1"))

    await worker_of(database, ledger).step()

    assert ledger.committed == [("c", "2")]


@pytest.mark.usefixtures("running")
async def test_two_workers_never_hold_the_same_case(database: Database) -> None:
    await want(database, *(wanted(f"c{n}", "1") for n in range(5)))
    one, other = worker_of(database, Ledger(), batch_max=3), worker_of(database, Ledger(), batch_max=10)

    first, second = await one.claim(), await other.claim()

    assert len(first) == 3
    assert {c.case_id for c in first} | {c.case_id for c in second} == {f"c{n}" for n in range(5)}
    assert not {c.case_id for c in first} & {c.case_id for c in second}


@pytest.mark.usefixtures("running")
async def test_whoever_claims_a_full_batch_wakes_another_that_shares_its_work(database: Database) -> None:
    await want(database, wanted("a", "1"), wanted("b", "1"))
    worker = worker_of(database, Ledger(), batch_max=1)

    await worker.step()

    async with asyncio.timeout(5):
        await worker.wake.wait(60, Stop())


@pytest.mark.usefixtures("running")
async def test_a_worker_that_lost_its_lease_cannot_commit(database: Database) -> None:
    ledger = Ledger()
    slow, fast = worker_of(database, ledger), worker_of(database, ledger)
    await want(database, wanted("c", "1"))
    held = await slow.claim()
    await leases_expire(database)
    await fast.step()

    await slow.finish(held, [Done((event("late"),))])

    assert ledger.committed == [("c", "1")]
    assert await rows(database, "SELECT event_id FROM outbox") == []


@pytest.mark.usefixtures("running")
async def test_a_lease_is_kept_while_the_work_goes_on(database: Database) -> None:
    ledger, thinking, go_on = Ledger(), asyncio.Event(), asyncio.Event()

    async def think(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        thinking.set()
        await go_on.wait()
        return [Done() for _ in claims]

    slow, other = worker_of(database, ledger, think), worker_of(database, ledger)
    slow.lease_seconds = 0.3
    await want(database, wanted("c", "1"))
    async with asyncio.TaskGroup() as group:
        group.create_task(slow.step())
        await thinking.wait()
        [(first,)] = await rows(database, "SELECT available_at FROM tasks")
        later = first
        while later == first:
            [(later,)] = await rows(database, "SELECT available_at FROM tasks")
            assert await other.claim() == []
        go_on.set()

    assert ledger.committed == [("c", "1")]


@pytest.mark.usefixtures("running")
async def test_a_newer_basis_fences_out_the_work_in_hand(database: Database) -> None:
    ledger = Ledger()
    worker = worker_of(database, ledger)
    await want(database, wanted("c", "1"))
    held = await worker.claim()
    await want(database, wanted("c", "2"))

    await worker.finish(held, [Done()])
    await worker.step()

    assert ledger.committed == [("c", "2")]


@pytest.mark.usefixtures("running")
async def test_work_that_fails_for_good_becomes_a_dead_letter_and_blocks_its_case_alone(database: Database) -> None:
    ledger = Ledger()

    async def choosy(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        return [PermanentError("bad", "it is bad") if c.case_id == "c" else Done() for c in claims]

    worker = worker_of(database, ledger, choosy)
    await want(database, wanted("c", "1"), wanted("d", "1"))
    await worker.step()
    await want(database, wanted("c", "2"))

    assert await worker.step() == 0
    assert ledger.committed == [("d", "1")]
    assert await rows(database, "SELECT case_id, code, basis FROM dead_letters") == [("c", "bad", "1")]
    assert await rows(database, "SELECT headers->>'ce_type' FROM outbox") == [("dead_letter.raised.v1",)]


@pytest.mark.usefixtures("running")
async def test_what_waits_behind_a_dead_letter_does_not_make_a_service_unhealthy(database: Database) -> None:
    reading, proposing = worker_of(database, Ledger()), worker_of(database, Ledger(), poison)
    reading.kind = "read"
    await want(database, wanted("c", "1"))
    await proposing.step()
    await want(database, replace(wanted("c", "1"), kind="read"))
    await leases_expire(database)

    assert await reading.step() == 0
    assert await reading.oldest_claimable_seconds() == 0.0


async def poison(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
    return [PermanentError("bad", "it is bad") for _ in claims]


async def nothing(connection: Connection, record: Record) -> None:
    """What a redriven event comes to."""


async def letter_of(database: Database, work: str = "propose") -> UUID:
    found = await rows(
        database, f"SELECT dead_letter_id FROM dead_letters WHERE redriven_at IS NULL AND work = '{work}'"
    )
    ((dead_letter_id,),) = found
    assert isinstance(dead_letter_id, UUID)
    return dead_letter_id


async def redrive(connection: Connection, letter: UUID, nonce: str) -> bool:
    order = RedriveRequested(dead_letter_id=letter, service="actor", nonce=named(nonce), by="ana")
    return await dead_letters.redrive(connection, event(f"order {nonce}", order), service="actor", handle_again=nothing)


async def skip(connection: Connection, letter: UUID) -> bool:
    order = SkipRequested(dead_letter_id=letter, service="actor", reason="a test", by="ana")
    return await dead_letters.skip(connection, event(f"skip {letter}", order), service="actor")


@pytest.mark.usefixtures("running")
async def test_work_that_dies_again_after_each_redrive_is_a_dead_letter_each_time_and_is_done_in_the_end(
    database: Database,
) -> None:
    ledger = Ledger()
    await want(database, wanted("c", "1"))
    for nonce in ("one", "two", "three"):
        await worker_of(database, ledger, poison).step()
        letter = await letter_of(database)
        async with database.transaction() as connection:
            assert await redrive(connection, letter, nonce)

    await worker_of(database, ledger).step()

    assert ledger.committed == [("c", "1")]
    said = await rows(database, "SELECT headers->>'ce_type', count(*) FROM outbox GROUP BY 1 ORDER BY 1")
    assert said == [("dead_letter.raised.v1", 3), ("dead_letter.redriven.v1", 3)]


@pytest.mark.usefixtures("running")
async def test_skipped_work_is_not_done_and_what_is_newer_is(database: Database) -> None:
    ledger = Ledger()
    for case_id in ("c", "d"):
        await want(database, wanted(case_id, "1"))
    await worker_of(database, ledger, poison).step()
    await want(database, wanted("d", "2"))
    letters = await rows(database, "SELECT dead_letter_id FROM dead_letters")

    for (letter,) in letters:
        assert isinstance(letter, UUID)
        async with database.transaction() as connection:
            assert await skip(connection, letter)
            assert not await skip(connection, letter), "it ended already"
    await worker_of(database, ledger).step()
    await want(database, wanted("c", "3"))
    await worker_of(database, ledger).step()

    assert ledger.committed == [("d", "2"), ("c", "3")]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("end", [redrive, skip])
async def test_two_dead_letters_of_a_case_ended_at_the_same_moment_leave_its_work_waiting_for_nobody(
    database: Database, end: Callable[..., Awaitable[bool]]
) -> None:
    ledger = Ledger()
    await want(database, wanted("c", "1"))
    await worker_of(database, ledger, poison).step()
    await want(database, wanted("c", "2"))
    broken = event("broken", case_id="c").to_record()
    async with database.transaction() as connection:
        await dead_letters.raise_for_event(
            connection, service="actor", record=broken, event_id=named("broken"), code="unforeseen", message="x"
        )
    first, second = await letter_of(database), await letter_of(database, "process.paused.v1")

    async def end_second() -> bool:
        async with database.transaction() as connection:
            return await end(connection, second, *(["b"] if end is redrive else []))

    async with database.transaction() as connection:
        assert await redrive(connection, first, "a")
        other = asyncio.create_task(end_second())
        while not other.done() and not await rows(database, "SELECT 1 FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    assert await other
    await worker_of(database, ledger).step()

    assert ledger.committed == [("c", "2")]


@pytest.mark.usefixtures("running")
async def test_unforeseen_errors_are_tried_again_and_then_given_up(database: Database) -> None:
    async def fail(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        return [ValueError("customer words") for _ in claims]

    worker = worker_of(database, Ledger(), fail, attempts_max=2)
    await want(database, wanted("c", "1"))
    await worker.step()
    assert await worker.step() == 0, "it waits"
    await leases_expire(database)
    await worker.step()

    assert await rows(database, "SELECT code, message, attempts FROM dead_letters") == [("unforeseen", "ValueError", 2)]


@pytest.mark.usefixtures("running")
async def test_patience_that_the_other_side_asked_for_counts_no_attempt(database: Database) -> None:
    async def busy(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        return [LaterError("rate_limited", "429", seconds=600) for _ in claims]

    worker = worker_of(database, Ledger(), busy, attempts_max=1)
    await want(database, wanted("c", "1"))
    for _ in range(5):
        await worker.step()
        await leases_expire(database)

    assert await rows(database, "SELECT state, attempts, last_code FROM tasks") == [("open", 0, "rate_limited")]


@pytest.mark.usefixtures("running")
async def test_one_result_that_cannot_be_stored_fails_alone(database: Database) -> None:
    ledger = Ledger()

    async def choosy(connection: Connection, finished: Sequence[tuple[Claim, Done]]) -> None:
        if any(claim.case_id == "c" for claim, _ in finished):
            await connection.execute("SELECT 1 / 0")
        await ledger.store(connection, finished)

    worker = worker_of(database, ledger)
    worker.store = choosy
    await want(database, wanted("c", "1"), wanted("d", "1"), wanted("e", "1"))

    await worker.step()

    assert sorted(ledger.committed) == [("d", "1"), ("e", "1")]
    assert await rows(database, "SELECT state FROM tasks WHERE case_id = 'c'") == [("open",)]


@pytest.mark.parametrize("switch", ["", "INSERT INTO control.switches (process, paused) VALUES ('tiny', true)"])
async def test_paused_or_unknown_processes_are_not_worked_for(
    database: Database, migrated: MigratedDatabase, switch: str
) -> None:
    if switch:
        await execute(migrated, switch)
    worker = worker_of(database, Ledger())
    await want(database, wanted("c", "1"))
    await leases_expire(database)

    assert await worker.step() == 0
    assert await worker.oldest_claimable_seconds() == 0.0, "paused work does not make a service unhealthy"


@pytest.mark.usefixtures("running")
async def test_health_fails_where_work_waits_and_nothing_is_claimed_and_not_while_a_long_queue_is_worked_off(
    database: Database,
) -> None:
    now = 0.0
    told: list[str | None] = []

    async def slow(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        nonlocal now
        for seconds in (200, 101):
            now += seconds
            told.append(await check())
        return await succeed(claims)

    worker = replace(worker_of(database, Ledger(), batch_max=1), clock=lambda: now)
    check = progress_of(worker)
    await want(database, *(wanted(case_id, "1") for case_id in "cdef"))
    async with database.connection() as connection:
        await connection.execute("UPDATE tasks SET available_at = clock_timestamp() - interval '1 h'")

    assert await check() is None, "it has only just begun"
    now += 61
    assert "work waits" in str(await check())
    await worker.step()
    assert await check() is None, "the rest waits, and it goes on"
    worker.perform = slow
    await worker.step()
    assert (told[0], await check()) == (None, None)
    assert "work waits" in str(told[1]), "what is in hand for so long hangs"
    now += 61
    assert "work waits" in str(await check())
    worker.perform = succeed
    while await worker.step():
        pass
    now += 61
    assert await check() is None, "nothing waits"


CASES = ("c", "d")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sampled_from(CASES), st.integers(1, 4)),
        st.tuples(st.just("claim"), st.integers(0, 1)),
        st.tuples(st.just("commit"), st.integers(0, 1)),
        st.tuples(st.just("crash"), st.integers(0, 1)),
        st.tuples(st.just("fail"), st.integers(0, 1)),
        st.tuples(st.just("leases expire")),
    ),
    max_size=25,
)


@pytest.mark.usefixtures("running")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps)
@example(script=[("want", "c", 1), ("claim", 1), ("leases expire",), ("claim", 1), ("commit", 1)])
async def test_any_interleaving_gives_each_result_once_and_none_for_an_older_basis_after_a_newer(
    database: Database, script: list[tuple[object, ...]]
) -> None:
    async with database.connection() as connection:
        await connection.execute("DELETE FROM tasks")
    ledger = Ledger()
    workers = [worker_of(database, ledger, batch_max=1), worker_of(database, ledger, batch_max=2)]
    held: list[list[Claim]] = [[], []]
    newest: dict[str, str] = {}

    for step in script:
        match step:
            case ("want", str(case_id), int(basis)):
                await want(database, wanted(case_id, str(basis)))
                newest[case_id] = max(newest.get(case_id, ""), str(basis))
            case ("claim", int(n)):
                held[n] += await workers[n].claim()
            case ("commit", int(n)):
                await workers[n].finish(held[n], [Done() for _ in held[n]])
                held[n] = []
            case ("fail", int(n)):
                await workers[n].finish(held[n], [LaterError("later", "later", seconds=0) for _ in held[n]])
                held[n] = []
            case ("crash", int(n)):
                held[n] = []
            case _:
                await leases_expire(database)
    await leases_expire(database)
    while await workers[0].step():
        pass

    for case_id, last in newest.items():
        results = [done for case, done in ledger.committed if case == case_id]
        assert results == sorted(set(results)), "once each, never an older one after a newer"
        assert results[-1] == last, "the newest basis has its result"


def test_backoff_grows_to_a_limit_and_never_waits_less_than_half() -> None:
    chance = random.Random(7).random
    waits = [backoff_seconds(attempt, chance=chance()) for attempt in range(1, 40)]

    assert all(low <= wait for low, wait in zip([0.25, 0.5, 1.0, 2.0], waits, strict=False))
    assert max(waits) <= 300


@pytest.mark.usefixtures("running")
async def test_work_that_raises_stops_no_other_work_and_becomes_a_dead_letter(database: Database) -> None:
    async def perform(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        if any(claim.case_id == "bad" for claim in claims):
            raise ValueError("customer words")
        return [Done() for _ in claims]

    ledger = Ledger()
    await want(database, wanted("bad", "1"), wanted("good", "1"))
    worker = worker_of(database, ledger, perform, attempts_max=2)

    for _ in range(2):
        await worker.step()
        await leases_expire(database)

    assert ledger.committed == [("good", "1")]
    assert await rows(database, "SELECT case_id, code, message FROM dead_letters") == [
        ("bad", "unforeseen", "ValueError")
    ]


@pytest.mark.usefixtures("running")
async def test_results_whose_transaction_met_another_are_written_at_once(database: Database) -> None:
    class Meets(Ledger):
        async def store(self, connection: Connection, finished: Sequence[tuple[Claim, Done]]) -> None:
            self.tries = getattr(self, "tries", 0) + 1
            if self.tries == 1:
                raise asyncpg.exceptions.DeadlockDetectedError("deadlock detected")
            await super().store(connection, finished)

    ledger = Meets()
    await want(database, wanted("c", "1"))

    await worker_of(database, ledger).step()

    assert ledger.committed == [("c", "1")]


@pytest.mark.usefixtures("running")
async def test_work_that_finds_postgres_away_is_nobodys_fault_and_waits_for_its_lease(database: Database) -> None:
    async def perform(claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        del claims
        raise ConnectionRefusedError

    await want(database, wanted("c", "1"))

    with pytest.raises(ConnectionRefusedError):
        await worker_of(database, Ledger(), perform).step()

    assert await rows(database, "SELECT state, attempts FROM tasks") == [("open", 1)]
