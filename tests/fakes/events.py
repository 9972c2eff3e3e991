"""Small events for tests of delivery."""

from datetime import UTC, datetime
from uuid import UUID, uuid5

from contracts.base import Fact
from contracts.envelope import Event
from contracts.events.cases import CaseChanged
from contracts.events.control import ProcessPaused

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
"""A Sunday, at four in the morning."""
_NAMES = UUID("00000000-0000-0000-0000-00000000cafe")


def named(name: str) -> UUID:
    """The id that belongs to a name."""
    return uuid5(_NAMES, name)


def event(name: str, data: Fact | None = None, *, case_id: str = "tiny:none:1") -> Event[Fact]:
    """An event whose id comes of its name."""
    return Event(
        event_id=named(name),
        source="nightshift/tests",
        time=NOW,
        process=case_id.split(":", maxsplit=1)[0],
        case_id=case_id,
        correlation_id=named(f"run of {name}"),
        causation_id=None,
        data=data or ProcessPaused(generation=1, reason=name, by="tests"),
    )


def change(
    object_id: str = "1", *, kind: str = "comment_added", identity: str = "a", version: str = "2026"
) -> CaseChanged:
    """An outside change without text."""
    return CaseChanged(
        door="none",
        object_id=object_id,
        kind=kind,
        identity=identity,
        version=version,
        author="customer",
        occurred_at=NOW,
        received_at=NOW,
    )
