"""Services killed at random moments, all at once, and exactly between two steps that belong together."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from random import Random

from tests.chaos.conftest import Chaos
from tests.chaos.proxy import Proxy, Strike, commits, commits_offsets, publishes
from tests.chaos.system import Plan, System

KILL_SECONDS = 3.0
"""From kill to kill: each service dies again about when it has taken up its work."""
KILL_SECONDS_MAX = 20.0
"""So long each may take on a busy machine."""
TICKETS_PER_KILL = 5

Prepare = Callable[[System, Counter[str]], None]
"""Arranges that somebody dies when that moment comes, and is counted."""


def in_an_effect(system: System, died: Counter[str]) -> None:
    """After the change was applied outside, before the answer."""

    async def die(port: int) -> None:
        system.gate.applied = None
        died["in an effect"] += await system.kill_caller(port)

    system.gate.applied = die


def at(moment: str, matches: Callable[[bytes], bool], *, answered: bool, on: Callable[[System], Proxy]) -> Prepare:
    """Before the server got what matches, or after it did it and before the service heard of that."""

    def prepare(system: System, died: Counter[str]) -> None:
        async def die(port: int) -> None:
            died[moment] += await system.kill_caller(port)

        on(system).strike = Strike(matches, answered, die)

    return prepare


def broker_proxy(system: System) -> Proxy:
    return system.broker_proxy


def postgres_proxy(system: System) -> Proxy:
    return system.postgres_proxy


MOMENTS: dict[str, Prepare] = {
    "in an effect": in_an_effect,
    **{
        name: at(name, matches, answered=answered, on=on)
        for name, matches, answered, on in (
            ("before a commit", commits, False, postgres_proxy),
            ("after a commit", commits, True, postgres_proxy),
            ("between commit and publish", publishes, False, broker_proxy),
            ("published, not noted", publishes, True, broker_proxy),
            ("handled, offset not committed", commits_offsets, False, broker_proxy),
        )
    },
}


async def test_kills_at_any_moment_lose_nothing_and_do_nothing_twice(chaos: Chaos) -> None:
    kills = chaos.size(full=200, short=16)
    died: Counter[str] = Counter()
    over = asyncio.Event()
    async with chaos.system(Plan(proxied=True)) as system, asyncio.TaskGroup() as group:
        playing = group.create_task(nights(system, kills, over))
        async with asyncio.timeout(kills * KILL_SECONDS_MAX):
            await kill(system, kills, died)
        over.set()
        await playing
        await system.judge()

    chaos.figures.notes |= {f"kills {moment}": died[moment] for moment in MOMENTS}


async def nights(system: System, kills: int, over: asyncio.Event) -> None:
    """One after the other, for as long as the killing takes."""
    while not over.is_set():
        await system.play(kills * TICKETS_PER_KILL, kills * KILL_SECONDS)


async def kill(system: System, kills: int, died: Counter[str]) -> None:
    """A random service and whoever comes to the next moment, by turns; now and then all at once.

    Until there were enough, and each moment had its dead.
    """
    chance = Random(system.plan.seed)
    moments = cycle(MOMENTS)
    strikes = 0
    while system.figures.kills < kills or not all(died[moment] for moment in MOMENTS):
        await asyncio.sleep(KILL_SECONDS * chance.uniform(0.5, 1.5))
        strikes += 1
        if strikes % 10 == 5:
            system.kill(*system.names)
        elif strikes % 2:
            system.kill(chance.choice(system.names))
        else:
            MOMENTS[next(moments)](system, died)
