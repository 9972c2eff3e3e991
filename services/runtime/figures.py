"""What a service owes and what waits in it, as metrics: read now and then, whether the broker is there or not."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from prometheus_client import Gauge

from services.runtime.postgres import UNAVAILABLE, Database
from services.runtime.stop import Stop

LOOK_SECONDS = 10.0
COUNTED_MAX = 10_000
"""Unpublished rows are counted up to here: after a long outage a look costs no more than this."""

_OWED = """
SELECT count(*) AS waiting, extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS age
FROM (SELECT created_at FROM {schema}.outbox WHERE published_at IS NULL AND refused IS NULL ORDER BY id LIMIT $1) owed
"""

log = structlog.get_logger()
unpublished = Gauge("nightshift_outbox_unpublished", "Events that wait for the broker, up to 10,000", ["schema"])
unpublished_seconds = Gauge(
    "nightshift_outbox_oldest_unpublished_seconds", "Age of the oldest event that waits for the broker", ["schema"]
)
oldest_seconds = Gauge(
    "nightshift_oldest_claimable_task_seconds",
    "How long the oldest work that may be claimed has waited; 0 while none does or the process is off",
    ["service", "process", "kind"],
)

Age = Callable[[], Awaitable[float]]
"""In seconds; 0.0 where nothing waits."""


class Figures:
    """Sets the gauges from time to time."""

    def __init__(
        self,
        database: Database,
        service: str,
        *,
        outboxes: Sequence[str],
        oldest: Mapping[tuple[str, str], Age] | None = None,
    ) -> None:
        """`outboxes`: the schemas whose outbox this service publishes. `oldest`: by process and kind of work."""
        self._database = database
        self._service = service
        self._outboxes = outboxes
        self._oldest = oldest or {}

    async def run(self, stop: Stop) -> None:
        """Until told to stop; while Postgres is away the last figures stand."""
        while not stop.is_set():
            try:
                await self.look()
            except UNAVAILABLE as error:
                log.warning("figures wait for postgres", error=type(error).__name__)
            await stop.wait(LOOK_SECONDS)

    async def look(self) -> None:
        """Once."""
        for schema in self._outboxes:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(_OWED.format(schema=schema), COUNTED_MAX)
            assert row is not None, "it is a row of sums"
            unpublished.labels(schema).set(row["waiting"])
            unpublished_seconds.labels(schema).set(row["age"] or 0.0)
        for (process, kind), age in self._oldest.items():
            oldest_seconds.labels(self._service, process, kind).set(await age())
