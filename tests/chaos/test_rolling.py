"""Two of each service share the work, and all are restarted one after the other under load."""

import asyncio

from services.runtime.migrate import SERVICES
from tests.chaos.conftest import Chaos
from tests.chaos.system import Plan, System, url_of
from tests.waiting import until

TAKEN_OR_REFUSED = {202, 401}
"""The second to forged and stale signatures."""
SECONDS_PER_RESTART = 8.0


async def test_two_of_each_restarted_one_by_one_lose_nothing_and_fail_no_webhook(chaos: Chaos) -> None:
    rounds = chaos.size(full=5, short=1)
    restarts = rounds * 2 * len(SERVICES)
    async with chaos.system(Plan(replicas=2)) as system, asyncio.TaskGroup() as group:
        seconds = restarts * SECONDS_PER_RESTART
        playing = group.create_task(system.play(int(seconds * 5), seconds))
        for _ in range(rounds):
            for name in system.names:
                await restart(system, name)
        await playing
        await system.judge()

    chaos.figures.notes["restarts"] = restarts
    assert set(system.door.answers) == TAKEN_OR_REFUSED
    assert chaos.figures.kills == 0


async def restart(system: System, name: str) -> None:
    """As a rollout does it: out of service, SIGTERM, and in service again once it is ready."""
    pid, in_service = system.supervisor.pid(name), system.door.in_service
    system.door.in_service = [url for url in in_service if url != url_of(system.supervisor.services[name])]
    system.stop(name)
    await until(lambda: system.supervisor.pid(name) not in {pid, None})

    async def ready() -> bool:
        return await system.ready(name)

    await until(ready)
    system.door.in_service = in_service
