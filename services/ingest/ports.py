"""What ingest needs of what lies outside it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from connectors.protocol import Lists, Reads
from services.ingest.domain.delivery import Delivery, Outcome
from services.ingest.domain.reconciliation import Heard, Hour
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

    async def say_again(self, connection: Connection, row_id: int, delivery: Delivery) -> None:
        """Owe its events to the world; those that were said before stay said once.

        From now on it is stored as one of its cases: erasing any of them erases it.
        """


class Outside(Lists, Reads, Protocol):
    """The provider of a door: its list of updates, and one object's whole history."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to compare a door's intake, while the lease lasts. Whoever claims it later has a higher token."""

    process: str
    source: str
    since: datetime
    """From when on its intake is compared."""
    token: int


class LeaseLostError(Exception):
    """Somebody else compares the door's intake now."""


class Hours(Protocol):
    """What is known of each hour of each door. All but `claim` and `known` raise LeaseLostError."""

    async def claim(self, process: str, source: str, now: datetime) -> Claim | None:
        """Take what is due. A door is compared from the first look on that finds something delivered through it."""

    async def hold(self, claim: Claim) -> None:
        """Keep the lease for a while longer."""

    async def release(self, claim: Claim, *, seconds: float) -> None:
        """Give the lease back; it is due again after `seconds`."""

    async def unsettled(self, claim: Claim, now: datetime) -> Sequence[Hour]:
        """Hours that may still change and are due, the running one too: the newest first, then what was put off."""

    async def heard(self, claim: Claim, since: datetime, until: datetime, object_ids: Collection[str]) -> list[Heard]:
        """What webhooks told about these objects within that time, and up to some hours later."""

    async def any_heard(self, claim: Claim, since: datetime, until: datetime) -> list[Heard]:
        """As `heard`, about any object of the door."""

    async def known(self, delivery_ids: Collection[str]) -> Collection[str]:
        """Those of these deliveries that are stored."""

    async def keep(self, claim: Claim, before: Hour, after: Hour, now: datetime) -> None:
        """Store what is known of an hour now, and say it where it is news."""
