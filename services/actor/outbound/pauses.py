"""What the kill switch took: from a pause to the last effect that was still put on the wire."""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import Histogram

from services.actor.outbound.lane import Lane
from services.runtime.postgres import UNAVAILABLE, Database
from services.runtime.stop import Stop

LOOK_SECONDS = 0.5

_SWITCH = (
    "SELECT generation, paused, extract(epoch FROM clock_timestamp() - changed_at)::float8 AS ago"
    " FROM control.switches WHERE process = $1"
)

log = structlog.get_logger()
last_effect_seconds = Histogram(
    "nightshift_pause_to_last_effect_seconds",
    "From a pause to the last effect that was still put on the wire; 0 where none was",
    ["process"],
    buckets=(0.0, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
)


class Pauses:
    """Measures each pause of one process once, when what was claimed before it has ended.

    One that is over before that, or was there when the service began, is not measured.
    """

    def __init__(
        self, database: Database, process: str, lanes: Sequence[Lane], clock: Callable[[], float] | None = None
    ) -> None:
        """`clock`: the lanes'."""
        self._database = database
        self._process = process
        self._lanes = lanes
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._known: int | None = None

    async def run(self, stop: Stop) -> None:
        """Until told to stop."""
        while not stop.is_set():
            try:
                await self.look()
            except UNAVAILABLE as error:
                log.warning("pauses are not seen without postgres", error=type(error).__name__)
            await stop.wait(LOOK_SECONDS)

    async def look(self) -> None:
        """Measure a pause that is new and settled."""
        now = self._clock()
        async with self._database.connection() as connection:
            switch = await connection.fetchrow(_SWITCH, self._process)
        generation = switch["generation"] if switch is not None else 0
        if self._known is None or switch is None or not switch["paused"]:
            self._known = generation
        if generation == self._known or any(lane.busy for lane in self._lanes):
            return
        assert switch is not None, "a generation is a switch's"
        self._known, paused_at = generation, now - switch["ago"]
        sent = [lane.sent_at for lane in self._lanes if lane.sent_at is not None]
        seconds = max([0.0, *(at - paused_at for at in sent)])
        last_effect_seconds.labels(self._process).observe(seconds)
        log.info("paused", process=self._process, generation=generation, last_effect_seconds=round(seconds, 3))
