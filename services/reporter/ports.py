"""What the handlers need of the tables, and the console of the projections."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from services.reporter.domain.causes import Cause
from services.reporter.domain.log import Entry, Told
from services.reporter.domain.projection import Projected
from services.reporter.domain.telling import Notice, Standing
from services.reporter.domain.views import ApprovalRow, CasePage, CauseRow, DeadLetterRow, Status, Timeline


class Projections(Protocol):
    """One set of projection tables, inside a transaction."""

    async def replace(self, cases: Sequence[Projected]) -> None:
        """Make the rows of these cases exactly these, and move the totals by the difference."""


class Log(Projections, Protocol):
    """The log and the live projections, inside one transaction."""

    async def hold(self, case_ids: Sequence[str]) -> None:
        """Until the transaction ends nobody else projects these cases, and no rebuild swaps the tables."""

    async def append(self, entries: Sequence[Entry]) -> Collection[UUID]:
        """Add the entries that the log does not hold yet; returns the ids of those added."""

    async def told_of(self, case_ids: Sequence[str]) -> Mapping[str, Sequence[Told]]:
        """What the log tells of these cases; of each, the newest `ENTRIES_OF_CASE_MAX` entries."""


class Store(Protocol):
    """Where handlers open their transactions."""

    def transaction(self) -> AbstractAsyncContextManager[Log]:
        """All that is done inside commits together, or not at all."""


class Project(Protocol):
    """What was told of cases, projected."""

    def __call__(self, told: Mapping[str, Sequence[Told]]) -> list[Projected]: ...


class Rebuilding(Protocol):
    """Fresh tables beside the live ones. Only one rebuild goes on at a time."""

    async def begin(self) -> int:
        """Make the fresh tables empty; returns the last position of the log."""

    async def case_ids_after(self, case_id: str, limit: int) -> list[str]:
        """The next case ids of the log, in order."""

    async def fill(self, case_ids: Sequence[str], project: Project) -> None:
        """Project these cases into the fresh tables, in one transaction."""

    async def changed_since(self, position: int) -> tuple[list[str], int]:
        """Cases with entries after `position`, and the last position now. No entry can appear behind it later."""

    async def swap(self, position: int, project: Project, version: str) -> None:
        """In one transaction: catch up from `position` and make the fresh tables the live ones."""


class Stops(Protocol):
    """What the console may do: pull the plug."""

    async def pause(self, process: str, reason: str) -> bool:
        """Pause the process; false where no such process runs. Committed when it returns."""
        ...


class Reads(Protocol):
    """What the console shows."""

    async def status(self, *, process: str | None = None) -> Status:
        """Of one process, or of all."""
        ...

    async def cases(self, *, state: str | None, page: str | None) -> CasePage: ...
    async def timeline(self, case_id: str) -> Timeline: ...
    async def dead_letters(self) -> Sequence[DeadLetterRow]: ...
    async def approvals(self) -> Sequence[ApprovalRow]: ...
    async def causes(self) -> Sequence[CauseRow]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Who is told of a cause now."""

    cause: Cause
    tells: bool
    """Those on duty."""
    escalates: bool
    at: datetime
    """By the database's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Who learnt of it."""

    cause: Cause
    told: bool
    escalated: bool
    failed: str | None
    """A word for why somebody who was to learn of it did not."""


class Causes(Protocol):
    """What needs a person, and what was said of it."""

    async def count(self) -> None:
        """Count the causes there are now. One that is gone has ended."""

    async def claim(
        self, decide: Callable[[Cause, Standing, datetime], Telling | None], *, lease: timedelta
    ) -> Sequence[Telling]:
        """Hold what is to be told now; nobody else holds it until the lease is over or the outcome is recorded."""
        ...

    async def record(self, outcomes: Sequence[Outcome], *, first: timedelta, most: timedelta) -> None:
        """Write down who learnt of it. What failed is tried again after `first`, then less and less often."""


class Messenger(Protocol):
    """Brings a notice to people."""

    async def send(self, notice: Notice) -> "Sent":
        """Whom it reached. Never raises for what the other side does."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """Whom a notice reached."""

    arrived: bool
    """At one of those to be told, at least."""
    missed: tuple[str, ...]
    """Words for what did not take it."""
