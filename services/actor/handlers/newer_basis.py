"""A newer basis overtakes what an older one left waiting: at once, and said aloud.

What was taken for one may turn out to be none: its update is told whole, or the object is read. Then what it overtook
is due again.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from contracts.decision import Circumstances
from contracts.events.decisions import ApprovalResolved, DecisionMade
from services.actor.domain import gate
from services.actor.handlers import ledger
from services.actor.handlers.say import SOURCE, Cause, decisions_total, say
from services.runtime import outbox
from services.runtime.postgres import Connection

_ANYTHING = """
SELECT EXISTS (SELECT 1 FROM cases c WHERE c.case_id = ANY($1) AND (
    EXISTS (SELECT 1 FROM approvals a WHERE a.case_id = c.case_id AND a.state = 'waiting' AND a.basis < c.basis)
    OR EXISTS (SELECT 1 FROM effects e WHERE e.case_id = c.case_id AND e.state = 'planned' AND e.basis < c.basis)
    OR EXISTS (SELECT 1 FROM effects e WHERE e.case_id = c.case_id AND e.state = 'superseded'
               AND e.code = 'newer_basis' AND e.basis = c.basis)
    OR EXISTS (SELECT 1 FROM proposals p WHERE p.case_id = c.case_id AND p.basis < c.basis)))
"""
_APPROVALS = """
UPDATE approvals a SET state = 'superseded', resolved_by = $2, resolved_at = clock_timestamp()
FROM cases c WHERE a.case_id = ANY($1) AND c.case_id = a.case_id AND a.state = 'waiting' AND a.basis < c.basis
RETURNING a.approval_id, a.case_id, a.process, a.basis, a.correlation_id, a.traceparent, a.resolved_at
"""
_EFFECTS = """
UPDATE effects e SET state = 'superseded', code = 'newer_basis', token = e.token + 1
FROM cases c WHERE e.case_id = ANY($1) AND c.case_id = e.case_id AND e.state = 'planned' AND e.bound
  AND e.basis < c.basis
RETURNING e.*, clock_timestamp() AS now
"""
_NEWEST_AGAIN = """
UPDATE effects e SET state = 'planned', code = NULL, redrives = e.redrives + 1, token = e.token + 1,
       available_at = clock_timestamp()
FROM cases c WHERE e.case_id = ANY($1) AND c.case_id = e.case_id AND e.state = 'superseded' AND e.code = 'newer_basis'
  AND e.basis = c.basis
RETURNING e.*, clock_timestamp() AS now
"""
_PROPOSALS = """
INSERT INTO decisions (case_id, basis, decision_id, process, proposal_id, verdict, label, decided_at)
SELECT p.case_id, p.basis, gen_random_uuid(), p.process, p.proposal_id, 'ignore', p.label, clock_timestamp()
FROM proposals p JOIN cases c USING (case_id)
WHERE p.case_id = ANY($1) AND p.basis < c.basis
  AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.case_id = p.case_id AND d.basis = p.basis)
ON CONFLICT DO NOTHING RETURNING case_id, basis, process, proposal_id, label, decided_at
"""
_RUNS = "SELECT proposal_id, correlation_id, traceparent FROM proposals WHERE proposal_id = ANY($1)"


async def overtake(connection: Connection, case_ids: Sequence[str], policy_digests: dict[str, str]) -> None:
    """Supersede waiting approvals, planned effects and undecided proposals that are older than their case's basis.

    Effects of a basis that is the newest again are due again: a claim checks them anew.
    """
    ids = sorted(set(case_ids))
    if not await connection.fetchval(_ANYTHING, ids):
        return
    approvals = await connection.fetch(_APPROVALS, ids, SOURCE)
    await outbox.append(connection, [_resolved(row) for row in approvals])
    effects = await connection.fetch(_EFFECTS, ids)
    if effects:
        now = effects[0]["now"]
        await ledger.say_failed(connection, effects, code="newer_basis", outcome="superseded", now=now)
        await ledger.look_for_what_may_land(connection, effects)
    again = await connection.fetch(_NEWEST_AGAIN, ids)
    if again:
        await ledger.say_failed(connection, again, code="newest_again", outcome="retry", now=again[0]["now"])
    proposals = await connection.fetch(_PROPOSALS, ids)
    if proposals:
        runs = await connection.fetch(_RUNS, [row["proposal_id"] for row in proposals])
        causes = {r["proposal_id"]: Cause(r["proposal_id"], r["correlation_id"], r["traceparent"]) for r in runs}
        await outbox.append(
            connection,
            [_ignored(row, causes[row["proposal_id"]], policy_digests[row["process"]]) for row in proposals],
        )


def _resolved(row: ledger.Row) -> Any:
    approval_id: UUID = row["approval_id"]
    data = ApprovalResolved(
        approval_id=approval_id, basis=row["basis"], answer="superseded", by=SOURCE, reason="newer_basis"
    )
    cause = Cause(approval_id, row["correlation_id"], row["traceparent"])
    return say(data, cause=cause, case_id=row["case_id"], process=row["process"], time=row["resolved_at"])


def _ignored(row: ledger.Row, cause: Cause, policy_digest: str) -> Any:
    decisions_total.labels(row["process"], "ignore").inc()
    data = DecisionMade(
        basis=row["basis"],
        proposal_id=row["proposal_id"],
        verdict="ignore",
        reasons=gate.STALE.reasons,
        actions=(),
        label=row["label"],
        circumstances=Circumstances(),
        policy_digest=policy_digest,
        decided_at=row["decided_at"],
    )
    return say(data, cause=cause, case_id=row["case_id"], process=row["process"], time=row["decided_at"])
