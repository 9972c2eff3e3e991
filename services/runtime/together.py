"""Several callers, one batch: what comes while a batch is in hand is handled as the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Batch(Generic[T]):
    items: list[T] = field(default_factory=list)
    done: bool = False


class Together(Generic[T]):
    """Hands on what several callers bring, one batch at a time, in the order in which the batches began."""

    def __init__(self, handle: Callable[[Sequence[T]], Awaitable[object]]) -> None:
        self._handle = handle
        self._gathering: _Batch[T] = _Batch()
        self._turn = asyncio.Lock()

    async def handle(self, items: Sequence[T]) -> None:
        """Returns when a batch that holds `items` was handled.

        Where handling raises, or its caller is cancelled, the next caller of that batch handles it again.
        """
        batch = self._gathering
        batch.items += items
        async with self._turn:
            if batch.done:
                return
            if self._gathering is batch:
                self._gathering = _Batch()
            await self._handle(batch.items)
            batch.done = True
