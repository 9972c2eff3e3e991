"""One night in which everything goes wrong that goes wrong in the others, at moments by the seed, several at a time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from random import Random
from typing import Literal

from nightshift.demo import ours
from nightshift.demo.play import PROCESS
from services.runtime.postgres import UNAVAILABLE
from tests.chaos import model
from tests.chaos.conftest import Chaos
from tests.chaos.model import Model
from tests.chaos.system import LOOK_SECONDS, Plan, System
from tests.chaos.troubles import MOMENTS, broker_killed, cut_one_by_one, locked, postgres_killed
from tests.fakes.admitted import admitted
from tests.fakes.world import served

BETWEEN_SECONDS = (1.0, 4.0)
LASTS_SECONDS = 4.0
TICKETS_PER_SECOND = 4
NIGHT_SECONDS = 10.0
"""One follows the other for as long as there is trouble."""
AHEAD = timedelta(hours=2)
"""So far is the help desk's clock ahead of ours."""
TOLERANT = "support.doors.zendesk.tolerance_seconds = 10800\n"
TROUBLED_PERCENT = 60

Do = Callable[[], Awaitable[None]]


async def test_a_night_of_all_troubles_together_loses_nothing_and_does_nothing_twice(chaos: Chaos) -> None:
    rounds = chaos.size(full=4, short=1)
    asked, died, over = Model(Random(chaos.seed)), Counter[str](), asyncio.Event()
    async with served(asked) as model_url:
        settings = {
            "NIGHTSHIFT_MODEL": f"claude:{model.NAME}",
            "NIGHTSHIFT_ANTHROPIC_API_KEY": "a key",
            "NIGHTSHIFT_ANTHROPIC_URL": model_url,
        }
        plan = Plan(proxied=True, overrides=TOLERANT, settings=settings)
        async with chaos.system(plan) as system, asyncio.TaskGroup() as group:
            await admitted(system.admin_url, PROCESS)
            system.clock.ahead = AHEAD
            playing = group.create_task(system.nights(over, int(NIGHT_SECONDS * TICKETS_PER_SECOND), NIGHT_SECONDS))
            hands = (servers(system), services(system, died), outside(system, asked))
            async with asyncio.TaskGroup() as troubling:
                for number, troubles in enumerate(hands):
                    troubling.create_task(befall(troubles * rounds, Random(f"{chaos.seed}:{number}")))
            over.set()
            await playing
            nobody_else_dies(system)
            await system.judge()

    chaos.figures.notes |= {
        "troubles": rounds * sum(map(len, hands)),
        "kills at a chosen moment": died.total(),
        "calls of the model in trouble": asked.met,
    }
    assert asked.met > 0


async def befall(troubles: Sequence[Do], chance: Random) -> None:
    """One after the other, in an order by chance, with some time between."""
    for do in chance.sample(troubles, len(troubles)):
        await asyncio.sleep(chance.uniform(*BETWEEN_SECONDS))
        await do()


def servers(system: System) -> list[Do]:
    """The broker dies and hangs; Postgres dies, cuts connections, and is locked."""

    async def broker_hangs() -> None:
        async with system.outage():
            with system.broker.away():
                await asyncio.sleep(LASTS_SECONDS)

    async def connections_cut() -> None:
        async with system.outage():
            await cut_one_by_one(system, LASTS_SECONDS)

    async def tables_locked() -> None:
        async with system.outage(), locked(system):
            await asyncio.sleep(LASTS_SECONDS)

    return [
        partial(broker_killed, system),
        broker_hangs,
        partial(postgres_killed, system, 1.0),
        connections_cut,
        tables_locked,
    ]


def services(system: System, died: Counter[str]) -> list[Do]:
    """One is killed, or all are, or whoever comes to a moment between two steps that belong together."""

    async def kill(*names: str) -> None:
        system.kill(*names)

    async def kill_at(moment: str) -> None:
        MOMENTS[moment](system, died)

    return [
        *(partial(kill, name) for name in system.names),
        partial(kill, *system.names),
        *(partial(kill_at, moment) for moment in MOMENTS),
    ]


def outside(system: System, asked: Model) -> list[Do]:
    """Zendesk is away or fails, the model is in trouble, and somebody pauses the process."""
    faults = system.world.api.faults

    async def down(how: Literal["503", "cut"]) -> None:
        faults.down = how
        await asyncio.sleep(LASTS_SECONDS)
        faults.down = ""

    async def fails() -> None:
        faults.percent = {"fail": 10, "rate_limited": 10, "effect_then_500": 10, "effect_then_cut": 10}
        await asyncio.sleep(LASTS_SECONDS)
        faults.percent = {}

    async def model_in_trouble() -> None:
        asked.troubled_percent = TROUBLED_PERCENT
        await asyncio.sleep(2 * LASTS_SECONDS)
        asked.troubled_percent = 0

    async def paused() -> None:
        await switched(system, paused=True)
        await asyncio.sleep(LASTS_SECONDS)
        await switched(system, paused=False)

    return [partial(down, "503"), partial(down, "cut"), fails, *[model_in_trouble] * 3, paused]


async def switched(system: System, *, paused: bool) -> None:
    """As soon as Postgres takes it."""
    while True:
        try:
            async with system.operator() as connection:
                await ours.switch(connection, PROCESS, paused=paused, reason="a night of all together")
        except UNAVAILABLE:
            await asyncio.sleep(LOOK_SECONDS)
        else:
            return


def nobody_else_dies(system: System) -> None:
    """Whoever was to die at a moment that has not come lives."""
    system.gate.applied = None
    system.broker_proxy.strike = system.postgres_proxy.strike = None
