"""A candidate's proposal is judged as the live one was, and what differs is said. Nothing is planned by it.

The live decision and the candidate's proposal come in any order: each is kept until the other is there.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from pydantic import ValidationError

from contracts.base import Fact
from contracts.decision import Execute, Hold, decision_digest, verdict_of
from contracts.envelope import Event
from contracts.events.decisions import DecisionMade, DecisionShadowed, Judged
from contracts.events.proposals import ProposalShadowed
from contracts.sealed import UnsealableError
from services.actor.domain.difference import difference_of
from services.actor.handlers.judge import Judgment, judge, question_of
from services.actor.handlers.say import Cause, say
from services.runtime import candidates, outbox, vault
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.vault import CaseKeys

COMPARED_AT_ONCE_MAX = 50
KEPT_MAX = timedelta(days=1)
"""What finds no counterpart in so long finds none any more: the model failed, or the order was another one."""

_KEEP = """
INSERT INTO shadows (case_id, basis, said, process, event_id, correlation_id, traceparent, body)
SELECT k.case_id, k.basis, $7, k.process, k.event_id, k.correlation_id, k.traceparent, k.body
FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::text[], $8::text[])
    k(case_id, basis, process, event_id, correlation_id, traceparent, body)
ORDER BY k.case_id, k.basis ON CONFLICT DO NOTHING
"""
_PAIRS = """
SELECT d.case_id, d.basis, d.event_id AS decision_id, d.body AS decided, p.event_id AS proposal_id,
       p.correlation_id, p.traceparent, p.body AS proposed, clock_timestamp() AS now
FROM shadows d JOIN shadows p USING (case_id, basis)
WHERE d.process = $1 AND d.said = 'decided' AND p.said = 'proposed' LIMIT $2 FOR UPDATE SKIP LOCKED
"""
_FORGET = """
DELETE FROM shadows s USING unnest($1::text[], $2::text[]) d(case_id, basis)
WHERE s.case_id = d.case_id AND s.basis = d.basis
"""
_FORGET_OLD = "DELETE FROM shadows WHERE process = $1 AND kept_at < clock_timestamp() - $2::interval"

log = structlog.get_logger()


async def keep_decided(connection: Connection, process: Process, made: Sequence[Event[DecisionMade]]) -> None:
    """Keep those live decisions, in the transaction that says them, which a candidate in shadow is compared with."""
    if process.candidate is None:
        return
    order = await candidates.order_of(connection, process.name)
    if order is None:
        return
    chosen = [e for e in made if e.data.verdict != "ignore" and order.takes("shadow", e.case_id)]
    await _keep(connection, "decided", [(event, event.data) for event in chosen])


async def proposal_shadowed(connection: Connection, events: Sequence[Event[Fact]]) -> None:
    """Keep what candidates proposed; of one that proposed nothing there is nothing to judge."""
    made = [(e, e.data) for e in events if isinstance(e.data, ProposalShadowed) and e.data.output is not None]
    await _keep(connection, "proposed", made)


async def _keep(
    connection: Connection, said: str, events: Sequence[tuple[Event[Fact], DecisionMade | ProposalShadowed]]
) -> None:
    if not events:
        return
    await connection.execute(
        _KEEP,
        [event.case_id for event, _ in events],
        [data.basis for _, data in events],
        [event.process for event, _ in events],
        [event.event_id for event, _ in events],
        [event.correlation_id for event, _ in events],
        [event.traceparent for event, _ in events],
        said,
        [data.model_dump_json() for _, data in events],
    )


async def compare(connection: Connection, process: Process) -> int:
    """Judge the candidate's proposals whose live decision is there, and say what differs. Returns how many."""
    rows = await connection.fetch(_PAIRS, process.name, COMPARED_AT_ONCE_MAX)
    keys = await vault.read(connection, [row["case_id"] for row in rows])
    said = [
        say(
            data,
            cause=Cause(row["proposal_id"], row["correlation_id"], row["traceparent"]),
            case_id=row["case_id"],
            process=process.name,
            time=row["now"],
        )
        for row in rows
        if (
            data := _shadowed(
                *(process, row["case_id"], row["decision_id"], row["decided"], row["proposed"]), keys[row["case_id"]]
            )
        )
    ]
    await outbox.append(connection, said)
    await connection.execute(_FORGET, [row["case_id"] for row in rows], [row["basis"] for row in rows])
    await connection.execute(_FORGET_OLD, process.name, KEPT_MAX)
    return len(said)


def _shadowed(
    process: Process, case_id: str, decision_id: UUID, decided: str, proposed: str, keys: CaseKeys
) -> DecisionShadowed | None:
    """None where nobody can read any more what it was to be made from."""
    made, shadow = DecisionMade.model_validate_json(decided), ProposalShadowed.model_validate_json(proposed)
    assert made.decided_from is not None, "a decision of this version holds it"
    assert shadow.facts is not None, "a proposal is kept with what it was made from"
    assert shadow.output is not None, "as above"
    try:
        question = question_of(process, case_id, made, made.decided_from, shadow.facts, shadow.output, keys)
        after = _judged(judge(process, question))
    except (UnsealableError, ValidationError) as error:
        log.warning("a shadow cannot be compared", process=process.name, case=case_id, error=type(error).__name__)
        return None
    before = Judged(verdict=made.verdict, reasons=made.reasons, actions=made.actions, digest=made.digest or "")
    return DecisionShadowed(
        basis=made.basis,
        decision_id=decision_id,
        regime=shadow.regime,
        live=before,
        shadow=after,
        difference=difference_of(before, after),
    )


def _judged(judgment: Judgment) -> Judged:
    decision = judgment.decision
    return Judged(
        verdict=verdict_of(decision),
        reasons=decision.reasons,
        actions=decision.actions if isinstance(decision, Execute | Hold) else (),
        digest=decision_digest(decision, judgment.requests),
    )
