"""The broker dies, hangs, and is slow, under load: webhooks are taken all the same, and nothing is lost."""

import asyncio
from random import Random

from tests.chaos.conftest import Chaos
from tests.chaos.system import Plan
from tests.chaos.troubles import BROKER_AWAY_SECONDS, broker_killed

WORK_SECONDS = 6.0
"""From outage to outage, for work to go on."""
SLOW_SECONDS = 0.25
"""Added to each piece on its way to the broker."""
TAKEN_OR_REFUSED = {202, 401}
"""What intake answers whether there is a broker or not; the second to forged and stale signatures."""


async def test_a_broker_that_dies_hangs_and_is_slow_loses_nothing_and_fails_no_webhook(chaos: Chaos) -> None:
    kills, seconds = chaos.size(full=12, short=2), chaos.size(full=60, short=15)
    tickets = chaos.size(full=1500, short=150)
    async with chaos.system(Plan(proxied=True)) as system, asyncio.TaskGroup() as group:
        playing = group.create_task(system.play(tickets, kills * (WORK_SECONDS + BROKER_AWAY_SECONDS) + 3 * seconds))
        chance = Random(chaos.seed)
        for _ in range(kills):
            await asyncio.sleep(WORK_SECONDS * chance.uniform(0.5, 1.5))
            await broker_killed(system)
        await asyncio.sleep(WORK_SECONDS)
        async with system.outage():
            with system.broker.away():
                await asyncio.sleep(seconds)
        await asyncio.sleep(WORK_SECONDS)
        async with system.outage():
            system.broker_proxy.delay_seconds = SLOW_SECONDS
            await asyncio.sleep(seconds)
            system.broker_proxy.delay_seconds = 0.0
        await playing
        await system.judge()

    assert set(system.door.answers) == TAKEN_OR_REFUSED
