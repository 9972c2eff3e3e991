"""Two signals inside one service: stop, and wake."""

import asyncio
import contextlib


class Stop:
    """Set once, on SIGTERM; everything that waits waits on it too."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until stopped, or for `seconds`. True when stopped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        return self._event.is_set()


class Wake:
    """Tells one of the loops that wait that there may be something to do. A wake that nobody waits for is not lost."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[None] = asyncio.Queue(maxsize=1)

    def set(self) -> None:
        if not self._told.full():
            self._told.put_nowait(None)

    async def wait(self, seconds: float, stop: Stop) -> None:
        """Wait until woken, stopped, or for `seconds`."""
        if not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._told.get()
