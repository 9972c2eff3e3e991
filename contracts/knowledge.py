"""What an answer may rest on, and what is asked: shared by the engine that proposes and the processes' pure code."""

from dataclasses import dataclass, field

from contracts.base import Json

ANY_BRAND = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One piece of a process's knowledge, small enough to be quoted whole."""

    id: str
    title: str
    intents: tuple[str, ...]
    """The labels of a proposal that it answers."""
    brand: str
    """A brand's id, or ANY_BRAND."""
    language: str
    """ISO 639-1."""
    when: tuple[str, ...] = ()
    """Words by which the process's own code tells when it fits (support: states of an order); none: always."""
    text: str
    """What is true."""
    reply: str
    """What may be said: a template with `{{names}}` that the process fills from facts; empty where nothing may."""
    version: str
    """Digest of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a revealed case asks, as far as a model needs it. Holds people's text."""

    text: str
    """The words to be answered."""
    brand: str | None
    language: str
    """ISO 639-1."""
    shown: Json = field(default_factory=dict)
    """What a model sees of the case."""
