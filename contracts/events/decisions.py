"""`nightshift.decisions`, written by the actor: what the rules made of a proposal."""

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime

from contracts import topics
from contracts.base import Fact
from contracts.decision import Action, Circumstances, Reason, Verdict
from contracts.sealed import Sealed


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
