"""`proposal.made`: kept, its case joined into ours, and a decision wanted. A second one for a basis is ignored.

Where the first one was ignored, and its basis is the newest (again), the second one is decided in its place.
"""

from collections.abc import Mapping, Sequence

from contracts.base import Fact
from contracts.decision import Circumstances, Reason
from contracts.envelope import Event
from contracts.events.decisions import DecisionMade
from contracts.events.proposals import ProposalMade
from services.actor.handlers.newer_basis import overtake
from services.actor.handlers.say import Cause, decisions_total, say
from services.runtime import cases, outbox, tasks
from services.runtime.postgres import Connection
from services.runtime.process import Process

DECIDE = "decide"

_KEEP = """
INSERT INTO proposals (case_id, basis, proposal_id, process, correlation_id, traceparent, facts, output, label, regime,
                       candidate, cost_usd)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::text[], $11::boolean[], $12::numeric[])
ON CONFLICT DO NOTHING RETURNING proposal_id
"""
_KEEP_INSTEAD = """
WITH instead AS (
    UPDATE proposals p SET proposal_id = n.proposal_id, correlation_id = n.correlation_id, traceparent = n.traceparent,
           facts = n.facts, output = n.output, label = n.label, regime = n.regime, candidate = n.candidate,
           cost_usd = n.cost_usd, received_at = clock_timestamp()
    FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::boolean[], $12::numeric[])
             n(case_id, basis, proposal_id, process, correlation_id, traceparent, facts, output, label, regime,
               candidate, cost_usd),
         decisions d, cases c
    WHERE p.case_id = n.case_id AND p.basis = n.basis AND d.case_id = p.case_id AND d.basis = p.basis
      AND d.verdict = 'ignore' AND c.case_id = p.case_id AND c.basis = p.basis
    RETURNING p.case_id, p.basis, p.proposal_id),
undecided AS (
    UPDATE decisions d SET proposal_id = NULL FROM instead i WHERE d.case_id = i.case_id AND d.basis = i.basis),
undone AS (
    UPDATE tasks t SET basis = '' FROM instead i WHERE t.case_id = i.case_id AND t.kind = 'decide')
SELECT proposal_id FROM instead
"""
_NOW = "SELECT clock_timestamp()"
_Made = tuple[Event[Fact], ProposalMade]
ALREADY = Reason(code="already_proposed", text="Another proposal for this request came before.")


async def proposal_made(
    connection: Connection, events: Sequence[Event[Fact]], *, processes: Mapping[str, Process]
) -> None:
    """Keep many proposals."""
    made = [(event, event.data) for event in events if isinstance(event.data, ProposalMade)]
    changes: dict[str, cases.Change] = {}
    for event, data in made:
        _, door, object_id = event.case_id.split(":", 2)
        other = processes[event.process].case.Case.model_validate(data.case)
        change = changes.setdefault(event.case_id, cases.Change(event.process, door, object_id))
        change.steps.append(cases.merging(other))
    # the task before the case, as in the transaction that stores a decision: no deadlock
    seconds = await _keep(connection, _KEEP, made)
    await cases.update(connection, processes, changes)
    seconds = await _keep(connection, _KEEP_INSTEAD, seconds)
    await _ignore_seconds(connection, seconds, processes)
    await overtake(connection, list(changes), {name: p.policy_digest for name, p in processes.items()})


async def _keep(connection: Connection, statement: str, made: Sequence[_Made]) -> Sequence[_Made]:
    """Keep proposals and want decisions of them; returns those that the statement did not keep."""
    if not made:
        return ()
    rows = await connection.fetch(
        statement,
        [e.case_id for e, _ in made],
        [d.basis for _, d in made],
        [e.event_id for e, _ in made],
        [e.process for e, _ in made],
        [e.correlation_id for e, _ in made],
        [e.traceparent for e, _ in made],
        [d.facts for _, d in made],
        [d.output for _, d in made],
        [d.label for _, d in made],
        [d.regime for _, d in made],
        [d.candidate for _, d in made],
        [d.cost_usd for _, d in made],
    )
    kept = {row["proposal_id"] for row in rows}
    await tasks.want(
        connection,
        [
            tasks.Wanted(
                case_id=e.case_id,
                process=e.process,
                kind=DECIDE,
                basis=d.basis,
                cause=e.event_id,
                correlation_id=e.correlation_id,
                traceparent=e.traceparent,
            )
            for e, d in made
            if e.event_id in kept
        ],
    )
    return [(e, d) for e, d in made if e.event_id not in kept]


async def _ignore_seconds(connection: Connection, seconds: Sequence[_Made], processes: Mapping[str, Process]) -> None:
    if not seconds:
        return
    now = await connection.fetchval(_NOW)
    for event, data in seconds:
        decisions_total.labels(event.process, "ignore").inc()
        said = DecisionMade(
            basis=data.basis,
            proposal_id=event.event_id,
            verdict="ignore",
            reasons=(ALREADY,),
            actions=(),
            label=data.label,
            circumstances=Circumstances(),
            policy_digest=processes[event.process].policy_digest,
            decided_at=now,
        )
        cause = Cause.of(event)
        await outbox.append(
            connection, [say(said, cause=cause, case_id=event.case_id, process=event.process, time=now)]
        )
