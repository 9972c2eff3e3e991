"""What the classifier needs of a model, and of whoever prepares its question."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from contracts.base import Contract
from contracts.decision import Facts
from contracts.events.proposals import MadeFrom
from contracts.failures import PermanentError
from contracts.knowledge import Passage, Question
from contracts.proposed import Proposed


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


class RefusedError(PermanentError):
    """The model will not answer this. `answer` says what the call took."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("model_refused", f"{answer.model} refused to answer")
        self.answer = answer


class Provider(Protocol):
    """A model."""

    @property
    def name(self) -> str:
        """`nearest`, or `claude:` and the model."""

    async def propose(self, ask: Ask) -> Answer:
        """Answer with JSON of the asked schema. Raises the failures of contracts.failures."""


class Desk(Protocol):
    """Prepares a question from a revealed case and its facts."""

    def ask(self, case: Contract, facts: Facts) -> Ask:
        """Chooses the passages; `facts` of the question include them under `knowledge`."""

    def made_from(self, model: str, ask: Ask) -> MadeFrom:
        """Digests of everything that the question was made from."""
