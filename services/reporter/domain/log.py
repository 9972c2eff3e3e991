"""Entries of the log, and the history of one case made of them."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar
from uuid import NAMESPACE_URL, UUID, uuid5

from contracts.base import Fact
from contracts.envelope import (
    EPOCH,
    NAME_CHARS_MAX,
    NOBODY,
    Event,
    Record,
    UnknownTypeError,
    UnreadableError,
    decode,
    named,
)
from contracts.events import NEWEST

NO_TIME = EPOCH
"""Of a record whose time cannot be read."""

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
    process: str
    case_id: str
    why: str


Told = Event[Fact] | Unread
"""What an entry tells."""


@dataclass(frozen=True, slots=True)
class History:
    """Everything known of one case, in order of (time, event id), each event once."""

    case_id: str
    process: str
    events: tuple[Event[Fact], ...]
    unread: tuple[Unread, ...] = ()
    _by_contract: dict[type[Fact], list[Event[Fact]]] = field(init=False, default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for event in self.events:
            for contract in _contracts_of(type(event.data)):
                self._by_contract.setdefault(contract, []).append(event)

    def of(self, contract: type[F]) -> Sequence[Event[F]]:
        """The events that carry `contract` or a narrower one."""
        return self._by_contract.get(contract, ())  # type: ignore[return-value]  # they carry it: see above


def entry_of(record: Record) -> Entry:
    """Never fails: what cannot be read gets an id made of its bytes and the subject `unknown`."""
    headers = {_text(name): _text(value) for name, value in record.headers.items()}
    return Entry(
        event_id=_uuid(headers.get("ce_id")) or uuid5(NAMESPACE_URL, base64.b64encode(record.body).decode()),
        topic=record.topic,
        type=headers.get("ce_type", NOBODY)[:NAME_CHARS_MAX],
        process=named(headers, "ce_process"),
        case_id=named(headers, "ce_subject"),
        time=_time(headers.get("ce_time")),
        correlation_id=_uuid(headers.get("ce_correlationid")),
        headers=headers,
        body=record.body,
    )


def read(entry: Entry) -> Told:
    """What the entry tells, as far as this build can read it."""
    try:
        return decode(entry.headers, entry.body)
    except UnknownTypeError:
        why = "unknown_type"
    except UnreadableError:
        why = "unreadable"
    return Unread(entry.event_id, entry.type, entry.time, entry.process, entry.case_id, why)


def history_of(told: Iterable[Told]) -> History:
    """The case's history. `told` is of one case, at least one, in any order, any number of times."""
    once = sorted({one.event_id: one for one in told}.values(), key=lambda one: (one.time, one.event_id))
    events = tuple(one for one in once if isinstance(one, Event))
    unread = tuple(one for one in once if isinstance(one, Unread))
    return History(once[0].case_id, once[0].process, events, unread)


@cache
def _contracts_of(narrowest: type[Fact]) -> tuple[type[Fact], ...]:
    """The contract, and those that it is derived from."""
    return tuple(contract for contract in NEWEST if issubclass(narrowest, contract))


def _text(raw: str) -> str:
    """Postgres keeps no NUL."""
    return raw.replace("\0", "\ufffd")


def _uuid(raw: str | None) -> UUID | None:
    try:
        return UUID(raw) if raw else None
    except ValueError:
        return None


def _time(raw: str | None) -> datetime:
    """The event's time; one without an offset, or outside the calendar, is damaged, and damaged is NO_TIME.

    So is one before that, which no event has: Postgres' driver gives the first day of all back as no time at all.
    """
    try:
        time = datetime.fromisoformat(raw or "")
        return NO_TIME if time.tzinfo is None else max(time.astimezone(UTC), NO_TIME)
    except (ValueError, OverflowError):
        return NO_TIME
