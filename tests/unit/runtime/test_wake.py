"""A wake: for one of those that wait, and never lost."""

import asyncio

from services.runtime.stop import Stop, Wake

LONG_SECONDS = 60.0
AT_ONCE_SECONDS = 5.0


async def test_one_of_those_that_wait_is_woken_by_each_wake() -> None:
    wake, stop = Wake(), Stop()
    async with asyncio.TaskGroup() as group, asyncio.timeout(AT_ONCE_SECONDS):
        waiting = {group.create_task(wake.wait(LONG_SECONDS, stop)) for _ in range(2)}
        await asyncio.sleep(0)
        wake.set()
        woken, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        wake.set()

    assert (len(woken), len(others)) == (1, 1)


async def test_a_wake_that_nobody_waits_for_is_not_lost_and_many_of_them_are_one() -> None:
    wake, stop = Wake(), Stop()
    wake.set()
    wake.set()

    async with asyncio.timeout(AT_ONCE_SECONDS):
        await wake.wait(LONG_SECONDS, stop)
    await wake.wait(0.0, stop)  # nothing is left: it waits as long as it is told

    next_one = asyncio.create_task(wake.wait(LONG_SECONDS, stop))
    await asyncio.sleep(0)
    assert not next_one.done()
    next_one.cancel()
