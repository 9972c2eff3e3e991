"""`case.opened`, `case.changed`: news is folded at once; what it overtakes is superseded; echoes are looked up."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from contracts.base import Fact
from contracts.decision import Reason
from contracts.envelope import Event
from contracts.events.cases import CaseChanged
from services.actor.handlers import failure, ledger
from services.actor.handlers.hand_over import NO_BASIS, Handover
from services.actor.handlers.newer_basis import overtake
from services.actor.handlers.say import Cause
from services.runtime import cases
from services.runtime.cases import StoredCase
from services.runtime.postgres import Connection
from services.runtime.process import Process

_RELEASE = """
UPDATE holds h SET released_at = clock_timestamp() FROM unnest($1::text[], $2::timestamptz[]) a(case_id, at)
WHERE h.case_id = a.case_id AND h.held_at < a.at AND h.released_at IS NULL
"""
_EARLY = """
DELETE FROM early_failures WHERE case_id = ANY($1)
RETURNING event_id, case_id, process, basis, code, message, correlation_id, traceparent
"""


async def case_changed(
    connection: Connection, events: Sequence[Event[Fact]], *, processes: Mapping[str, Process]
) -> None:
    """Fold the changes of many cases."""
    changes: dict[str, cases.Change] = {}
    for event in events:
        assert isinstance(event.data, CaseChanged)
        change = changes.setdefault(event.case_id, cases.Change(event.process, event.data.door, event.data.object_id))
        change.steps.append(cases.folding(event.data))
    after = await cases.update(connection, processes, changes)
    await after_folding(connection, processes, after, [event.data for event in events], [e.case_id for e in events])
    await _hand_over_early(connection, processes, after)


async def after_folding(
    connection: Connection,
    processes: Mapping[str, Process],
    after: Mapping[str, StoredCase],
    changes: Sequence[Fact],
    case_ids: Sequence[str],
) -> None:
    """What any change entails, learnt by webhook or by reading: overtaking, echoes, the end of a hold."""
    await overtake(connection, list(after), {name: p.policy_digest for name, p in processes.items()})
    echoes: list[tuple[str, str, str]] = []
    answered: list[tuple[str, datetime]] = []
    for change, case_id in zip(changes, case_ids, strict=True):
        assert isinstance(change, CaseChanged)
        process = after[case_id].process
        if change.author == "ours" and change.door in processes[process].settings.destinations:
            echoes.append((case_id, change.door, process))
        if change.author == "staff" and change.fields.get("comment_public") is True:
            answered.append((case_id, change.occurred_at))
    await ledger.wish_looks(connection, echoes, seconds=0.0, echo=True)
    if answered:
        await connection.execute(_RELEASE, *map(list, zip(*answered, strict=True)))


async def _hand_over_early(
    connection: Connection, processes: Mapping[str, Process], after: Mapping[str, StoredCase]
) -> None:
    """Failures that came before the first news of their case."""
    rows = await connection.fetch(_EARLY, list(after))
    wanted = [
        Handover(
            stored=after[row["case_id"]],
            basis=row["basis"] or processes[row["process"]].case.basis(after[row["case_id"]].case) or NO_BASIS,
            reasons=(Reason(code=row["code"], text=row["message"]),),
            cause=Cause(row["event_id"], row["correlation_id"], row["traceparent"]),
        )
        for row in rows
    ]
    await failure.decide_failures(connection, processes, wanted)
