"""A case changed outside: fold it at once, and want a proposal where somebody now waits for an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.base import Fact
from contracts.envelope import Event
from contracts.events.cases import CaseChanged
from services.runtime import cases, tasks
from services.runtime.cases import Change, StoredCase, folding
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.tasks import Wanted

KIND = "propose"


@dataclass(frozen=True, slots=True)
class CaseChangedHandler:
    """Handles both `case.opened` and `case.changed`."""

    processes: Mapping[str, Process]

    async def __call__(self, connection: Connection, events: Sequence[Event[Fact]]) -> None:
        changes: dict[str, Change] = {}
        last: dict[str, Event[Fact]] = {}
        for event in events:
            data = event.data
            assert isinstance(data, CaseChanged), "subscribed for these types alone"
            change = changes.setdefault(event.case_id, Change(event.process, data.door, data.object_id))
            change.steps.append(folding(data))
            last[event.case_id] = event
        after = await cases.update(connection, self.processes, changes)
        await tasks.want(
            connection, [work for stored in after.values() if (work := self._wanted(stored, last[stored.case_id]))]
        )

    def _wanted(self, stored: StoredCase, cause: Event[Fact]) -> Wanted | None:
        """Work for the case's newest basis; none when nobody waits, or the case is from before the door's start."""
        process, case = self.processes[stored.process], stored.case
        basis = process.case.basis(case)
        if basis is None or not process.case.awaits_answer(case):
            return None
        if process.case.opened_at(case) < process.starts_at(stored.door):
            return None
        return Wanted(
            case_id=stored.case_id,
            process=stored.process,
            kind=KIND,
            basis=basis,
            cause=cause.event_id,
            correlation_id=cause.correlation_id,
            traceparent=cause.traceparent,
            not_before=self._settled_at(process, stored, cause),
        )

    def _settled_at(self, process: Process, stored: StoredCase, cause: Event[Fact]) -> datetime | None:
        """A first reply waits for what the customer adds; a customer's clock that runs ahead delays nothing."""
        if process.case.replied(stored.case):
            return None
        settle = timedelta(seconds=process.settings.limits.settle_seconds)
        return min(process.case.asked_at(stored.case), cause.time) + settle
