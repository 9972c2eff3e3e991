"""Zendesk's webhooks, both kinds of body, as changes. Pure."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from connectors import cards
from connectors.protocol import PlainChange
from connectors.zendesk.wire import (
    DESCRIPTION,
    Id,
    Text,
    Ticket,
    UnusualError,
    Wire,
    author_of,
    clean,
    moment,
    plain_fields,
    plain_id,
    plain_text,
    plain_truth,
    readable,
)
from contracts.basis import version_of
from contracts.events.cases import FieldValue
from contracts.failures import PermanentError

_EVENTS = "zen:"
_TICKET = "zen:event-type:ticket."
_INVOCATION = "x-zendesk-webhook-invocation-id"
POSITIONS_MAX = 1000
IDENTITY_CHARS_MAX = 200
_NOTHING: Mapping[str, Any] = MappingProxyType({})
STATUSES = frozenset({"new", "open", "pending", "hold", "solved", "closed"})
PRIORITIES = frozenset({"low", "normal", "high", "urgent"})


class _CommentAuthor(Wire):
    id: Text = ""
    is_staff: bool | None = None


class _Comment(Wire):
    id: Id
    body: Text = ""
    is_public: bool = True
    author: _CommentAuthor = _CommentAuthor()


class _Sequence(Wire):
    id: Text = ""
    position: int = Field(default=0, ge=0, lt=POSITIONS_MAX)


class _Meta(Wire):
    sequence: _Sequence = _Sequence()


class _Change(Wire):
    meta: _Meta = _Meta()
    comment: _Comment | None = None


class _Event(Wire):
    id: Text = Field(min_length=1, max_length=IDENTITY_CHARS_MAX)
    type: Text
    time: Text
    detail: Ticket
    event: _Change = _Change()


class _Told(NamedTuple):
    """What an event says, whichever way it was read."""

    kind: str
    identity: str
    time: str
    update_id: str
    position: int
    comment: "_Said | None"
    object_id: str
    actor_id: str
    requester_id: str
    submitter_id: str
    subject: str | None
    description: str
    is_public: bool | None
    created_at: str
    updated_at: str
    fields: dict[str, FieldValue]


class _Said(NamedTuple):
    """A comment."""

    id: str
    body: str
    is_public: bool
    author_id: str
    staff: bool | None


def delivery_id(headers: Mapping[str, str], body: bytes) -> str:
    """The invocation's id, which a retry keeps; without one, a digest of the body."""
    return headers.get(_INVOCATION) or "sha256:" + hashlib.sha256(body).hexdigest()


def changes_in(payload: object, body: bytes, received_at: datetime, *, our_user_id: str) -> tuple[PlainChange, ...]:
    """The changes of one verified body; nothing for events about anything but tickets.

    Raises PermanentError("unreadable_body").
    """
    if not isinstance(payload, dict):
        raise _unreadable("the body is no object")
    event_type = payload.get("type")
    try:
        if not isinstance(event_type, str) or not event_type.startswith(_EVENTS):
            return (_hint(payload, body, received_at),)
        if not event_type.startswith(_TICKET):
            return ()
        return (_change(_read_quickly(payload) or _read(payload), our_user_id),)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) for e in error.errors(include_input=False)[:5])
        raise _unreadable(places) from error
    except ValueError as error:
        raise _unreadable("a time is malformed") from error


def _read(payload: object) -> _Told:
    """Any event, by the models. Raises ValidationError."""
    event = _Event.model_validate(payload)
    detail, sequence, said = event.detail, event.event.meta.sequence, event.event.comment
    return _Told(
        kind=event.type.removeprefix(_TICKET),
        identity=event.id,
        time=event.time,
        update_id=sequence.id,
        position=sequence.position,
        comment=None
        if said is None
        else _Said(said.id, said.body, said.is_public, said.author.id, said.author.is_staff),
        object_id=detail.id,
        actor_id=detail.actor_id,
        requester_id=detail.requester_id,
        submitter_id=detail.submitter_id,
        subject=detail.subject if "subject" in detail.model_fields_set else None,
        description=detail.description,
        is_public=detail.is_public,
        created_at=detail.created_at,
        updated_at=detail.updated_at,
        fields=detail.fields(),
    )


def _read_quickly(payload: Mapping[str, Any]) -> _Told | None:
    """The usual event, at a fifth of what the models cost: it is read for every webhook.

    None for whatever is unusual in any way: the models judge it. Where it answers, it answers what they do.
    """
    try:
        event_type, detail = plain_text(payload["type"]), payload["detail"]
        change = payload.get("event", _NOTHING)
        sequence = change.get("meta", _NOTHING).get("sequence", _NOTHING)
        position = sequence.get("position", 0)
        identity = plain_text(payload["id"])
        if type(position) is not int or not 0 <= position < POSITIONS_MAX:  # a bool is an int too
            return None
        if not 0 < len(identity) <= IDENTITY_CHARS_MAX:
            return None
        return _Told(  # in its order, since names cost more than the values
            event_type.removeprefix(_TICKET),
            identity,
            plain_text(payload["time"]),
            plain_text(sequence.get("id")),
            position,
            None if (said := change.get("comment")) is None else _said(said),
            plain_id(detail["id"]),
            plain_text(detail.get("actor_id")),
            plain_text(detail.get("requester_id")),
            plain_text(detail.get("submitter_id")),
            plain_text(detail["subject"]) if "subject" in detail else None,
            plain_text(detail.get("description")),
            plain_truth(detail.get("is_public")),
            plain_text(detail.get("created_at")),
            plain_text(detail.get("updated_at")),
            plain_fields(detail),
        )
    except (UnusualError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _said(comment: Mapping[str, Any]) -> _Said:
    author = comment.get("author", _NOTHING)
    public = comment.get("is_public", True)
    if public is not True and public is not False:
        raise UnusualError
    return _Said(
        plain_id(comment["id"]),
        plain_text(comment.get("body")),
        public,
        plain_text(author.get("id")),
        plain_truth(author.get("is_staff")),
    )


def _change(told: _Told, our_user_id: str) -> PlainChange:
    at = moment(told.time)
    fields = told.fields
    texts = {} if told.subject is None else {"subject": cards.mask(told.subject)}
    staff: bool | None = None
    author_id = told.actor_id
    if told.kind == "created":
        author_id = told.submitter_id or told.requester_id
        staff = author_id != told.requester_id
        fields |= _comment_fields(
            DESCRIPTION, public=told.is_public is not False, author_id=author_id, staff=staff, at=told.created_at
        )
        texts["body"] = readable(told.description)
    elif told.kind == "comment_added":
        comment = told.comment
        if comment is None:
            raise _unreadable("event.comment")
        author_id, staff = comment.author_id or told.actor_id, comment.staff
        fields |= _comment_fields(
            DESCRIPTION if _is_description(comment, told) else comment.id,
            public=comment.is_public,
            author_id=author_id,
            staff=author_id != told.requester_id if staff is None else staff,
            at=_comment_created_at(told.time, told.updated_at),
        )
        texts["body"] = readable(comment.body)
    return PlainChange(
        object_id=told.object_id,
        kind=told.kind,
        identity=told.identity,
        version=_version(told.updated_at or told.time),
        position=told.position,
        update_id=told.update_id or None,
        author=author_of(author_id, ours=our_user_id, requester=told.requester_id, staff=staff),
        occurred_at=at,
        opens=told.kind == "created",
        fields=fields,
        texts=texts,
    )


def _comment_fields(comment_id: str, *, public: bool, author_id: str, staff: bool, at: str) -> dict[str, FieldValue]:
    return {
        "comment_id": comment_id,
        "comment_public": public,
        "author_id": author_id,
        "author_is_staff": staff,
        "comment_created_at": at,
    }


def _is_description(comment: _Said, told: _Told) -> bool:
    """Some senders tell the first comment twice: with the ticket, and as a comment."""
    return comment.body == told.description and told.created_at == told.updated_at != ""


@lru_cache(maxsize=4096)
def _version(stamp: str) -> str:
    return version_of(moment(stamp))


@lru_cache(maxsize=4096)
def _comment_created_at(time: str, updated_at: str) -> str:
    """The comment's own second. A detail may be newer than its event; the audit of the comment never is."""
    at = moment(time).astimezone(UTC).replace(microsecond=0)
    if updated_at and moment(updated_at) <= at:
        return updated_at
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _hint(payload: Mapping[str, object], body: bytes, received_at: datetime) -> PlainChange:
    """A trigger's body, whose form the customer chose: it says which ticket to read, and perhaps a little more."""
    nested = payload.get("ticket")
    flat = {_plain_name(name): value for name, value in (nested if isinstance(nested, dict) else payload).items()}
    ticket_id = str(flat.get("ticketid") or flat.get("id") or "").strip().lstrip("#")
    if not re.fullmatch(r"[0-9]{1,20}", ticket_id):
        raise _unreadable("no ticket id")
    stamp = _text(flat, "updatedat") or ""
    try:
        at: datetime | None = moment(stamp)
    except ValueError:  # a placeholder in the account's own date format
        at = None
    version = version_of(at or received_at)
    subject = _text(flat, "subject", "title")
    return PlainChange(
        object_id=ticket_id,
        kind="trigger",
        identity=f"trigger:{ticket_id}:{version}:{hashlib.sha256(body).hexdigest()}",
        version=version,
        author="unknown",
        occurred_at=at or received_at,
        hint=True,
        fields=_hint_fields(flat) | ({"updated_at": stamp} if at else {}),
        texts={"subject": cards.mask(subject)} if subject is not None else {},
    )


def _hint_fields(flat: Mapping[str, object]) -> dict[str, FieldValue]:
    """What may be believed of a body in free form: words of closed sets, and ids."""
    found: dict[str, FieldValue] = {}
    if (status := (_text(flat, "status") or "").lower()) in STATUSES:
        found["status"] = status
    if (priority := (_text(flat, "priority") or "").lower()) in PRIORITIES:
        found["priority"] = priority
    for name in ("assignee_id", "group_id", "requester_id", "brand_id", "organization_id"):
        value = _text(flat, _plain_name(name))
        if value is not None and re.fullmatch(r"[0-9]{0,20}", value):
            found[name] = value
    return found


def _plain_name(name: str) -> str:
    """`ticketID`, `ticket_id` and `Ticket Id` are one name."""
    return re.sub(r"[^a-z]", "", name.lower())


def _text(flat: Mapping[str, object], *names: str) -> str | None:
    for name in names:
        value = flat.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return clean(str(value)).strip()
    return None


def _unreadable(what: str) -> PermanentError:
    return PermanentError("unreadable_body", f"Zendesk's body cannot be understood: {what}")
