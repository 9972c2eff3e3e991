"""CloudEvents 1.0 in Kafka's binary content mode: attributes in `ce_` headers, the payload as JSON."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID, uuid5

from pydantic import ValidationError

from contracts.base import Fact
from contracts.events import REGISTRY, UPCASTS

CONTENT_TYPE = "application/json"
SPEC_VERSION = "1.0"
NAME_CHARS_MAX = 300
"""Of a subject or a process: an index of Postgres takes little more."""
WHAT_CHARS_MAX = 300
"""Of why a record cannot be read."""
NOBODY = "unknown"
EPOCH = datetime.fromtimestamp(0, UTC)
"""No event, and no ticket, is from before that."""
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class UnknownTypeError(Exception):
    """An event of a type or version that this build does not know: a newer service is about."""

    def __init__(self, event_type: str) -> None:
        super().__init__(f"event type {event_type!r} is not known to this version")
        self.event_type = event_type


class UnreadableError(Exception):
    """A record that is no CloudEvent of ours. `what` names the attribute or the payload's field, never its value.

    A payload may name its fields by anything: what cannot be stored or shown of that is left out.
    """

    def __init__(self, what: str) -> None:
        self.what = "".join(c if c.isprintable() else "?" for c in what[:WHAT_CHARS_MAX])
        super().__init__(f"record cannot be read: {self.what}")


class Record(NamedTuple):
    """An event as it lies on a topic and in the outbox: headers are `ce_*` and `content-type`."""

    topic: str
    key: str
    headers: dict[str, str]
    body: bytes


P = TypeVar("P", bound=Fact)
P_co = TypeVar("P_co", bound=Fact, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[P_co]):
    """A past fact with who, when, about what and why."""

    event_id: UUID
    source: str
    """`nightshift/<service>`."""
    time: datetime
    """When it happened, by the clock of whoever recorded it first."""
    process: str
    case_id: str
    correlation_id: UUID
    """One run: one pass of a case through the pipeline."""
    causation_id: UUID | None
    """The event or delivery that led to this one."""
    traceparent: str | None = None
    data: P_co

    @property
    def type(self) -> str:
        """The contract's name and version."""
        return self.data.TYPE

    def to_record(self) -> Record:
        """The event as bytes. Equal events give equal bytes."""
        headers = {
            "ce_specversion": SPEC_VERSION,
            "ce_id": str(self.event_id),
            "ce_type": self.data.TYPE,
            "ce_source": self.source,
            "ce_time": self.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "ce_subject": self.case_id,
            "ce_process": self.process,
            "ce_correlationid": str(self.correlation_id),
            "content-type": CONTENT_TYPE,
        }
        if self.causation_id is not None:
            headers["ce_causationid"] = str(self.causation_id)
        if self.traceparent is not None:
            headers["ce_traceparent"] = self.traceparent
        return Record(self.data.TOPIC, self.case_id, headers, self.data.model_dump_json().encode())


def follow_up_id(cause: UUID, event_type: str, *apart: object) -> UUID:
    """The id of an event that follows from another.

    `apart` tells siblings apart (effect key and attempt, ordinal, nonce).
    """
    return uuid5(cause, "|".join((event_type, *map(str, apart))))


def follow_up(cause: "Event[Fact]", data: P, *apart: object, source: str, time: datetime) -> Event[P]:
    """An event of the same case and run, caused by `cause`."""
    return Event(
        event_id=follow_up_id(cause.event_id, data.TYPE, *apart),
        source=source,
        time=time,
        process=cause.process,
        case_id=cause.case_id,
        correlation_id=cause.correlation_id,
        causation_id=cause.event_id,
        traceparent=cause.traceparent,
        data=data,
    )


def named(headers: Mapping[str, str], attribute: str) -> str:
    """A subject or a process as it can be stored; `unknown` where there is none."""
    name = headers.get(attribute, "")
    return name if 0 < len(name) <= NAME_CHARS_MAX else NOBODY


def holds_nul(body: bytes) -> bool:
    """Whether a text of this JSON holds one."""
    return b"\\u0000" in body and _NUL.search(body) is not None


def headers_of(raw: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Kafka's headers as text. Raises UnreadableError."""
    try:
        return {name: value.decode() for name, value in raw}
    except UnicodeDecodeError as error:
        raise UnreadableError("a header is not UTF-8") from error


def upcast(event_type: str, body: bytes) -> tuple[str, bytes]:
    """The newest version's type and payload of an older event. Raises UnreadableError."""
    try:
        payload = json.loads(body)
        while event_type in UPCASTS:
            event_type, step = UPCASTS[event_type]
            payload = step(payload)
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{event_type}: the older payload cannot be carried over") from error
    return event_type, json.dumps(payload).encode()


def decode(headers: dict[str, str], body: bytes) -> Event[Fact]:
    """Read a record. Raises UnknownTypeError for a type this build does not know, UnreadableError for anything else.

    What Postgres could not keep (a NUL, a name without end, a time before 1970) is no event of ours.
    """
    event_type = headers.get("ce_type")
    if event_type is None:
        raise UnreadableError("header ce_type is missing")
    if event_type in UPCASTS:
        event_type, body = upcast(event_type, body)
    contract = REGISTRY.get(event_type)
    if contract is None:
        raise UnknownTypeError(event_type)
    for attribute in ("ce_subject", "ce_process"):
        if not 0 < len(headers.get(attribute, NOBODY)) <= NAME_CHARS_MAX:
            raise UnreadableError(f"header {attribute} is empty or too long")
    if holds_nul(body):
        raise UnreadableError(f"{event_type}: a text holds a NUL")
    try:
        causation = headers.get("ce_causationid")
        return Event(
            event_id=UUID(headers["ce_id"]),
            source=headers["ce_source"],
            time=_moment(headers["ce_time"]),
            process=headers["ce_process"],
            case_id=headers["ce_subject"],
            correlation_id=UUID(headers["ce_correlationid"]),
            causation_id=UUID(causation) if causation else None,
            traceparent=headers.get("ce_traceparent"),
            data=contract.model_validate_json(body),
        )
    except KeyError as error:
        raise UnreadableError(f"header {error.args[0]} is missing") from error
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or "body" for e in error.errors(include_input=False)[:5])
        raise UnreadableError(f"{event_type}: {fields}") from error
    except (ValueError, OverflowError) as error:
        raise UnreadableError(f"{event_type}: an id or a time in the headers is malformed") from error


def _moment(text: str) -> datetime:
    """A time that can be compared with any other. Raises ValueError where it has no offset or is none of ours."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or moment < EPOCH:
        raise ValueError("a time without an offset, or before 1970")
    return moment.astimezone(UTC)
