"""`nightshift.control`: what people order, by console, command line or SQL."""

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from contracts import topics
from contracts.base import Fact


class ProcessPaused(Fact):
    """The switch was turned off: no effect and no model call is claimed under an older generation."""

    TYPE: ClassVar[str] = "process.paused.v1"
    TOPIC: ClassVar[str] = topics.CONTROL

    generation: int
    reason: str
    by: str


class ProcessResumed(Fact):
    """The switch was turned on again."""

    TYPE: ClassVar[str] = "process.resumed.v1"
    TOPIC: ClassVar[str] = topics.CONTROL

    generation: int
    reason: str
    by: str


class ApprovalAnswered(Fact):
    """A person answered a request for approval."""

    TYPE: ClassVar[str] = "approval.answered.v1"
    TOPIC: ClassVar[str] = topics.CONTROL

    approval_id: UUID
    answer: Literal["approved", "denied"]
    digest: str
    """Of the requests that the person saw."""
    by: str
    reason: str = ""


class RedriveRequested(Fact):
    """A person wants a dead letter tried again."""

    TYPE: ClassVar[str] = "redrive.requested.v1"
    TOPIC: ClassVar[str] = topics.CONTROL

    dead_letter_id: UUID
    service: str
    nonce: UUID
    by: str


class SkipRequested(Fact):
    """A person ends a dead letter without its work being done."""

    TYPE: ClassVar[str] = "skip.requested.v1"
    TOPIC: ClassVar[str] = topics.CONTROL

    dead_letter_id: UUID
    service: str
    reason: str
    by: str


class CauseAcknowledged(Fact):
    """A person looked at a cause of failures and will see to it: nobody else is told for a while."""

    TYPE: ClassVar[str] = "cause.acknowledged.v1"
    TOPIC: ClassVar[str] = topics.CONTROL

    cause: str
    by: str


class CandidateChanged(Fact):
    """A person switched how far a candidate goes, or the actor switched it off."""

    TYPE: ClassVar[str] = "candidate.changed.v1"
    TOPIC: ClassVar[str] = topics.CONTROL

    mode: Literal["off", "shadow", "canary"]
    """shadow: it proposes beside the live regime, and never acts; canary: it proposes instead of it."""
    percent: int = Field(ge=0, le=100)
    """Of the cases, by the hash of their ids."""
    model: str
    regime: str
    """The one that this is about, by digest: whatever else the candidate becomes is off."""
    generation: int
    reason: str
    by: str


class RegimeAdmitted(Fact):
    """A person lets a process be served by a regime without a passed eval on record: by this one, and by no other."""

    TYPE: ClassVar[str] = "regime.admitted.v1"
    TOPIC: ClassVar[str] = topics.CONTROL

    model: str
    regime: str
    """Digest of all that answers depend on."""
    reason: str
    by: str
