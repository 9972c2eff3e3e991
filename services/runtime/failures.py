"""The one place that tells failures apart: never again, later, or again with backoff."""

import random
from dataclasses import dataclass

from contracts.base import Fact
from contracts.envelope import Event, UnreadableError
from contracts.failures import ConflictError, LaterError, OutcomeUnknownError, PermanentError
from contracts.sealed import UnsealableError
from services.runtime.postgres import CONTENDED, UNAVAILABLE

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Never:
    """Trying again cannot help: a dead letter."""

    code: str
    message: str
    events: tuple[Event[Fact], ...] = ()
    """What to say with the dead letter, in its transaction."""


@dataclass(frozen=True, slots=True)
class Later:
    """Not before `seconds`; no attempt is counted."""

    code: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Again:
    """With backoff, a bounded number of times."""

    code: str
    message: str


Failure = Never | Later | Again


def tell(error: BaseException) -> Failure:
    """Which kind of failure this is. Messages of unforeseen errors are not kept: they may quote people's text."""
    match error:
        case PermanentError():
            return Never(error.code, str(error))
        case UnreadableError():
            return Never("unreadable", str(error))
        case UnsealableError():
            return Never("text_erased", str(error))
        case LaterError():
            return Later(error.code, error.seconds)
        case OutcomeUnknownError() | ConflictError():
            return Again(error.code, str(error))
        case _ if isinstance(error, CONTENDED):
            return Later("database_contended", 0.05)
        case _ if isinstance(error, UNAVAILABLE):
            return Later("unavailable", 1.0)
        case _:
            return Again("unforeseen", type(error).__name__)


def backoff_seconds(attempt: int, *, chance: float) -> float:
    """Exponential with full jitter in its upper half: attempt 1 waits 0.25-0.5 s, and so on up to five minutes."""
    ceiling: float = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(attempt - 1, 20))
    return ceiling * (0.5 + 0.5 * chance)


def jitter() -> float:
    """A chance for `backoff_seconds`."""
    return random.random()  # noqa: S311  # spreads retries, guards nothing
