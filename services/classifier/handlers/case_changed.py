"""A case changed outside: fold it at once, and want a proposal where somebody now waits for an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from contracts.base import Fact
from contracts.basis import basis_of, version_of
from contracts.envelope import Event
from contracts.events.cases import CaseChanged
from services.runtime import cases, tasks
from services.runtime.cases import Change, StoredCase, folding
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.tasks import Wanted

PROPOSE, READ = "propose", "read"


@dataclass(slots=True)
class CaseChangedHandler:
    """Handles both `case.opened` and `case.changed`."""

    processes: Mapping[str, Process]
    to_read: bool = field(default=False, init=False)
    """Set where reading was wanted; whoever wakes readers clears it."""

    async def __call__(self, connection: Connection, events: Sequence[Event[Fact]]) -> None:
        changes: dict[str, Change] = {}
        last: dict[str, Event[Fact]] = {}
        hinted: dict[str, Event[Fact]] = {}
        for event in events:
            data = event.data
            assert isinstance(data, CaseChanged), "subscribed for these types alone"
            change = changes.setdefault(event.case_id, Change(event.process, data.door, data.object_id))
            change.steps.append(folding(data))
            last[event.case_id] = event
            if data.hint:
                hinted[event.case_id] = event
        after = await cases.update(connection, self.processes, changes)
        wanted = [
            work_for(
                self.processes[stored.process],
                stored,
                cause=last[case_id].event_id,
                correlation_id=last[case_id].correlation_id,
                traceparent=last[case_id].traceparent,
            )
            for case_id, stored in after.items()
        ]
        reads = [self._to_read(after[case_id], hint) for case_id, hint in hinted.items()]
        await tasks.want(connection, [work for work in (*wanted, *reads) if work is not None])
        self.to_read |= any(reads)

    def _to_read(self, stored: StoredCase, hint: Event[Fact]) -> Wanted | None:
        """Work for the newest hint, by our clock: who waits for an answer is known when the object was read."""
        assert isinstance(hint.data, CaseChanged), "a hint is a change"
        if not self.processes[stored.process].case.needs_reading(stored.case):
            return None
        return Wanted(
            case_id=stored.case_id,
            process=stored.process,
            kind=READ,
            basis=basis_of(version_of(hint.data.received_at), hint.data.identity),
            cause=hint.event_id,
            correlation_id=hint.correlation_id,
            traceparent=hint.traceparent,
        )


def work_for(
    process: Process, stored: StoredCase, *, cause: UUID, correlation_id: UUID, traceparent: str | None
) -> Wanted | None:
    """A proposal for the case's newest basis.

    None when nobody waits, or the case is from before the door's start. A first reply waits for what the customer adds;
    a clock outside that runs ahead delays it no longer than that.
    """
    case = stored.case
    basis = process.case.basis(case)
    if basis is None or not process.case.awaits_answer(case):
        return None
    if process.case.opened_at(case) < process.starts_at(stored.door):
        return None
    settle = timedelta(seconds=process.settings.limits.settle_seconds)
    return Wanted(
        case_id=stored.case_id,
        process=stored.process,
        kind=PROPOSE,
        basis=basis,
        cause=cause,
        correlation_id=correlation_id,
        traceparent=traceparent,
        not_before=None if process.case.replied(case) else process.case.asked_at(case) + settle,
        waits_at_most=settle,
    )
