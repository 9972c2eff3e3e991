"""Whether a process is served: each regime of its models has passed its evals, or a person admitted it."""

from collections.abc import Mapping
from pathlib import Path

import structlog
from prometheus_client import Gauge
from pydantic import ValidationError

from services.classifier.domain.regime import RECORDS, Record
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Database
from services.runtime.process import Process
from services.runtime.stop import Stop

WAITING_LOOK_SECONDS = 0.5
LOOK_SECONDS = 3.0
"""Once all are admitted; `control.live_regimes` forgets what was not seen for three times as long."""

_SAY = """
INSERT INTO control.regimes AS r (process, model, regime)
SELECT $1, * FROM unnest($2::text[], $3::text[]) ORDER BY 2, 3
ON CONFLICT (process, regime) DO UPDATE SET seen_at = clock_timestamp(),
    since = CASE WHEN r.seen_at < clock_timestamp() - interval '10 seconds' THEN clock_timestamp() ELSE r.since END
RETURNING model, admitted_at IS NOT NULL AS admitted
"""

log = structlog.get_logger()
waits = Gauge(
    "nightshift_regime_waits",
    "1 while the process is not served, for this model's regime has no passed eval on record",
    ["process", "model"],
)


class Admission:
    """Whether work of one process may be claimed. What waits is not lost, and goes on once a person admits it."""

    def __init__(self, database: Database, process: Process, regimes: Mapping[str, str]) -> None:
        """`regimes` by model: each needs its own record."""
        self._database = database
        self._process = process.name
        recorded = recorded_regimes(process.records)
        self._unrecorded = {model: regime for model, regime in regimes.items() if regime not in recorded}
        self._given = not self._unrecorded
        for model in regimes:
            waits.labels(process.name, model).set(model in self._unrecorded)

    def given(self) -> bool:
        """Whether work may be claimed, as far as is known; no until somebody looked."""
        return self._given

    async def run(self, stop: Stop) -> None:
        """Say what has no record, and see whether a person admitted it, until told to stop."""
        for model, regime in self._unrecorded.items():
            log.warning("no passed eval on record", process=self._process, model=model, regime=regime)
        if not self._unrecorded:
            await stop.wait()
        while not stop.is_set():
            try:
                await self.look()
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("admission waits for postgres", error=type(error).__name__)
            await stop.wait(LOOK_SECONDS if self._given else WAITING_LOOK_SECONDS)

    async def look(self) -> None:
        """Once."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SAY, self._process, list(self._unrecorded), list(self._unrecorded.values()))
        for row in rows:
            waits.labels(self._process, row["model"]).set(not row["admitted"])
        given = all(row["admitted"] for row in rows)
        if given != self._given:
            log.info("a person admitted it" if given else "not admitted any more", process=self._process)
        self._given = given


def recorded_regimes(folder: Path) -> frozenset[str]:
    """The regimes that passed, by the records that lie in a process's folder."""
    found = set[str]()
    for file in sorted(folder.glob(RECORDS)):
        try:
            record = Record.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            log.warning("a record of evals cannot be read", file=str(file), error=type(error).__name__)
            continue
        if record.passed is not None:
            found.add(record.regime)
    return frozenset(found)
