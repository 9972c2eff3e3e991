"""A door's system, read at its pace and behind a breaker: neither an outage nor its end is met by a stampede."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from connectors.protocol import PlainChange, Reads
from contracts.failures import LaterError, PermanentError
from services.runtime.pace import Breaker, Pace, heard

BREAKER_FAILURES = 5
BREAKER_OPEN_SECONDS = 15.0
LOOK_AGAIN_SECONDS = 5.0
"""What waits for the door asks again no sooner."""
TURN_SECONDS_MAX = 1.0
"""Whoever would wait longer for its turn holds no worker meanwhile."""


class PacedReads:
    """Implements Reads. What may not be read now waits as work waits (LaterError), and holds no worker up."""

    def __init__(
        self,
        reads: Reads,
        *,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._reads = reads
        self._clock = clock
        self._sleep = sleep
        self.breaker = Breaker(failures_max=BREAKER_FAILURES, open_seconds=BREAKER_OPEN_SECONDS)
        self.pace = Pace(per_second=per_second)

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        """See Reads. Each takes its turn, in the order in which they came."""
        self._refuse_while_closed()
        seconds = self.pace.wait_seconds(self._clock())
        if seconds > TURN_SECONDS_MAX:
            raise _later(seconds)
        self.pace.take(self._clock(), 1)
        if seconds > 0:
            await self._sleep(seconds)
            try:
                self._refuse_while_closed()
            except LaterError:
                self.pace.give_back(1)
                raise
        self.breaker.begin(self._clock())
        try:
            changes = await self._reads.read(object_id)
        except (LaterError, PermanentError) as failure:
            heard(failure, self.breaker, self.pace, now=self._clock())
            raise
        except BaseException:  # cancelled, or a fault of ours: it says nothing about the other side
            self.breaker.gave_up()
            raise
        heard(changes, self.breaker, self.pace, now=self._clock())
        return changes

    def _refuse_while_closed(self) -> None:
        now = self._clock()
        waits = self.breaker.wait_seconds(now)
        if self.pace.paused(now):
            waits = max(waits, self.pace.wait_seconds(now))
        if waits > 0:
            raise _later(waits)


def _later(seconds: float) -> LaterError:
    message = "what stands behind the door is left alone for now"
    return LaterError("unavailable", message, seconds=max(seconds, LOOK_AGAIN_SECONDS))
