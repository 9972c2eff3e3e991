"""Postgres dies, loses its connections, has none left, and is locked: webhooks wait, and nothing is lost."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import asyncpg

from services.runtime.postgres import UNAVAILABLE
from tests.chaos.conftest import Chaos
from tests.chaos.system import DATABASE, Plan, System

WORK_SECONDS = 5.0
CONNECTIONS_MAX = 60
CUT_EVERY_SECONDS = 0.1
_CUT_ONE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name LIKE 'nightshift %' ORDER BY random() LIMIT $1
"""
_LOCK = "LOCK TABLE ingest.outbox, classifier.tasks, actor.effects, reporter.projections IN ACCESS EXCLUSIVE MODE"


async def test_a_postgres_that_dies_every_now_and_then_loses_nothing(chaos: Chaos) -> None:
    bounces = chaos.size(full=12, short=3)
    pauses = (5.0, chaos.size(full=40, short=8))
    async with chaos.system(Plan()) as system, asyncio.TaskGroup() as group:
        playing = group.create_task(system.play(bounces * 40, bounces * sum(pauses) / 2))
        chance = Random(chaos.seed)
        for _ in range(bounces):
            await asyncio.sleep(chance.uniform(*pauses))
            async with system.outage():
                await system.server(system.postgres.kill)
                await asyncio.sleep(chance.uniform(0, 2))
                await system.server(system.postgres.restart)
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


async def cut_one_by_one(system: System, seconds: float) -> int:
    """Connections of the services, at random; how many."""
    cut, until = 0, time.monotonic() + seconds
    superuser = await asyncpg.connect(system.postgres.url("postgres", DATABASE))
    try:
        while time.monotonic() < until:
            cut += len(await superuser.fetch(_CUT_ONE, 1))
            await asyncio.sleep(CUT_EVERY_SECONDS)
    finally:
        await superuser.close()
    return cut


@asynccontextmanager
async def no_connection_left(system: System) -> AsyncIterator[None]:
    """All are taken, those that the services had among them, for the length of the block."""
    superuser = await asyncpg.connect(system.postgres.url("postgres", DATABASE))
    taken: list[asyncpg.Connection[asyncpg.Record]] = []
    url = system.postgres.url("nightshift_reporter", DATABASE)
    try:
        for _ in range(3):
            with suppress(*UNAVAILABLE):
                while True:
                    taken.append(await asyncpg.connect(url))
            await superuser.fetch(_CUT_ONE, CONNECTIONS_MAX)
        yield
    finally:
        for connection in (*taken, superuser):
            await connection.close()


@asynccontextmanager
async def locked(system: System) -> AsyncIterator[None]:
    """A session holds a lock on a table of each service, as a person's forgotten psql does."""
    async with system.operator() as connection, connection.transaction():
        await connection.execute(_LOCK)
        yield
