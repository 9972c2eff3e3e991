"""What the handlers need of the tables, and the console of the projections."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from services.reporter.domain.log import Entry, Told
from services.reporter.domain.projection import Projected
from services.reporter.domain.views import ApprovalRow, CasePage, DeadLetterRow, Status, Timeline


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


class Reads(Protocol):
    """What the console shows."""

    async def status(self, *, process: str | None = None) -> Status:
        """Of one process, or of all."""
        ...

    async def cases(self, *, state: str | None, page: str | None) -> CasePage: ...
    async def timeline(self, case_id: str) -> Timeline: ...
    async def dead_letters(self) -> Sequence[DeadLetterRow]: ...
    async def approvals(self) -> Sequence[ApprovalRow]: ...
