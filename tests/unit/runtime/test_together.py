"""What comes while a batch is in hand is the next batch, and nobody's items are lost with somebody else."""

import asyncio
from collections.abc import Sequence

import pytest

from services.runtime.together import Together


class Handler:
    """Handles when it is told to; raises what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failures: list[Exception] = []
        self.may = asyncio.Event()

    async def __call__(self, items: Sequence[str]) -> None:
        await self.may.wait()
        self.batches.append(list(items))
        if self.failures:
            raise self.failures.pop()


async def begun(*tasks: asyncio.Task[None]) -> None:
    """Let every task run until it waits."""
    for _ in tasks:
        await asyncio.sleep(0)


async def test_what_comes_while_a_batch_is_in_hand_is_handled_as_one() -> None:
    handler = Handler()
    together = Together(handler)

    async with asyncio.TaskGroup() as group:
        await begun(*(group.create_task(together.handle([item])) for item in "abc"))
        handler.may.set()
    await together.handle(["d"])

    assert handler.batches == [["a"], ["b", "c"], ["d"]]


async def test_a_caller_that_is_cancelled_takes_nobody_with_it() -> None:
    handler = Handler()
    together = Together(handler)
    tasks = [asyncio.create_task(together.handle([item])) for item in "abc"]
    await begun(*tasks)
    tasks[0].cancel()
    handler.may.set()

    await asyncio.gather(*tasks[1:])

    assert handler.batches == [["b", "c"]]
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_of_one_batch_the_next_caller_handles_all_when_the_first_fails() -> None:
    handler = Handler()
    together = Together(handler)
    tasks = [asyncio.create_task(together.handle([item])) for item in "abc"]
    await begun(*tasks)
    handler.failures = [ValueError("the second batch's first")]
    handler.may.set()
    handler.failures.insert(0, ValueError("again"))

    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError, type(None)]
    assert handler.batches == [["a"], ["b", "c"], ["b", "c"]]
