"""Records of any topic become entries of the log, and the projections of their cases follow in the same transaction."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

import structlog
from prometheus_client import Counter, Histogram

from contracts.envelope import Record
from contracts.events import REGISTRY
from services.reporter.domain.log import Entry, Told, entry_of, history_of
from services.reporter.domain.projection import Projected, project
from services.reporter.domain.sla import Policy
from services.reporter.ports import Store
from services.runtime.failures import Later, tell
from services.runtime.inbox import handled_total, known_total, unknown_total

log = structlog.get_logger()
STUCK_SECONDS = 60.0
"""While Postgres is away a batch is given up and taken again, so that does not count."""

batch_seconds = Histogram("nightshift_reporter_batch_seconds", "From a batch in hand to its commit")
unprojected_total = Counter(
    "nightshift_reporter_unprojected_total", "Cases whose events are in the log and whose projection failed"
)


class Projector:
    """Projects cases under the SLA policy of their process."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self._policies = policies

    def __call__(self, told: Mapping[str, Sequence[Told]]) -> list[Projected]:
        histories = [history_of(told[case_id]) for case_id in sorted(told)]
        return [project(history, self._policies.get(history.process)) for history in histories]


class Appender:
    """Takes records in, each once, whatever their order, and loses none, understood or not."""

    def __init__(self, store: Store, projector: Projector, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._projector = projector
        self._clock = clock
        self._began: float | None = None

    async def stuck(self) -> str | None:
        """A health check: fails while one batch has been in hand for longer than STUCK_SECONDS."""
        held = 0.0 if self._began is None else self._clock() - self._began
        return f"a batch of events is in hand since {held:.0f} s" if held > STUCK_SECONDS else None

    async def take(self, records: Sequence[Record]) -> None:
        """Append and project a batch in one transaction; a case that cannot be projected spoils no other.

        Raises what `failures.tell` calls Later (Postgres is away): nothing is committed then; call again.
        """
        self._began = self._clock()
        try:
            await self._take(records)
            batch_seconds.observe(self._clock() - self._began)
        finally:
            self._began = None

    async def _take(self, records: Sequence[Record]) -> None:
        once = {entry.event_id: entry for entry in map(entry_of, reversed(records))}
        entries = [once[event_id] for event_id in sorted(once)]
        try:
            await self._append(entries)
        except Exception as error:
            if isinstance(tell(error), Later):
                raise
            log.warning("a batch failed; its cases are tried singly", size=len(entries), error=type(error).__name__)
            for case_id in sorted({entry.case_id for entry in entries}):
                await self._append_alone([entry for entry in entries if entry.case_id == case_id])

    async def _append(self, entries: Sequence[Entry]) -> None:
        async with self._store.transaction() as book:
            await book.hold(sorted({entry.case_id for entry in entries}))
            added = await book.append(entries)
            touched = {entry.case_id for entry in entries if entry.event_id in added}
            if touched:
                await book.replace(self._projector(await book.told_of(sorted(touched))))
        _count(entries, added)

    async def _append_alone(self, entries: Sequence[Entry]) -> None:
        try:
            await self._append(entries)
        except Exception as error:
            if isinstance(tell(error), Later):
                raise
            log.error(  # noqa: TRY400  # a traceback may quote people's text
                "a case cannot be projected; the log has its events", error=type(error).__name__
            )
            unprojected_total.inc()
            async with self._store.transaction() as book:
                await book.hold([entries[0].case_id])
                await book.append(entries)


def _count(entries: Sequence[Entry], added: Collection[UUID]) -> None:
    known_total.labels("reporter").inc(len(entries) - len(added))
    for entry in entries:
        if entry.event_id not in added:
            continue
        if entry.type in REGISTRY:
            handled_total.labels("reporter", entry.type).inc()
        else:
            unknown_total.labels("reporter").inc()
