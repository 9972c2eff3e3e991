"""In whatever order it happens: one answer a comment, none older after a newer one, and nobody is forgotten."""

import asyncio
import random

import pytest

from connectors.protocol import Acknowledged
from contracts.failures import LaterError
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench, tiny
from tests.fakes.destination import Call, FakeDestination, answer_lost, call_lost, lands_late, raises, swallowed

TICKETS = 6
MOVES = 90


@pytest.mark.parametrize("seed", range(3))
async def test_any_interleaving_answers_each_comment_at_most_once_and_forgets_nobody(
    migrated: MigratedDatabase, seed: int
) -> None:
    chance = random.Random(seed)
    process = tiny(limits={"attempts_max": 6, "effects_per_case_hour": 50})
    async with bench(migrated, process) as actor:
        for ticket in range(TICKETS):
            await actor.ask(str(ticket))
        for _ in range(MOVES):
            await move(actor, chance)
        actor.outside.faults.clear()
        for _ in range(12):
            actor.outside.tick(2)
            actor.outside.land()
            await hear_everything(actor)
            await actor.hurry()
            actor.time += 20
            await actor.worker.step()
            await actor.send()
            await actor.look()

        assert actor.outside.answers_most <= 1
        await assert_order(actor)
        for name, thing in actor.outside.tickets.items():
            told = [c for c in thing.written if c.public] or [c for c in thing.written if not c.public]
            assert told, f"nobody answered {name} and no person was told"
        unfinished = set((await actor.states()).values()) - {"observed", "superseded", "dead", "person"}
        assert unfinished == set()


async def move(actor: Bench, chance: random.Random) -> None:
    outside = actor.outside
    ticket = str(chance.randrange(TICKETS))
    match chance.choice(
        ["fault", "fault", "step", "step", "step", "hurry", "hurry", "land", "hear", "look", "ask", "note"]
    ):
        case "fault":
            crash, busy = raises(asyncio.CancelledError()), raises(LaterError("unavailable", "503", seconds=0))
            kinds = [answer_lost, call_lost, lands_late, swallowed, crash, crash_after, busy]
            outside.faults.append(chance.choice(kinds))
        case "step":
            lane = chance.choice([actor.lane, actor.new_lane()])
            try:
                await lane.step()
            except asyncio.CancelledError:
                actor.lane = actor.new_lane()
        case "hurry":
            outside.tick(chance.choice([0, 1, 3]))
            actor.time += 20
            await actor.hurry()
        case "land":
            outside.tick()
            outside.land()
        case "hear":
            await hear_everything(actor)
        case "look":
            await actor.lane.look()
        case "ask":
            outside.tick()
            await actor.ask(ticket)
        case _:  # note
            outside.tick()
            outside.says(ticket, author="system", public=False)


async def hear_everything(actor: Bench) -> None:
    for thing in actor.outside.tickets.values():
        await actor.hear(*[await actor.sealed(change) for change in thing.history])


def crash_after(outside: FakeDestination, call: Call) -> Acknowledged:
    outside.carry_out(call)
    raise asyncio.CancelledError


async def assert_order(actor: Bench) -> None:
    """In each ticket the answers came in the order of what they answer."""
    for thing in actor.outside.tickets.values():
        keys = [w.effect_key for w in thing.written if w.effect_key is not None and "|reply|" in w.effect_key]
        assert keys == sorted(keys)
        assert len(keys) == len(set(keys))
