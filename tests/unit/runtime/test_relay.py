"""At what pace a relay publishes: at once for those who wait, and in batches where nobody does."""

import asyncio
import itertools
from datetime import UTC, datetime

from services.runtime.kafka_clients import Producer
from services.runtime.postgres import Database, connect
from services.runtime.relay import Relay
from services.runtime.stop import Stop, Wake
from tests.virtual import VirtualTime, live

BEGINS_AT = datetime(2026, 11, 25, 6, 0, 0, tzinfo=UTC)
EVERY_SECONDS = 0.01
EVENTS = 100


class Counting(Relay):
    """Remembers what was published when. What it publishes are numbers, and nobody takes them."""

    def __init__(self, database: Database, seconds_min: float) -> None:
        super().__init__(database, "actor", Producer(), Wake(), seconds_min=seconds_min)
        self.published: list[tuple[float, int]] = []
        self.owed = 0

    async def publish_once(self) -> int:
        self.published.append((asyncio.get_running_loop().time(), self.owed))
        taken, self.owed = self.owed, 0
        return taken

    def say(self) -> None:
        self.owed += 1
        self.wake()


async def batches(seconds_min: float) -> list[tuple[float, int]]:
    """When how much was published, while an event was said every hundredth of a second."""
    stop = Stop()
    async with connect("postgresql://nobody", schema="actor") as database, asyncio.TaskGroup() as group:
        relay = Counting(database, seconds_min)
        group.create_task(relay.run(stop))
        for _ in range(EVENTS):
            await asyncio.sleep(EVERY_SECONDS)
            relay.say()
        await asyncio.sleep(1)
        stop.set()
    return [one for one in relay.published if one[1]]


def test_what_nobody_waits_for_is_published_in_batches_and_nothing_is_left() -> None:
    async def scenario(_: VirtualTime) -> None:
        at_once, at_leisure = await batches(0.0), await batches(0.1)

        assert [n for _, n in at_once] == [1] * EVENTS
        assert sum(n for _, n in at_leisure) == EVENTS
        assert len(at_leisure) <= EVENTS * EVERY_SECONDS / 0.1 + 1
        times = [at for at, _ in at_leisure]
        assert all(after - before > 0.099 for before, after in itertools.pairwise(times))

    live(scenario, begins_at=BEGINS_AT)
