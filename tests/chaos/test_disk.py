"""A disk is full, Postgres' or the broker's: nothing that was taken is lost, and all goes on once there is room."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.conftest import Chaos
from tests.chaos.system import Plan, System
from tests.stacks import ContainerBroker, Embedded, WheelPostgres
from tests.waiting import until

WORK_SECONDS = 5.0
DISK_MB = 512
WAL = {"min_wal_size": "32MB", "max_wal_size": "64MB"}
"""Small, so that the disk is not full of it."""
CHUNK_BYTES = 1 << 12


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own, in memory, in this folder; skips where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)  # our own words
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # as above


def fill(disk: Path) -> Path:
    """Leave no byte of it; the file that holds them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, CHUNK_BYTES):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


async def test_a_broker_whose_disk_is_full_loses_nothing_and_fails_no_webhook(chaos: Chaos) -> None:
    if isinstance(chaos.stack, Embedded):
        pytest.skip("the embedded broker writes nothing to a disk")
    fillings, seconds = chaos.size(full=5, short=1), chaos.size(full=30, short=10)
    with small_disk(chaos.state / "broker") as disk:
        async with chaos.system(Plan()) as system, asyncio.TaskGroup() as group:
            broker = system.broker
            assert isinstance(broker, ContainerBroker), "it is none of the embedded stack"
            length = fillings * (seconds + 3 * WORK_SECONDS)
            playing = group.create_task(system.play(int(length * 6), length))
            for _ in range(fillings):
                await asyncio.sleep(WORK_SECONDS)
                async with system.outage():
                    ballast = fill(disk)
                    await until(lambda: broker.ended)  # its only disk cannot be written
                    await asyncio.sleep(seconds)
                    ballast.unlink()
                    await system.server(broker.start)
                await asyncio.sleep(WORK_SECONDS)
            await playing
            await system.judge()

    assert set(system.door.answers) == {202, 401}


async def test_a_postgres_whose_disk_is_full_loses_nothing_that_was_taken(chaos: Chaos) -> None:
    if not isinstance(chaos.stack, Embedded):
        pytest.skip("the containers' disk is the machine's")
    fillings, seconds = chaos.size(full=5, short=1), chaos.size(full=30, short=10)
    with small_disk(chaos.state / "pg") as disk:
        async with chaos.system(Plan(), **WAL) as system, asyncio.TaskGroup() as group:
            length = fillings * (seconds + 3 * WORK_SECONDS)
            playing = group.create_task(system.play(int(length * 6), length))
            for _ in range(fillings):
                await asyncio.sleep(WORK_SECONDS)
                async with system.outage():
                    await full(system, disk, seconds)
                await asyncio.sleep(WORK_SECONDS)
            await playing
            await system.judge()

    chaos.figures.notes["webhooks answered 503"] = system.door.answers[503]
    assert set(system.door.answers) == {202, 401, 503}


async def full(system: System, disk: Path, seconds: float) -> None:
    """Until a webhook was refused for it, and then for so long."""
    refused = system.door.answers[503]
    ballast = fill(disk)
    await until(lambda: system.door.answers[503] > refused)
    await asyncio.sleep(seconds)
    ballast.unlink()
    assert isinstance(system.postgres, WheelPostgres), "the embedded stack's"
    if system.postgres.pid is None:  # it could not even write its own log, and ended: somebody starts it
        await system.server(system.postgres.restart)
