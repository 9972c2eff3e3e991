"""Waiting for something that happens by itself."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 60


async def until(true: Callable[[], object | Awaitable[object]], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Until what is asked is true. Raises TimeoutError when it is not by then."""
    async with asyncio.timeout(seconds):
        while not (await told if inspect.isawaitable(told := true()) else told):
            await asyncio.sleep(0.01)
