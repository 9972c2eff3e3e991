"""`nightshift.decisions`, written by the actor: what the rules made of a proposal."""

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime

from contracts import topics
from contracts.base import Contract, Fact, Json
from contracts.decision import Action, Circumstances, Difference, Mode, Reason, Verdict
from contracts.sealed import Sealed


class DecidedFrom(Contract):
    """What the actor alone knew when it decided; the rest is in the proposal, and beside this.

    Whether the basis was decided before is left out: such a decision is never recorded.
    """

    case: Json
    """The process's own case, its texts sealed: it may know more than the one in the proposal."""
    modes: dict[str, Mode]
    """How far each action of the process might go."""
    held: bool
    """The case was held for a person."""


class DecisionMade(Fact):
    """One decision about one basis of a case, with everything that it was decided from."""

    TYPE: ClassVar[str] = "decision.made.v1"
    TOPIC: ClassVar[str] = topics.DECISIONS

    basis: str
    proposal_id: UUID | None
    """The event id of the proposal; none where a dead letter or a failed proposal was decided."""
    verdict: Verdict
    reasons: tuple[Reason, ...]
    actions: tuple[Action, ...]
    label: str | None = None
    circumstances: Circumstances
    policy_digest: str
    decided_at: AwareDatetime
    effect_keys: tuple[str, ...] = ()
    """The effects that this decision planned."""
    decided_from: DecidedFrom | None = None
    """None where the rules were not asked, and in what was recorded before there was such a field."""
    digest: str | None = None
    """contracts.decision.decision_digest, of the requests in clear; none as above."""


class Judged(Contract):
    """What rules made of one proposal."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    actions: tuple[Action, ...]
    digest: str
    """contracts.decision.decision_digest."""


class DecisionShadowed(Fact):
    """What the rules would have made of a candidate's proposal, from the very inputs of the live decision.

    No effect follows from it, no approval, no handover, no hold.
    """

    TYPE: ClassVar[str] = "decision.shadowed.v1"
    TOPIC: ClassVar[str] = topics.DECISIONS

    basis: str
    decision_id: UUID
    """The event id of the live decision."""
    regime: str
    """The candidate's."""
    live: Judged
    shadow: Judged
    difference: Difference
    """Of the shadow from the live one."""


class HandoverPlanned(Fact):
    """After a decision, or without one, a person is told: what was decided no longer holds, or could not be done."""

    TYPE: ClassVar[str] = "handover.planned.v1"
    TOPIC: ClassVar[str] = topics.DECISIONS

    basis: str
    reasons: tuple[Reason, ...]
    effect_keys: tuple[str, ...]
    """The effects that tell."""


class ApprovalRequested(Fact):
    """A held decision waits for a person: exactly the sealed requests, and nothing else, may be approved."""

    TYPE: ClassVar[str] = "approval.requested.v1"
    TOPIC: ClassVar[str] = topics.DECISIONS

    approval_id: UUID
    basis: str
    decision_id: UUID
    requests: Sealed
    """JSON: [Request]."""
    digest: str
    """SHA-256 over basis and rendered requests; an answer must name it."""
    reasons: tuple[Reason, ...]
    expires_at: AwareDatetime


class ApprovalResolved(Fact):
    """How an approval ended."""

    TYPE: ClassVar[str] = "approval.resolved.v1"
    TOPIC: ClassVar[str] = topics.DECISIONS

    approval_id: UUID
    basis: str
    answer: Literal["approved", "denied", "expired", "superseded"]
    by: str
    reason: str = ""
    effect_keys: tuple[str, ...] = ()
