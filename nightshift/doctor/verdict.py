"""What a check looks at, and what it says."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]


class Verdict(NamedTuple):
    """One thing found. `mend` is one sentence, empty where all is well."""

    level: Level
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is examined."""

    state: Path
    told: dict[str, Any] | None
    """stack.json of the stack that runs; none when none does."""


Check = Callable[[Place], Awaitable[list[Verdict]]]


def fine(text: str) -> list[Verdict]:
    """All is well."""
    return [Verdict("ok", text)]


def graded(text: str, mend: str, *, needed: bool, wished: bool) -> list[Verdict]:
    """A problem below what is needed, a warning below what is wished."""
    if not needed:
        return [Verdict("problem", text, mend)]
    return [Verdict("ok", text) if wished else Verdict("warning", text, mend)]
