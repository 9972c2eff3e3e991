"""`nightshift.proposals`, written by the classifier: what was read and what the model suggests."""

from decimal import Decimal
from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from contracts import topics
from contracts.base import Contract, Fact, Json
from contracts.sealed import Sealed


class FactRead(Contract):
    """One look-up, without its values."""

    name: str
    ok: bool
    digest: str
    error: str | None = None


class FactsRead(Fact):
    """What systems of record answered before the model was asked."""

    TYPE: ClassVar[str] = "facts.read.v1"
    TOPIC: ClassVar[str] = topics.PROPOSALS

    basis: str
    facts: tuple[FactRead, ...]
    answers: Sealed
    """JSON: {name: FactAnswer}."""


class PassageUsed(Contract):
    """A passage of the process's knowledge that the model saw."""

    source: str
    version: str
    digest: str


class MadeFrom(Contract):
    """Digests of everything a proposal was made from."""

    model: str
    prompt: str
    output_schema: str
    examples: str
    settings: str
    index_version: str
    passages: tuple[PassageUsed, ...] = ()


class ModelFailed(Contract):
    """A model that was asked, and came to nothing."""

    model: str
    """As process.toml names it."""
    code: str


class ProposalMade(Fact):
    """What the model suggests for one basis of a case, with the case and the facts it was made from."""

    TYPE: ClassVar[str] = "proposal.made.v1"
    TOPIC: ClassVar[str] = topics.PROPOSALS

    basis: str
    case: Json
    """The process's own case, its texts sealed."""
    facts: Sealed
    """JSON: {name: FactAnswer}."""
    output: Sealed
    """JSON of the process's proposal."""
    label: str
    """The intent, of the process's closed set."""
    confidence: float = Field(ge=0, le=1)
    made_from: MadeFrom
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = Decimal(0)
    latency_ms: int = 0
    attempts: int = 1
    failed: tuple[ModelFailed, ...] = ()
    """The models that were asked before the one that answered, in their order; what they took counts above."""
    regime: str | None = None
    """Digest of all that its answers depend on, the case and its facts apart."""
    candidate: bool = False
    """It was a candidate's turn, on its share of the cases."""


class ProposalFailed(Fact):
    """No proposal: no model's output was accepted, or the work became a dead letter."""

    TYPE: ClassVar[str] = "proposal.failed.v1"
    TOPIC: ClassVar[str] = topics.PROPOSALS

    basis: str
    code: str
    attempts: int
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = Decimal(0)
    failed: tuple[ModelFailed, ...] = ()
    """The models that were asked at last, in their order; none where the work failed before."""
    regime: str | None = None
    """Of the first choice."""
    candidate: bool = False
    """It was a candidate's turn, on its share of the cases."""


class ProposalShadowed(Fact):
    """What a candidate in shadow suggests for a basis that has its live proposal. Nothing is done about it.

    Without `output` it suggests nothing, and `code` says why.
    """

    TYPE: ClassVar[str] = "proposal.shadowed.v1"
    TOPIC: ClassVar[str] = topics.PROPOSALS

    basis: str
    proposal_id: UUID
    """The event id of the live proposal, made from the same case and the same facts."""
    regime: str
    """Digest of all that the candidate's answers depend on."""
    facts: Sealed | None = None
    """JSON: {name: FactAnswer}; those of the live proposal, with the candidate's own passages."""
    output: Sealed | None = None
    """JSON of the process's proposal."""
    label: str | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    made_from: MadeFrom | None = None
    code: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = Decimal(0)
    latency_ms: int = 0
    attempts: int = 1


class ProposalDropped(Fact):
    """A call of a model whose answer nobody waits for: something newer came, or its work failed. No proposal tells it.

    Said a call, once its work is over. What is not known of it counts for the most that it can take.
    """

    TYPE: ClassVar[str] = "proposal.dropped.v1"
    TOPIC: ClassVar[str] = topics.PROPOSALS

    basis: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = Decimal(0)


class BudgetExhausted(Fact):
    """A ceiling on what models may cost is reached: what needs a model waits. Said once a day, or once of a total.

    The subject is no case: `<process>:budget-<day>`, `<process>:budget-total`.
    """

    TYPE: ClassVar[str] = "budget.exhausted.v1"
    TOPIC: ClassVar[str] = topics.PROPOSALS

    period: Literal["day", "total"]
    """A UTC day, or all days together."""
    unit: Literal["tokens", "usd"]
    ceiling: Decimal
    spent: Decimal
    """Of the period; a call that was never settled counts for the most it can take."""
    reserved: Decimal
    """By calls that were under way, beside what was spent."""
    asked: Decimal
    """The most that the call could have taken which did not fit any more."""
    asked_by: str
    """The case of that call."""
    asked_run: UUID
    model: str
    dearest: str
    """The case that took most of the period."""
    dearest_spent: Decimal
    until: AwareDatetime | None
    """When work goes on; none where only a higher ceiling lets it."""
