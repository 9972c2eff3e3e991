"""`nightshift.dead-letters`, written by any service: work that needs a person."""

from typing import ClassVar
from uuid import UUID

from contracts import topics
from contracts.base import Fact


class DeadLetterRaised(Fact):
    """Work failed for good; later work of the same case waits behind it. Said again when a redrive failed."""

    TYPE: ClassVar[str] = "dead_letter.raised.v1"
    TOPIC: ClassVar[str] = topics.DEAD_LETTERS

    dead_letter_id: UUID
    service: str
    work: str
    """The kind of task, or the type of the event that could not be read."""
    basis: str | None
    code: str
    message: str
    attempts: int


class DeadLetterRedriven(Fact):
    """A person put the work back."""

    TYPE: ClassVar[str] = "dead_letter.redriven.v1"
    TOPIC: ClassVar[str] = topics.DEAD_LETTERS

    dead_letter_id: UUID
    service: str
    nonce: UUID
    """Tells two redrives of one dead letter apart."""
    by: str


class DeadLetterSkipped(Fact):
    """A person ended it: the work was not done, and the case goes on without it."""

    TYPE: ClassVar[str] = "dead_letter.skipped.v1"
    TOPIC: ClassVar[str] = topics.DEAD_LETTERS

    dead_letter_id: UUID
    service: str
    reason: str
    by: str


class DeadLetterResolved(Fact):
    """What had failed was found done, so nobody is needed; the case goes on."""

    TYPE: ClassVar[str] = "dead_letter.resolved.v1"
    TOPIC: ClassVar[str] = topics.DEAD_LETTERS

    dead_letter_id: UUID
    service: str
    reason: str
