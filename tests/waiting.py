"""Waiting for something that happens by itself."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 60


async def until(true: Callable[[], object | Awaitable[object]]) -> None:
    """Until what is asked is true. Raises TimeoutError when it never is."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (await told if inspect.isawaitable(told := true()) else told):
            await asyncio.sleep(0.01)
