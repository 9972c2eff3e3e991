"""Waiting for something that happens by itself."""

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 60


async def until(true: Callable[[], bool]) -> None:
    """Raises TimeoutError when it never comes true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():
            await asyncio.sleep(0.01)
