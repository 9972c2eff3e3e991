"""What ingest needs of what lies outside it."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from services.ingest.domain.delivery import Delivery, Outcome
from services.runtime.postgres import Connection

Clock = Callable[[], datetime]
"""Now, with a time zone."""
Trace = Callable[[str | None], str]
"""The `traceparent` that a delivery's events travel with, given the sender's where it sent a valid one."""
Wake = Callable[[], None]


class IntakeUnavailableError(Exception):
    """Nothing was promised: the sender shall try again. `reason` is a word of a closed set."""

    def __init__(self, reason: str, mend: str, *, retry_after_seconds: int) -> None:
        super().__init__(f"{reason}: {mend}")
        self.reason = reason
        self.mend = mend
        self.retry_after_seconds = retry_after_seconds


Told = Outcome | IntakeUnavailableError
"""What became of a delivery."""


class Intake(Protocol):
    """Where a verified delivery goes."""

    async def store(self, delivery: Delivery) -> Outcome:
        """Return when the delivery and its events are committed, or were before.

        Raises IntakeUnavailableError.
        """

    def submit(self, delivery: Delivery, reply: Callable[[Told], None]) -> None:
        """Like `store`, without a task: `reply` is called once, and raises nothing.

        Raises IntakeUnavailableError where it is known at once; `reply` is not called then.
        """


class Store(Protocol):
    """Where groups of deliveries go."""

    async def write(self, deliveries: Sequence[Delivery], shard: int) -> Sequence[Outcome]:
        """Commit all of them in one transaction, or none. One group after the other for each shard."""


class Archive(Protocol):
    """Deliveries that are stored already."""

    async def open(self, connection: Connection, row_id: int) -> Delivery | None:
        """With its body as it was signed and without changes. Raises UnsealableError when a key was erased."""

    async def say_again(self, connection: Connection, delivery: Delivery) -> None:
        """Owe its events to the world; those that were said before stay said once."""
