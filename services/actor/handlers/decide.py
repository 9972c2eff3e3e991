"""The work `decide`: a proposal becomes a decision, its effects, its request for approval, its handover."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import orjson

from contracts.decision import Execute, Hold, Ignore, Refuse, Request, decision_digest, verdict_of
from contracts.envelope import Event, follow_up_id
from contracts.events.decisions import ApprovalRequested, DecidedFrom, DecisionMade
from contracts.sealed import SealedText, UnsealableError
from services.actor.domain import effect, gate
from services.actor.handlers import circumstances, ledger
from services.actor.handlers.candidate import Trial, add_trials
from services.actor.handlers.hand_over import Handover, hand_over
from services.actor.handlers.judge import Judgment, Question, judge
from services.actor.handlers.say import Cause, decisions_total, say
from services.actor.handlers.shadow import keep_decided
from services.runtime import cases, outbox, switches
from services.runtime.failures import Never
from services.runtime.postgres import Connection, Database
from services.runtime.process import Process
from services.runtime.tasks import Claim, Done, Outcome

_PROPOSALS = """
SELECT p.case_id, p.basis, p.proposal_id, p.facts, p.output, p.label, p.regime, p.candidate, p.cost_usd,
       EXISTS (SELECT 1 FROM decisions d WHERE d.case_id = p.case_id AND d.basis = p.basis
               AND d.proposal_id IS NOT NULL) AS decided, statement_timestamp() AS now,
       EXISTS (SELECT 1 FROM holds h WHERE h.case_id = p.case_id AND h.released_at IS NULL) AS held
FROM proposals p JOIN unnest($1::text[], $2::text[]) w(case_id, basis) USING (case_id, basis)
"""
_DECIDE = """
INSERT INTO decisions AS d (case_id, basis, decision_id, process, proposal_id, verdict, label, decided_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[],
                     $8::timestamptz[])
ON CONFLICT (case_id, basis) DO UPDATE SET decision_id = excluded.decision_id, proposal_id = excluded.proposal_id,
    verdict = excluded.verdict, label = excluded.label, decided_at = excluded.decided_at
    WHERE d.proposal_id IS NULL
RETURNING decision_id
"""
_ASK = """
INSERT INTO approvals (approval_id, case_id, basis, process, decision_id, correlation_id, traceparent, requests, digest,
                       granted, reasons, asked_at, requested_at, expires_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::text[], $8::text[],
                     $9::text[], $10::jsonb[], $11::jsonb[], $12::timestamptz[], $13::timestamptz[],
                     $14::timestamptz[])
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """What of the proposal is no part of the question."""

    label: str
    regime: str | None
    candidate: bool
    cost_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A judgment with what it was made from."""

    question: Question
    judgment: Judgment
    cause: Cause
    proposed: Proposed

    @property
    def label(self) -> str:
        return self.proposed.label

    @property
    def trial(self) -> Trial:
        return Trial(
            event_id=self.decision_id,
            regime=self.proposed.regime,
            candidate=self.proposed.candidate,
            outcome=verdict_of(self.judgment.decision),
            cost_usd=self.proposed.cost_usd,
        )

    @property
    def decision_id(self) -> UUID:
        return follow_up_id(self.cause.event_id, DecisionMade.TYPE)

    @property
    def case_id(self) -> str:
        return self.question.stored.case_id


@dataclass(frozen=True, slots=True)
class Approval:
    """A request for approval: exactly these bytes may be sent."""

    decided: Decided
    sealed: SealedText
    digest: str
    expires_at: datetime

    @property
    def approval_id(self) -> UUID:
        return uuid5(self.decided.decision_id, "approval")


class Decide:
    """What `tasks.Worker` needs to decide the proposals of one process."""

    def __init__(self, database: Database, process: Process) -> None:
        self._database = database
        self._process = process
        self._processes: Mapping[str, Process] = {process.name: process}

    async def perform(self, claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        """Read what the decisions are made from, then decide each without any connection."""
        loaded = await self._load(claims)
        return [self._one(claim, loaded.get(claim.case_id)) for claim in claims]

    def _one(self, claim: Claim, loaded: tuple[Question, Proposed] | None) -> Outcome | Exception:
        if loaded is None:
            return Never("proposal_missing", "there is no such proposal")
        question, proposed = loaded
        try:
            judgment = judge(self._process, question)
        except UnsealableError as error:
            return error
        cause = Cause(claim.cause, claim.correlation_id, claim.traceparent)
        return Done(result=Decided(question=question, judgment=judgment, cause=cause, proposed=proposed))

    async def _load(self, claims: Sequence[Claim]) -> dict[str, tuple[Question, Proposed]]:
        name = self._process.name
        ids = [claim.case_id for claim in claims]
        async with self._database.connection() as connection:
            rows = await connection.fetch(_PROPOSALS, ids, [claim.basis for claim in claims])
            if not rows:
                return {}
            now: datetime = rows[0]["now"]
            held = await cases.read_with_keys(connection, self._processes, ids)
            modes = await modes_of(connection, self._process)
            asked = [
                circumstances.Asked(r["case_id"], self._process.case.party(held[r["case_id"]].stored.case), r["label"])
                for r in rows
            ]
            around = await circumstances.circumstances_of(connection, name, asked, now)
        return {
            row["case_id"]: (
                Question(
                    stored=held[row["case_id"]].stored,
                    basis=row["basis"],
                    facts=row["facts"],
                    output=row["output"],
                    keys=held[row["case_id"]].keys,
                    circumstances=around[row["case_id"]],
                    modes=modes,
                    already_decided=row["decided"],
                    held=row["held"],
                    now=now,
                ),
                Proposed(
                    label=row["label"], regime=row["regime"], candidate=row["candidate"], cost_usd=row["cost_usd"]
                ),
            )
            for row in rows
        }

    async def store(self, connection: Connection, pairs: Sequence[tuple[Claim, Done]]) -> None:
        """Keep the decisions that are the first of their basis, and everything that follows from them."""
        made: list[Decided] = [done.result for _, done in pairs]
        if not made:
            return
        made = await self._still_newest(connection, made)
        made = await self._first_of_their_basis(connection, made)
        plans = {d.case_id: self._planned(d) for d in made}
        effects = await ledger.plan(connection, [p for plan in plans.values() for p in plan])
        approvals = [a for d in made if (a := self._approval(d)) is not None]
        await self._ask(connection, approvals)
        handed = await hand_over(connection, self._processes, [h for d in made if (h := _handover(d)) is not None])
        await circumstances.count_labels(
            connection, self._process.name, [d.label for d in made if not isinstance(d.judgment.decision, Ignore)]
        )
        said = [
            self._made(d, (*(p.key for p in plans[d.case_id] if p.key in effects), *handed.get(d.case_id, ())))
            for d in made
        ]
        await outbox.append(connection, [*said, *map(self._requested, approvals)])
        await keep_decided(connection, self._process, said)
        await add_trials(connection, self._process, [d.trial for d in made])
        for decided in made:
            decisions_total.labels(self._process.name, verdict_of(decided.judgment.decision)).inc()

    async def _still_newest(self, connection: Connection, made: Sequence[Decided]) -> list[Decided]:
        """What a newer basis overtook while it was decided is Ignore. The lock keeps it so until the commit."""
        newest = await cases.lock(connection, [d.case_id for d in made])
        return [
            d
            if (newest[d.case_id] or "") <= d.question.basis  # what it went back behind, the claim finds
            else replace(d, judgment=Judgment(decision=gate.STALE))
            for d in made
        ]

    async def _first_of_their_basis(self, connection: Connection, made: Sequence[Decided]) -> list[Decided]:
        rows = await connection.fetch(
            _DECIDE,
            [d.case_id for d in made],
            [d.question.basis for d in made],
            [d.decision_id for d in made],
            [self._process.name] * len(made),
            [d.cause.event_id for d in made],
            [verdict_of(d.judgment.decision) for d in made],
            [d.label for d in made],
            [d.question.now for d in made],
        )
        first = {row["decision_id"] for row in rows}
        return [d for d in made if d.decision_id in first]

    def _planned(self, decided: Decided) -> list[ledger.Planned]:
        if not isinstance(decided.judgment.decision, Execute):
            return []
        question, judgment = decided.question, decided.judgment
        return [
            ledger.Planned(
                case_id=decided.case_id,
                process=self._process.name,
                basis=question.basis,
                request=request,
                sealed=question.keys.seal(request.model_dump_json()),
                granted=effect.granted_modes(judgment.actions, question.modes),
                cause=_from_decision(decided),
                asked_at=self._process.case.asked_at(question.stored.case),
            )
            for request in judgment.requests
        ]

    def _approval(self, decided: Decided) -> Approval | None:
        judgment = decided.judgment
        if not isinstance(judgment.decision, Hold) or not judgment.requests:
            return None
        return Approval(
            decided=decided,
            sealed=decided.question.keys.seal(_json(judgment.requests)),
            digest=effect.approval_digest(decided.question.basis, judgment.requests),
            expires_at=decided.question.now + timedelta(hours=self._process.settings.limits.approval_hours),
        )

    async def _ask(self, connection: Connection, approvals: Sequence[Approval]) -> None:
        if not approvals:
            return
        made = [a.decided for a in approvals]
        await connection.execute(
            _ASK,
            [a.approval_id for a in approvals],
            [d.case_id for d in made],
            [d.question.basis for d in made],
            [self._process.name] * len(made),
            [d.decision_id for d in made],
            [d.cause.correlation_id for d in made],
            [d.cause.traceparent for d in made],
            [a.sealed for a in approvals],
            [a.digest for a in approvals],
            [{x.name: d.question.modes[x.name] for x in d.judgment.actions} for d in made],
            [_as_one_value([reason.model_dump() for reason in d.judgment.decision.reasons]) for d in made],
            [self._process.case.asked_at(d.question.stored.case) for d in made],
            [d.question.now for d in made],
            [a.expires_at for a in approvals],
        )

    def _made(self, decided: Decided, keys: tuple[str, ...]) -> Event[DecisionMade]:
        decision, question = decided.judgment.decision, decided.question
        data = DecisionMade(
            basis=question.basis,
            proposal_id=decided.cause.event_id,
            verdict=verdict_of(decision),
            reasons=decision.reasons,
            actions=decision.actions if isinstance(decision, Execute | Hold) else (),
            label=decided.label,
            circumstances=question.circumstances,
            policy_digest=self._process.policy_digest,
            decided_at=question.now,
            effect_keys=keys,
            decided_from=DecidedFrom(
                case=question.stored.case.model_dump(mode="json"), modes=dict(question.modes), held=question.held
            ),
            digest=decision_digest(decision, decided.judgment.requests),
        )
        return say(data, cause=decided.cause, case_id=decided.case_id, process=self._process.name, time=question.now)

    def _requested(self, approval: Approval) -> Event[ApprovalRequested]:
        decided = approval.decided
        data = ApprovalRequested(
            approval_id=approval.approval_id,
            basis=decided.question.basis,
            decision_id=decided.decision_id,
            requests=approval.sealed,
            digest=approval.digest,
            reasons=decided.judgment.decision.reasons,
            expires_at=approval.expires_at,
        )
        return say(
            data,
            cause=_from_decision(decided),
            case_id=decided.case_id,
            process=self._process.name,
            time=decided.question.now,
        )


async def modes_of(connection: Connection, process: Process) -> dict[str, Any]:
    """How far each action of the process may go now."""
    return await switches.modes(connection, process.name, {n: a.mode for n, a in process.settings.actions.items()})


def _handover(decided: Decided) -> Handover | None:
    decision = decided.judgment.decision
    if not isinstance(decision, Hold | Refuse):
        return None
    question = decided.question
    return Handover(
        stored=question.stored, basis=question.basis, reasons=decision.reasons, cause=_from_decision(decided)
    )


def _from_decision(decided: Decided) -> Cause:
    return Cause(decided.decision_id, decided.cause.correlation_id, decided.cause.traceparent)


def _as_one_value(rows: Sequence[object]) -> orjson.Fragment:
    """A JSON list as one element of `jsonb[]`: asyncpg would take a list in a list for a second dimension."""
    return orjson.Fragment(orjson.dumps(rows))


def _json(requests: Sequence[Request]) -> str:
    return "[" + ",".join(request.model_dump_json() for request in requests) + "]"
