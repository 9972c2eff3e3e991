"""What may befall a running system: its services killed at a moment, its broker and Postgres dead, cut off, locked."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg

from services.runtime.postgres import UNAVAILABLE
from tests.chaos.proxy import Proxy, Strike, commits, commits_offsets, publishes
from tests.chaos.system import DATABASE, System

BROKER_AWAY_SECONDS = 3.0
CONNECTIONS_MAX = 60
CUT_EVERY_SECONDS = 0.1
_CUT_ONE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name LIKE 'nightshift %' ORDER BY random() LIMIT $1
"""
_LOCK = "LOCK TABLE ingest.outbox, classifier.tasks, actor.effects, reporter.projections IN ACCESS EXCLUSIVE MODE"

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


async def broker_killed(system: System) -> None:
    """It forgets everything where it is the embedded one."""
    async with system.outage():
        await system.server(system.broker.kill)
        await asyncio.sleep(BROKER_AWAY_SECONDS)
        await system.server(system.broker.start)


async def postgres_killed(system: System, seconds: float) -> None:
    """And away for so long."""
    async with system.outage():
        await system.server(system.postgres.kill)
        await asyncio.sleep(seconds)
        await system.server(system.postgres.restart)


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
