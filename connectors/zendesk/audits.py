"""A ticket's audits as changes: the source's own identity and order, where webhooks leave a doubt. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from connectors import cards
from connectors.protocol import PlainChange, Written
from connectors.zendesk.wire import DESCRIPTION, Audit, AuditEvent, Ticket, User, author_of, clean, moment, readable
from contracts.basis import version_of
from contracts.envelope import EPOCH
from contracts.events.cases import FieldValue

EFFECT_KEY = "nightshift_effect"
"""The name of an effect's key in the metadata of its audit."""
STATE_POSITION = 1_000_000
_FIRST_POSITION = 1000
"""Audits are complete, so their changes come after those of webhooks of the same second."""
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""From then on nothing can be added to a time."""
DELETED = "deleted"
"""The status of a ticket that is gone; one that had it is back."""
KINDS = {
    "status": "status_changed",
    "priority": "priority_changed",
    "subject": "subject_changed",
    "tags": "tags_changed",
    "assignee_id": "agent_assignment_changed",
    "group_id": "group_assignment_changed",
}
"""By field: the kind of change that tells it."""
_PLAIN = ("status", "priority", "assignee_id", "group_id", "requester_id", "brand_id", "organization_id")


def changes_of(
    ticket: Ticket, audits: Sequence[Audit], users: Sequence[User], *, our_user_id: str
) -> tuple[PlainChange, ...]:
    """The history, oldest first, and last the ticket's state as it was when it was read.

    `ticket` was read before `audits`: what an audit changed since counts over it. Raises ValueError for a time that is
    malformed, or that no ticket can have.
    """
    staff = {user.id: user.role != "end-user" for user in users}
    changes: list[PlainChange] = []
    positions: dict[str, int] = {}
    state = ticket.fields()
    for audit in audits:
        at = _moment(audit.created_at)
        version = version_of(at)
        for name, kind, fields, texts, author_id in _parts(audit, ticket, staff, opens=audit is audits[0]):
            position = positions[version] = positions.get(version, _FIRST_POSITION - 1) + 1
            if audit.created_at >= ticket.updated_at:
                state |= {field: value for field, value in fields.items() if field in state}
            changes.append(
                PlainChange(
                    object_id=ticket.id,
                    kind=kind,
                    identity=f"audit:{audit.id}:{name}",
                    version=version,
                    position=position,
                    update_id=f"audit:{audit.id}",
                    author=author_of(
                        author_id, ours=our_user_id, requester=ticket.requester_id, staff=staff.get(author_id)
                    ),
                    occurred_at=at,
                    opens=kind == "created",
                    fields=fields | {"updated_at": audit.created_at},
                    texts=texts,
                )
            )
    newest = max(
        (_moment(stamp) for stamp in (ticket.updated_at, *(a.created_at for a in audits)) if stamp), default=None
    )
    if newest is not None:
        changes.append(_state(ticket, state, newest, audits[-1].id if audits else "none"))
    return tuple(changes)


def _moment(stamp: str) -> datetime:
    at = moment(stamp)
    if not EPOCH <= at < _NEVER:
        raise ValueError("a time that no ticket can have")
    return at


def _state(ticket: Ticket, state: dict[str, FieldValue], at: datetime, last_audit: str) -> PlainChange:
    stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return PlainChange(
        object_id=ticket.id,
        kind="read",
        identity=f"state:{last_audit}:{stamp}",
        version=version_of(at),
        position=STATE_POSITION,
        update_id=f"audit:{last_audit}",
        author="system",
        occurred_at=at,
        fields=state | {"updated_at": stamp},
        texts={"subject": cards.mask(ticket.subject)},
    )


_Part = tuple[str, str, dict[str, FieldValue], dict[str, str], str]
"""Name within the audit, kind, fields, texts, author."""


def _parts(audit: Audit, ticket: Ticket, staff: Mapping[str, bool], *, opens: bool) -> list[_Part]:
    comments = [event for event in audit.events if event.type == "Comment"]
    set_fields = [event for event in audit.events if event.type in {"Create", "Change"}]
    if opens:
        return [_opening(audit, ticket, staff, comments, set_fields)]
    parts: list[_Part] = []
    for comment in comments:
        fields, texts, author_id = _comment(comment, audit, ticket, staff, name=comment.id)
        parts.append((comment.id, "comment_added", fields, texts, author_id))
    for event in set_fields:
        if event.field_name in KINDS:
            fields, texts = _field(event)
            parts.append((event.id, _kind(event), fields, texts, audit.author_id))
    return parts


def _kind(event: AuditEvent) -> str:
    if event.field_name == "status" and event.value == DELETED:
        return "soft_deleted"
    if event.field_name == "status" and event.previous_value == DELETED:
        return "undeleted"
    return KINDS[event.field_name]


def _opening(
    audit: Audit, ticket: Ticket, staff: Mapping[str, bool], comments: list[AuditEvent], set_fields: list[AuditEvent]
) -> _Part:
    fields: dict[str, FieldValue] = {
        "channel": audit.via.channel or ticket.via.channel,
        "created_at": ticket.created_at,
    }
    texts = {"subject": cards.mask(ticket.subject)}
    for event in set_fields:
        more, words = _field(event)
        fields |= more
        texts |= words
    author_id = audit.author_id
    if comments:
        more, words, author_id = _comment(comments[0], audit, ticket, staff, name=DESCRIPTION)
        fields |= more
        texts |= words
    return DESCRIPTION, "created", fields, texts, author_id


def _comment(
    comment: AuditEvent, audit: Audit, ticket: Ticket, staff: Mapping[str, bool], *, name: str
) -> tuple[dict[str, FieldValue], dict[str, str], str]:
    author_id = comment.author_id or audit.author_id
    fields: dict[str, FieldValue] = {
        "comment_id": name,
        "comment_public": comment.public,
        "author_id": author_id,
        "author_is_staff": staff.get(author_id, author_id != ticket.requester_id),
        "comment_created_at": audit.created_at,
    }
    return fields, {"body": readable(comment.body)}, author_id


def _field(event: AuditEvent) -> tuple[dict[str, FieldValue], dict[str, str]]:
    if event.field_name == "subject":
        return {}, {"subject": cards.mask(str(event.value or ""))}
    if event.field_name == "tags":
        tags = event.value.split() if isinstance(event.value, str) else event.value
        return {"tags": tuple(map(str, tags)) if isinstance(tags, list) else ()}, {}
    if event.field_name in _PLAIN:
        return {event.field_name: "" if event.value is None else str(event.value).lower()}, {}
    return {}, {}


def written_by(audits: Sequence[Audit], our_user_id: str) -> tuple[Written, ...]:
    """What our user wrote, oldest first. Raises ValueError for a malformed time."""
    return tuple(
        Written(
            reference=reference_of(audit),
            at=moment(audit.created_at),
            public=any(event.type == "Comment" and event.public for event in audit.events),
            effect_key=_key_of(audit),
        )
        for audit in audits
        if audit.author_id == our_user_id
    )


def _key_of(audit: Audit) -> str | None:
    """None also for what no key of ours can be: a text that databases refuse."""
    key = audit.custom.get(EFFECT_KEY)
    return key if isinstance(key, str) and clean(key) == key else None


def reference_of(audit: Audit) -> str:
    """The name of an update that was carried out: `audit:<id>`."""
    return f"audit:{audit.id}"
