"""Zendesk's webhooks, both kinds of body, as changes. Pure."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import Field, ValidationError

from connectors import cards
from connectors.protocol import PlainChange
from connectors.zendesk.wire import DESCRIPTION, Id, Text, Ticket, Wire, author_of, clean, moment, readable
from contracts.basis import version_of
from contracts.events.cases import FieldValue
from contracts.failures import PermanentError

_EVENTS = "zen:"
_TICKET = "zen:event-type:ticket."
_INVOCATION = "x-zendesk-webhook-invocation-id"
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
    position: int = Field(default=0, ge=0, lt=1000)


class _Meta(Wire):
    sequence: _Sequence = _Sequence()


class _Change(Wire):
    meta: _Meta = _Meta()
    comment: _Comment | None = None


class _Event(Wire):
    id: Text = Field(min_length=1, max_length=200)
    type: str
    time: Text
    detail: Ticket
    event: _Change = _Change()


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
        return (_change(_Event.model_validate(payload), our_user_id),)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) for e in error.errors(include_input=False)[:5])
        raise _unreadable(places) from error
    except ValueError as error:
        raise _unreadable("a time is malformed") from error


def _change(event: _Event, our_user_id: str) -> PlainChange:
    detail, sequence = event.detail, event.event.meta.sequence
    kind = event.type.removeprefix(_TICKET)
    at = moment(event.time)
    fields = detail.fields()
    texts = {"subject": cards.mask(detail.subject)} if "subject" in detail.model_fields_set else {}
    staff: bool | None = None
    author_id = detail.actor_id
    if kind == "created":
        author_id = detail.submitter_id or detail.requester_id
        staff = author_id != detail.requester_id
        fields |= _comment_fields(
            DESCRIPTION, public=detail.is_public is not False, author_id=author_id, staff=staff, at=detail.created_at
        )
        texts["body"] = readable(detail.description)
    elif kind == "comment_added":
        comment = event.event.comment
        if comment is None:
            raise _unreadable("event.comment")
        author_id, staff = comment.author.id or detail.actor_id, comment.author.is_staff
        fields |= _comment_fields(
            DESCRIPTION if _is_description(comment, detail) else comment.id,
            public=comment.is_public,
            author_id=author_id,
            staff=author_id != detail.requester_id if staff is None else staff,
            at=_comment_created_at(detail, at),
        )
        texts["body"] = readable(comment.body)
    return PlainChange(
        object_id=detail.id,
        kind=kind,
        identity=event.id,
        version=version_of(moment(detail.updated_at) if detail.updated_at else at),
        position=sequence.position,
        update_id=sequence.id or None,
        author=author_of(author_id, ours=our_user_id, requester=detail.requester_id, staff=staff),
        occurred_at=at,
        opens=kind == "created",
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


def _is_description(comment: _Comment, detail: Ticket) -> bool:
    """Some senders tell the first comment twice: with the ticket, and as a comment."""
    return comment.body == detail.description and detail.created_at == detail.updated_at != ""


def _comment_created_at(detail: Ticket, event_time: datetime) -> str:
    """The comment's own second. A detail may be newer than its event; the audit of the comment never is."""
    at = event_time.astimezone(UTC).replace(microsecond=0)
    if detail.updated_at and moment(detail.updated_at) <= at:
        return detail.updated_at
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
