"""Whether a process is served: each regime of its models has passed its evals, or a person admitted it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import structlog
from prometheus_client import Gauge
from pydantic import ValidationError

from contracts.failures import LaterError, PermanentError
from services.classifier.domain.regime import RECORDS, Record
from services.classifier.ports import Answer, Ask, Cost, Provider
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Connection, Database
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

_ADMITTED = """
SELECT count(*) FROM control.regimes WHERE process = $1 AND regime = ANY($2) AND admitted_at IS NOT NULL
"""
_NOT_LOOKED_AT = LaterError(
    "model_unreachable", "its machine did not say yet which weights it has", seconds=LOOK_SECONDS
)

log = structlog.get_logger()
waits = Gauge(
    "nightshift_regime_waits",
    "1 while the process is not served, for this model's regime has no passed eval on record",
    ["process", "model"],
)


class Admission:
    """Whether work of one process may be claimed. What waits is not lost, and goes on once a person admits it."""

    def __init__(
        self,
        database: Database,
        process: Process,
        regimes: Mapping[str, str],
        unknown: Mapping[str, Callable[[], Awaitable[str]]] = MappingProxyType({}),
    ) -> None:
        """`regimes` by model: each needs its own record. `unknown`: where another machine must be asked for it first.

        That machine may be away. Until it answers its model may not be asked, and the others may.
        """
        self._database = database
        self._process = process.name
        self._recorded = recorded_regimes(process.records)
        self.regimes = dict[str, str]()
        """By model, as far as they are known."""
        self._unrecorded = dict[str, str]()
        self._unknown: dict[str, tuple[Callable[[], Awaitable[str]], LaterError | PermanentError]] = {
            model: (find, _NOT_LOOKED_AT) for model, find in unknown.items()
        }
        self._given = True
        for model, regime in regimes.items():
            self._learn(model, regime)

    def _learn(self, model: str, regime: str) -> None:
        self._unknown.pop(model, None)
        self.regimes[model] = regime
        waits.labels(self._process, model).set(regime not in self._recorded)
        if regime not in self._recorded:
            log.warning("no passed eval on record", process=self._process, model=model, regime=regime)
            self._unrecorded[model] = regime
            self._given = False

    def check(self, model: str) -> None:
        """Raises LaterError where the model may not be asked yet."""
        if model in self._unknown:
            _, why = self._unknown[model]
            raise LaterError(why.code, str(why), seconds=LOOK_SECONDS)
        if model in self._unrecorded and not self._given:
            raise LaterError("model_left_alone", "it has no passed eval on record", seconds=LOOK_SECONDS)

    def given(self) -> bool:
        """Whether work may be claimed, as far as is known; no until somebody looked."""
        return self._given

    async def run(self, stop: Stop) -> None:
        """Say what has no record, and see whether a person admitted it, until told to stop."""
        while not stop.is_set():
            if not self._unrecorded and not self._unknown:
                await stop.wait()
                return
            try:
                await self.look()
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("admission waits for postgres", error=type(error).__name__)
            await stop.wait(LOOK_SECONDS if self._given else WAITING_LOOK_SECONDS)

    async def look(self) -> None:
        """Once."""
        for model, (find, _) in list(self._unknown.items()):
            regime = await _found(find)
            if isinstance(regime, str):
                self._learn(model, regime)
            else:
                self._unknown[model] = find, regime
        if not self._unrecorded:
            return
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SAY, self._process, list(self._unrecorded), list(self._unrecorded.values()))
        for row in rows:
            waits.labels(self._process, row["model"]).set(not row["admitted"])
        given = all(row["admitted"] for row in rows)
        if given != self._given:
            log.info("a person admitted it" if given else "not admitted any more", process=self._process)
        self._given = given


class CandidateAdmission:
    """Whether a candidate may propose for cases: as for what is live, but it says nowhere that it waits."""

    def __init__(
        self, candidate: Process, regimes: Mapping[str, str], unknown: Mapping[str, Callable[[], Awaitable[str]]]
    ) -> None:
        """See Admission."""
        self._process = candidate.name
        self._recorded = recorded_of(candidate)
        self.regimes = dict(regimes)
        """By model, as far as they are known."""
        self._unknown = dict(unknown)

    async def run(self, stop: Stop) -> None:
        """Ask for what only another machine knows, until it is known or told to stop."""
        while self._unknown and not stop.is_set():
            await self.look()
            await stop.wait(LOOK_SECONDS if self._unknown else 0.0)
        await stop.wait()

    async def look(self) -> None:
        """Once."""
        for model, find in list(self._unknown.items()):
            if isinstance(regime := await _found(find), str):
                self.regimes[model] = regime
                del self._unknown[model]

    async def given(self, connection: Connection) -> bool:
        """Whether each of its models has a passed eval on record, or a person admitted it."""
        unrecorded = [*{*self.regimes.values()} - self._recorded]
        if self._unknown or not unrecorded:
            return not self._unknown
        admitted = await connection.fetchval(_ADMITTED, self._process, unrecorded)
        return bool(admitted == len(unrecorded))


async def _found(find: Callable[[], Awaitable[str]]) -> str | LaterError | PermanentError:
    """The regime, or why it is not known yet."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await find()
    except (LaterError, PermanentError) as error:
        return error
    except TimeoutError:
        return _NOT_LOOKED_AT


class AdmittedProvider:
    """Implements ports.Provider: asked once its regime is known, and admitted."""

    def __init__(self, provider: Provider, admission: Admission) -> None:
        self.name = provider.name
        self.weights = provider.weights
        self._provider = provider
        self._admission = admission

    def worst_case(self, ask: Ask) -> Cost | None:
        """See Provider. Nothing is reserved for what is not asked."""
        self._admission.check(self.name)
        return self._provider.worst_case(ask)

    async def propose(self, ask: Ask) -> Answer:
        """See Provider."""
        self._admission.check(self.name)
        return await self._provider.propose(ask)


def recorded_of(process: Process) -> frozenset[str]:
    """The regimes that passed, by the records of a process; of a candidate by its own and the live ones."""
    return recorded_regimes(process.folder) | recorded_regimes(process.records)


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
