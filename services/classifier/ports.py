"""What the classifier needs of a model, and of whoever prepares its question."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol
from uuid import UUID

from contracts.base import Contract
from contracts.decision import Facts
from contracts.events.proposals import MadeFrom
from contracts.failures import LaterError, PermanentError
from contracts.knowledge import Passage, Question
from contracts.proposed import Proposed
from services.runtime.tasks import Claim

TOKENS_MAX: Final = 1_000_000_000
"""Sent or answered in one call, far beyond any model: what tells more does not count tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question to a model."""

    instructions: str
    """The process's prompt, rendered."""
    data: Callable[[], str]
    """JSON of question, facts and passages: fenced, bounded, and never an instruction. Not every model reads it."""
    output: type[Proposed]
    """The schema of the answer."""
    question: Question
    facts: Facts
    passages: tuple[Passage, ...]
    index_version: str
    """Digest of everything that decided which passages are found."""
    previous: tuple[str, str] | None = None
    """The last output and why it was not accepted, for the one retry."""
    tokens_out_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model answered. The text is untrusted."""

    text: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = Decimal(0)
    latency_ms: int = 0
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What calls of a model take."""

    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = Decimal(0)


class RefusedError(PermanentError):
    """The model will not answer this. `answer` says what the call took."""

    def __init__(self, answer: Answer, *, code: str = "model_refused", why: str = "refused to answer") -> None:
        super().__init__(code, f"{answer.model} {why}")
        self.answer = answer


class AnswerLostError(LaterError):
    """The call may have been answered, and may cost what it takes at most; nobody can tell."""


class MoneyReservedError(LaterError):
    """Calls under way may take what this one needs; it fits as soon as they took less."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__("budget_reserved", message, seconds=seconds)


class SpareBudgetError(PermanentError):
    """A ceiling is near, or is that of the run: what is left is for work that somebody waits for."""

    def __init__(self, message: str) -> None:
        super().__init__("budget_near", message)


class RunBudgetExhaustedError(PermanentError):
    """The run has used up its ceiling: no further call fits below it."""

    def __init__(self, message: str) -> None:
        super().__init__("run_budget_exhausted", message)


class Provider(Protocol):
    """A model."""

    @property
    def name(self) -> str:
        """`nearest`, or the vendor and its model: `claude:<model>`, `ollama:<model>`."""

    def worst_case(self, ask: Ask) -> Cost | None:
        """The most that asking can take; none where it costs nothing.

        Raises LaterError where it is in vain now, PermanentError where it always is.
        """

    async def weights(self) -> str | None:
        """What its answers depend on beside its name: what that stands for now, or how much it thinks. None: nothing.

        Raises LaterError, PermanentError.
        """

    async def propose(self, ask: Ask) -> Answer:
        """Answer with JSON of the asked schema. Raises the failures of contracts.failures, AnswerLostError."""


class Purse(Protocol):
    """The money of one piece of work: each call is reserved before it is made, and settled afterwards."""

    @property
    def taken(self) -> Cost | None:
        """What the work's calls took so far, those of its earlier tries too; none before the first is reserved.

        One that was not settled counts for the most it can take.
        """

    async def reserve(self, worst: Cost, model: str) -> UUID:
        """Set aside the most that a call of a model can take.

        Raises RunBudgetExhaustedError, LaterError where another ceiling forbids it, and, where calls under way alone
        do, MoneyReservedError; after a call that took something it waits for them first.
        """
        ...

    async def settle(self, call: UUID, took: Cost, *, request_id: str | None = None) -> None:
        """What the call took, once; and the vendor's own name of it."""

    async def look(self) -> None:
        """Have `taken` say what earlier tries took, also where this one reserves nothing."""

    async def lose(self, call: UUID) -> None:
        """Nobody can tell what the call took: it counts for the most, and nobody waits for it."""


class Budget(Protocol):
    """The money of one process."""

    def purse(self, claim: Claim, told_by: Collection[UUID] = ()) -> Purse:
        """`told_by`: the events of which each would tell what the calls took; where none of them is said, they are."""

    def spare_purse(self, claim: Claim, told_by: Collection[UUID] = ()) -> Purse:
        """For work that nobody waits for. It is a run of its own, and leaves a part of each longer ceiling alone.

        What it may not have is said to nobody: its `reserve` raises SpareBudgetError, and nothing else.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Passages for a question, best first, and the index they were found in."""

    passages: tuple[Passage, ...]
    index_version: str


class Finds(Protocol):
    """Searches a process's knowledge."""

    async def find(self, question: Question) -> Found:
        """The passages of the question's brand and language that fit best; the default language's fill up."""


class Desk(Protocol):
    """Prepares a question from a revealed case and its facts."""

    async def ask(self, case: Contract, facts: Facts) -> Ask:
        """Chooses the passages; `facts` of the question include them under `knowledge`."""

    def made_from(self, model: str, ask: Ask) -> MadeFrom:
        """Digests of everything that the question was made from."""
