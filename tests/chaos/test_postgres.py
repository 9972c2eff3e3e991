"""Postgres dies, loses its connections, has none left, and is locked: webhooks wait, and nothing is lost."""

import asyncio
from random import Random

from tests.chaos.conftest import Chaos
from tests.chaos.system import Plan
from tests.chaos.troubles import CONNECTIONS_MAX, cut_one_by_one, locked, no_connection_left, postgres_killed

WORK_SECONDS = 5.0


async def test_a_postgres_that_dies_every_now_and_then_loses_nothing(chaos: Chaos) -> None:
    bounces = chaos.size(full=12, short=3)
    pauses = (5.0, chaos.size(full=40, short=8))
    async with chaos.system(Plan()) as system, asyncio.TaskGroup() as group:
        playing = group.create_task(system.play(bounces * 40, bounces * sum(pauses) / 2))
        chance = Random(chaos.seed)
        for _ in range(bounces):
            await asyncio.sleep(chance.uniform(*pauses))
            await postgres_killed(system, chance.uniform(0, 2))
        await playing
        await system.judge()


async def test_a_postgres_that_cuts_connections_has_none_left_or_is_locked_loses_nothing(chaos: Chaos) -> None:
    seconds = chaos.size(full=60, short=15)
    settings = {"max_connections": str(CONNECTIONS_MAX)}
    async with chaos.system(Plan(), **settings) as system, asyncio.TaskGroup() as group:
        playing = group.create_task(system.play(chaos.size(full=1200, short=200), 3 * seconds))
        await asyncio.sleep(WORK_SECONDS)
        async with system.outage():
            chaos.figures.notes["connections cut"] = await cut_one_by_one(system, seconds / 2)
        await asyncio.sleep(WORK_SECONDS)
        async with system.outage(), no_connection_left(system):
            await asyncio.sleep(seconds / 2)
        await asyncio.sleep(WORK_SECONDS)
        async with system.outage(), locked(system):
            await asyncio.sleep(seconds)
        await playing
        await system.judge()

    assert chaos.figures.notes["connections cut"] > seconds
