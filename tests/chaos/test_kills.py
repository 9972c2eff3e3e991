"""A thousand tickets, every webhook sent up to three times, shuffled, and forty kills: the outside's books decide."""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from nightshift.demo.play import Demo, Order, demo
from nightshift.demo.summary import Promise

SEED = 4
TICKETS = int(os.environ.get("NIGHTSHIFT_CHAOS_TICKETS", "1000"))
NIGHT_SECONDS = 280.0
"""Seven seconds from kill to kill: a service dies again about when it has taken up its work."""
SETTLE_SECONDS_MAX = 120.0
KILLS_OF_EACH = 10
SERVICES = ("ingest", "classifier", "actor", "reporter")
MISCHIEF = ("--copies-max=3", "--shuffled-percent=100", "--forged-percent=2", "--stale-percent=2")


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nightshift-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "state"


def quiet(phase: str, share: float, done: Mapping[str, int]) -> None:
    del phase, share, done


async def kill_now_and_then(running: Demo, night: "asyncio.Task[list[Promise]]") -> int:
    """kill -9 each service ten times, in random order, spread over the night."""
    chance = Random(SEED)
    order = [name for name in SERVICES for _ in range(KILLS_OF_EACH)]
    chance.shuffle(order)
    pause = running.order.night_seconds * 0.9 / len(order)
    killed = 0
    for name in order:
        await asyncio.wait([night], timeout=pause * chance.uniform(0.5, 1.5))
        if night.done():
            break
        running.stack.kill(name)
        killed += 1
    return killed


async def test_forty_kills_in_a_night_of_a_thousand_tickets_lose_nothing_and_do_nothing_twice(state: Path) -> None:
    order = Order(
        state=state,
        tickets=TICKETS,
        seed=SEED,
        mischief=MISCHIEF,
        seconds=NIGHT_SECONDS,
        settle_seconds_max=SETTLE_SECONDS_MAX,
    )
    async with demo(order) as running, asyncio.TaskGroup() as group:
        night = group.create_task(running.night(quiet))
        killing = group.create_task(kill_now_and_then(running, night))

    broken = {promise.name: promise.figure for promise in night.result() if not promise.held}
    assert broken == {}
    assert killing.result() == KILLS_OF_EACH * len(SERVICES)
