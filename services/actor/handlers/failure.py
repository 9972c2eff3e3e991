"""`proposal.failed`, `dead_letter.raised`: no software will answer this case now, so a person takes it."""

from collections.abc import Mapping, Sequence

from contracts.base import Fact
from contracts.decision import Circumstances, Reason
from contracts.envelope import Event, follow_up_id
from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.decisions import DecisionMade
from contracts.events.proposals import ProposalFailed
from services.actor.handlers.candidate import add_failures
from services.actor.handlers.hand_over import NO_BASIS, Handover, hand_over, say_planned
from services.actor.handlers.say import Cause, decisions_total, say
from services.runtime import cases, outbox
from services.runtime.postgres import Connection
from services.runtime.process import Process

_LATER = """
INSERT INTO early_failures (event_id, case_id, process, basis, code, message, correlation_id, traceparent)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING
"""
_DECIDE = """
INSERT INTO decisions (case_id, basis, decision_id, process, verdict, decided_at)
SELECT case_id, basis, decision_id, process, 'refuse', clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[]) d(case_id, basis, decision_id, process)
ON CONFLICT DO NOTHING RETURNING decision_id, decided_at
"""


async def failed(connection: Connection, events: Sequence[Event[Fact]], *, processes: Mapping[str, Process]) -> None:
    """Hand the cases over, each once a basis. A failure of a case that is not known yet waits for its first news."""
    for process in processes.values():
        await add_failures(connection, process, events)
    known = await cases.read(connection, processes, [event.case_id for event in events])
    wanted: list[Handover] = []
    for event in events:
        basis, reason = _told(event.data)
        stored = known.get(event.case_id)
        if stored is None:
            await connection.execute(
                _LATER, event.event_id, event.case_id, event.process, basis, reason.code, reason.text,
                event.correlation_id, event.traceparent,
            )  # fmt: skip
            continue
        newest = processes[event.process].case.basis(stored.case) or NO_BASIS
        if isinstance(event.data, ProposalFailed) and basis is not None and basis < newest:
            continue  # the newer basis has a proposal of its own to come
        wanted.append(Handover(stored=stored, basis=max(basis or "", newest), reasons=(reason,), cause=Cause.of(event)))
    await decide_failures(connection, processes, wanted)


async def decide_failures(connection: Connection, processes: Mapping[str, Process], wanted: Sequence[Handover]) -> None:
    """Refuse what nobody decided yet, and hand everything over."""
    if not wanted:
        return
    ids = [follow_up_id(w.cause.event_id, DecisionMade.TYPE) for w in wanted]
    rows = await connection.fetch(
        _DECIDE,
        [w.stored.case_id for w in wanted],
        [w.basis for w in wanted],
        ids,
        [w.stored.process for w in wanted],
    )
    decided = {row["decision_id"]: row["decided_at"] for row in rows}
    keys = await hand_over(connection, processes, wanted)
    beside = [(w, keys.get(w.stored.case_id, ())) for w, of in zip(wanted, ids, strict=True) if of not in decided]
    await say_planned(connection, beside)
    for want, decision_id in zip(wanted, ids, strict=True):
        if decision_id not in decided:
            continue
        stored = want.stored
        decisions_total.labels(stored.process, "refuse").inc()
        data = DecisionMade(
            basis=want.basis,
            proposal_id=None,
            verdict="refuse",
            reasons=want.reasons,
            actions=(),
            circumstances=Circumstances(),
            policy_digest=processes[stored.process].policy_digest,
            decided_at=decided[decision_id],
            effect_keys=keys.get(stored.case_id, ()),
        )
        said = say(data, cause=want.cause, case_id=stored.case_id, process=stored.process, time=data.decided_at)
        await outbox.append(connection, [said])


def _told(data: Fact) -> tuple[str | None, Reason]:
    match data:
        case ProposalFailed():
            return data.basis, Reason(code=data.code, text="No usable proposal came of this request.")
        case DeadLetterRaised():
            text = f"Work of the {data.service} on this case failed: {data.code}."
            return data.basis, Reason(code="dead_letter", text=text)
        case _:
            raise AssertionError(data.TYPE)
