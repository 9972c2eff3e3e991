"""Entries of the log, and the history of one case made of them."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, cast
from uuid import NAMESPACE_URL, UUID, uuid5

from contracts.base import Fact
from contracts.envelope import Event, Record, UnknownTypeError, UnreadableError, decode

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Of a record whose time cannot be read."""
NOBODY = "unknown"

F = TypeVar("F", bound=Fact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record as the log keeps it, whether or not this build understands it."""

    event_id: UUID
    topic: str
    type: str
    process: str
    case_id: str
    time: datetime
    correlation_id: UUID | None
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Unread:
    """An event that this build cannot read: a newer type, or damaged."""

    event_id: UUID
    type: str
    time: datetime
    why: str


@dataclass(frozen=True, slots=True)
class History:
    """Everything known of one case, in order of (time, event id), each event once."""

    case_id: str
    process: str
    events: tuple[Event[Fact], ...]
    unread: tuple[Unread, ...] = ()

    def of(self, contract: type[F]) -> list[Event[F]]:
        """The events that carry `contract` or a narrower one."""
        found = [event for event in self.events if isinstance(event.data, contract)]
        return cast("list[Event[F]]", found)  # mypy narrows no generic by the type of its field


def entry_of(record: Record) -> Entry:
    """Never fails: what cannot be read gets an id made of its bytes and the subject `unknown`."""
    headers = {_text(name): _text(value) for name, value in record.headers.items()}
    return Entry(
        event_id=_uuid(headers.get("ce_id")) or uuid5(NAMESPACE_URL, base64.b64encode(record.body).decode()),
        topic=record.topic,
        type=headers.get("ce_type", NOBODY),
        process=headers.get("ce_process", NOBODY),
        case_id=headers.get("ce_subject", NOBODY),
        time=_time(headers.get("ce_time")),
        correlation_id=_uuid(headers.get("ce_correlationid")),
        headers=headers,
        body=record.body,
    )


def history_of(entries: Iterable[Entry]) -> History:
    """The case's history. `entries` are of one case, at least one, in any order, any number of times."""
    once = sorted({entry.event_id: entry for entry in entries}.values(), key=lambda e: (e.time, e.event_id))
    events: list[Event[Fact]] = []
    unread: list[Unread] = []
    for entry in once:
        try:
            events.append(decode(entry.headers, entry.body))
        except UnknownTypeError:
            unread.append(Unread(entry.event_id, entry.type, entry.time, "unknown_type"))
        except UnreadableError:
            unread.append(Unread(entry.event_id, entry.type, entry.time, "unreadable"))
    return History(once[0].case_id, once[0].process, tuple(events), tuple(unread))


def _text(raw: str) -> str:
    """Postgres keeps no NUL."""
    return raw.replace("\0", "\ufffd")


def _uuid(raw: str | None) -> UUID | None:
    try:
        return UUID(raw) if raw else None
    except ValueError:
        return None


def _time(raw: str | None) -> datetime:
    """The event's time; one without an offset, or outside the calendar, is damaged, and damaged is NO_TIME."""
    try:
        time = datetime.fromisoformat(raw or "")
        return NO_TIME if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return NO_TIME
