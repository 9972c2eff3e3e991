"""One webhook: proved, parsed, and read into the changes it tells."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import orjson

from connectors.protocol import PlainChange, Receives, RejectedDeliveryError
from connectors.signatures import verify
from contracts.basis import version_of
from contracts.envelope import EPOCH, NAME_CHARS_MAX
from contracts.failures import PermanentError
from services.ingest.domain.delivery import (
    CHANGES_MAX,
    Change,
    Delivery,
    Unreadable,
    delivery_id_of,
    event_id_of,
    no_case_id,
    proof_in,
    short,
)
from services.runtime.process import Door, case_id_of

AHEAD_MAX = timedelta(hours=1)
"""A body that is dated further ahead of us is believed no date, nor is one from before EPOCH."""
_FIRST = version_of(EPOCH)
_DATES = ("created_at", "comment_created_at")
"""Fields by which processes tell how old a case and a comment are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDoor:
    """A door of process.toml with what it needs: its secrets and its connector."""

    process: str
    name: str
    settings: Door
    secrets: Sequence[str]
    connector: Receives

    @property
    def path(self) -> str:
        """Where its sender posts to."""
        return f"/webhooks/{self.process}/{self.name}"


def read_delivery(
    door: OpenDoor, headers: Mapping[str, str], body: bytes, *, now: datetime, traceparent: str
) -> Delivery:
    """The delivery, proved. Raises RejectedDeliveryError for what is unsigned, stale (401) or no JSON (400).

    What is signed and cannot be understood is a delivery too, with `unreadable` set.
    """
    settings = door.settings
    verify(
        settings.scheme,
        headers=headers,
        body=body,
        secrets=door.secrets,
        tolerance_seconds=settings.tolerance_seconds,
        now=now,
    )
    payload = parse(body)
    sender_id = door.connector.delivery_id(headers, body)
    changes: Sequence[Change] = ()
    unreadable = None
    try:
        changes = changes_in(door, payload, body, now)
    except PermanentError as error:
        unreadable = Unreadable(error.code, str(error))
    except Exception as error:  # noqa: BLE001  # a fault of ours is no reason to refuse what was signed
        unreadable = Unreadable("unforeseen", type(error).__name__)
    return Delivery(
        delivery_id=delivery_id_of(door.process, door.name, sender_id),
        process=door.process,
        source=door.name,
        sender_id=short(sender_id),
        case_ids=case_ids_of(changes) or (no_case_id(door.process, door.name, now),),
        signed=proof_in(settings.scheme, headers),
        body=body,
        traceparent=traceparent,
        received_at=now,
        changes=changes,
        unreadable=unreadable,
    )


def changes_in(door: OpenDoor, payload: object, body: bytes, received_at: datetime) -> Sequence[Change]:
    """What the connector reads in a body. Raises PermanentError."""
    plain = door.connector.receive(payload, body, received_at)
    if len(plain) > CHANGES_MAX:
        raise PermanentError("too_many_changes", f"{len(plain)} changes in one delivery; {CHANGES_MAX} are allowed")
    return [
        Change(
            _believed(change, received_at),
            case_id_of(door.process, door.name, change.object_id),
            event_id_of(door.process, door.name, change.identity),
        )
        for change in plain
    ]


def _believed(change: PlainChange, received_at: datetime) -> PlainChange:
    """The change, or a hint in its place where one of its dates lies ahead, or before all tickets.

    What is dated tomorrow would come after all that is said until then, and no answer to that would be the newest.
    """
    latest = received_at + AHEAD_MAX
    if _FIRST <= change.version <= version_of(latest) and all(EPOCH <= dated <= latest for dated in _dates(change)):
        return change
    return replace(change, hint=True, version=version_of(received_at), occurred_at=received_at)


def _dates(change: PlainChange) -> Iterator[datetime]:
    """Those that can be told: what is no date, or has no zone where it needs one, others judge."""
    if change.occurred_at.tzinfo is not None:
        yield change.occurred_at
    for told in filter(None, map(change.fields.get, _DATES)):
        with suppress(ValueError):
            dated = datetime.fromisoformat(str(told))
            yield dated if dated.tzinfo is not None else dated.replace(tzinfo=UTC)


def case_ids_of(changes: Sequence[Change]) -> Sequence[str]:
    """The cases that a delivery concerns, sorted."""
    return [changes[0].case_id] if len(changes) == 1 else sorted({change.case_id for change in changes})


def set_aside(delivery: Delivery, why: Unreadable) -> Delivery:
    """The delivery as work for a person: of its case where it has one whose id can be stored, without its changes."""
    known = [case_id for case_id in delivery.case_ids if case_id.isprintable() and len(case_id) <= NAME_CHARS_MAX][:1]
    return delivery._replace(
        changes=(),
        case_ids=known or [no_case_id(delivery.process, delivery.source, delivery.received_at)],
        unreadable=why,
    )


def parse(body: bytes) -> object:
    """The body's JSON. Raises RejectedDeliveryError (400).

    orjson refuses half characters, which senders make by cutting text between two: the standard parser takes them.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        parsed: object = json.loads(body.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RejectedDeliveryError(400, "no_json", "send one JSON value in UTF-8, not nested too deep") from None
    return parsed


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity are no JSON
