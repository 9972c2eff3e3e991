"""What a webhook only hints at is read outside: once for many hints, at the door's pace, and never forgotten."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from connectors.protocol import PlainChange
from contracts.events.control import RedriveRequested
from contracts.events.proposals import ProposalMade
from contracts.failures import LaterError
from services.classifier.outbound.doors import PacedReads
from services.runtime.postgres import Connection
from services.runtime.stop import Stop, Wake
from tests.conftest import MigratedDatabase
from tests.fakes import remote
from tests.fakes.acting import case_of, tiny
from tests.fakes.events import event, named
from tests.fakes.proposing import Bench, bench
from tests.fakes.remote import Remote
from tests.virtual import VirtualTime, admin, live

BEGINS_AT = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
READS_PER_SECOND = 5.0
WINDOW_SECONDS, LATE_SECONDS_MAX = 10.0, 1.0
"""Reads take their turns at the pace; on a busy machine a turn is met late, and those after it in time."""


@pytest.fixture
async def desk(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated, tiny()) as made:
        yield made


def hint(told: PlainChange) -> PlainChange:
    """What a trigger's body says of it: that there is something to read."""
    return replace(told, kind="trigger", identity=f"hint {told.identity}", hint=True, fields={}, texts={})


async def is_set(wake: Wake) -> bool:
    """Whether somebody was told, who hears it now."""
    waiting = asyncio.create_task(wake.wait(60, Stop()))
    await asyncio.sleep(0)
    return waiting.done() or not waiting.cancel()


async def test_a_ticket_of_which_nothing_but_a_hint_came_is_read_and_answered(desk: Bench) -> None:
    asked = desk.outside.says("1", text="Where is it?")
    await desk.hear(hint(asked))
    await desk.reader.step()
    await desk.worker.step()

    [made] = [event.data for event in await desk.said(ProposalMade)]
    assert isinstance(made, ProposalMade)
    assert made.basis.startswith(asked.version)


async def test_a_second_question_that_is_only_hinted_at_is_read_and_answered(desk: Bench) -> None:
    await desk.hear(desk.outside.says("1"))
    await desk.worker.step()
    desk.outside.tick()
    second = desk.outside.says("1", text="And another thing")
    await desk.hear(hint(second))
    await desk.reader.step()
    await desk.worker.step()

    newest = [event.data for event in await desk.said(ProposalMade)][-1]
    assert isinstance(newest, ProposalMade)
    assert newest.basis.startswith(second.version)


async def test_a_reader_is_woken_by_a_hint_and_by_an_order_and_by_no_other_news(desk: Bench) -> None:
    asked = desk.outside.says("1", text="Where is it?")
    await desk.hear(asked)
    after_news = await is_set(desk.worker.wake), await is_set(desk.reader.wake)
    await desk.hear(hint(asked))
    after_a_hint = await is_set(desk.reader.wake)
    order = RedriveRequested(dead_letter_id=named("none"), service="classifier", nonce=named("once"), by="anna")
    await desk.take([event("order", order, case_id=case_of("1")).to_record()])
    after_an_order = await is_set(desk.worker.wake), await is_set(desk.reader.wake)

    assert after_news == (True, False)
    assert after_a_hint
    assert after_an_order == (True, True)


async def test_many_hints_of_a_ticket_are_one_read(desk: Bench) -> None:
    for _ in range(5):
        desk.outside.tick()
        await desk.hear(hint(desk.outside.says("1")))

    while await desk.reader.step():
        pass

    assert desk.outside.reads == 1


async def test_a_hint_where_nobody_waits_leads_to_no_question(desk: Bench) -> None:
    await desk.hear(hint(desk.outside.says("1", author="staff")))
    await desk.reader.step()

    assert await desk.worker.step() == 0


async def test_a_hint_that_came_while_its_ticket_was_read_is_read_too(desk: Bench) -> None:
    await desk.hear(hint(desk.outside.says("1")))
    claims = await desk.reader.claim()
    read = await desk.reader.perform(claims)
    desk.outside.tick()
    later = desk.outside.says("1", text="And another thing")
    await desk.hear(hint(later))
    await desk.reader.finish(claims, read)
    await desk.reader.step()
    await desk.worker.step()

    [made] = [event.data for event in await desk.said(ProposalMade)]
    assert isinstance(made, ProposalMade)
    assert made.basis.startswith(later.version)


@pytest.mark.parametrize("trouble", [remote.refused, remote.asks_for_patience("rate_limited", 60)])
def test_the_end_of_an_outage_is_met_by_no_stampede_of_reads(
    migrated: MigratedDatabase, trouble: remote.Trouble
) -> None:
    ends, tickets = 300.0, 60

    async def scenario(time: VirtualTime) -> None:
        async with admin(migrated, time, "classifier") as operator:
            await operator.execute("INSERT INTO control.switches (process, paused) VALUES ('tiny', false)")
            async with time.database(migrated.url("nightshift_classifier"), "classifier") as database:
                away = Remote(time, (0, ends, trouble))
                clock = asyncio.get_running_loop().time
                door = PacedReads(away, per_second=READS_PER_SECOND, clock=clock)
                desk = Bench(database, cast("Connection", operator), tiny(), away, door=door)
                for ticket in range(tickets):
                    await desk.hear(hint(away.says(str(ticket))))
                stop = Stop()
                async with asyncio.TaskGroup() as group, asyncio.timeout(ends + 300):
                    group.create_task(desk.reader.run(stop))
                    group.create_task(desk.worker.run(stop))
                    while len(await desk.said(ProposalMade)) < tickets:
                        await asyncio.sleep(1)
                    stop.set()
                met = [at for at in away.requests if at < ends]
                assert len(met) <= 20 + ends / 15, "in an outage, one now and then"
                most = away.requests_most(since=ends, window_seconds=WINDOW_SECONDS)
                assert most <= READS_PER_SECOND * (WINDOW_SECONDS + LATE_SECONDS_MAX) + 1
                reads = 2 * tickets  # this process's cases do not tell that they were read: once more for the proposal
                assert len(away.requests) - len(met) == reads
                assert time.seconds <= ends + 60 + reads / READS_PER_SECOND + 30

    live(scenario, begins_at=BEGINS_AT)


async def test_a_read_that_waits_longer_for_its_turn_holds_nobody_up() -> None:
    clock = [0.0]
    slept: list[float] = []

    class Door:
        async def read(self, object_id: str) -> tuple[PlainChange, ...]:
            del object_id
            return ()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    door = PacedReads(Door(), per_second=2, clock=lambda: clock[0], sleep=sleep)
    found = [await _outcome(door) for _ in range(5)]

    assert found[:3] == ["read", "read", "read"]
    assert found[3:] == ["later", "later"]
    assert max(slept) <= 1.0
    clock[0] = math.ceil(5 / 2)
    assert await _outcome(door) == "read"


async def _outcome(door: PacedReads) -> str:
    try:
        await door.read("1")
    except LaterError:
        return "later"
    return "read"
