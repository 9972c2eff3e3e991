"""Services killed at random moments, all at once, and exactly between two steps that belong together."""

import asyncio
from collections import Counter
from itertools import cycle
from random import Random

from tests.chaos.conftest import Chaos
from tests.chaos.system import Plan, System
from tests.chaos.troubles import MOMENTS

KILL_SECONDS = 3.0
"""From kill to kill: each service dies again about when it has taken up its work."""
KILL_SECONDS_MAX = 20.0
"""So long each may take on a busy machine."""
TICKETS_PER_KILL = 5


async def test_kills_at_any_moment_lose_nothing_and_do_nothing_twice(chaos: Chaos) -> None:
    kills = chaos.size(full=200, short=16)
    died: Counter[str] = Counter()
    over = asyncio.Event()
    async with chaos.system(Plan(proxied=True)) as system, asyncio.TaskGroup() as group:
        playing = group.create_task(system.nights(over, kills * TICKETS_PER_KILL, kills * KILL_SECONDS))
        async with asyncio.timeout(kills * KILL_SECONDS_MAX):
            await kill(system, kills, died)
        over.set()
        await playing
        await system.judge()

    chaos.figures.notes |= {f"kills {moment}": died[moment] for moment in MOMENTS}


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
