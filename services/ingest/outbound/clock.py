"""Receipts are dated by Postgres' clock, as everything else of ours is: a machine whose own is off dates no news wrong.

What was read before a hint came need not be read again; so a receipt that is dated too early would hide news for ever.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from services.runtime.postgres import CONTENDED, UNAVAILABLE, Database
from services.runtime.stop import Stop

LOOK_SECONDS = 30.0
OFF_SECONDS = 5.0
"""A machine whose clock is off by more is told of."""

log = structlog.get_logger()


class PostgresClock:
    """Asks Postgres now and then what time it is, and counts on from there."""

    def __init__(
        self,
        database: Database,
        *,
        own: Callable[[], float] = time.time,
        rising: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own`: Unix time, until Postgres was asked first. `rising`: seconds that nobody sets."""
        self._database = database
        self._own = own
        self._rising = rising
        self._zero = own() - rising()

    def __call__(self) -> datetime:
        """Now."""
        return datetime.fromtimestamp(self._zero + self._rising(), UTC)

    async def run(self, stop: Stop) -> None:
        """Until told to stop; while Postgres is away the last answer counts on."""
        while not stop.is_set():
            await self.look()
            await stop.wait(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask once. An answer is as of the middle of the time that it took."""
        try:
            async with self._database.connection() as connection:
                before = self._rising()
                at: datetime = await connection.fetchval("SELECT clock_timestamp()")
                after = self._rising()
        except (*UNAVAILABLE, *CONTENDED) as error:
            log.warning("the clock waits for postgres", error=type(error).__name__)
            return
        self._zero = at.timestamp() - (before + after) / 2
        off_seconds = self._own() - self().timestamp()
        if abs(off_seconds) > OFF_SECONDS:
            log.warning("this machine's clock is not that of postgres, which counts", off_seconds=round(off_seconds))
