"""One update of a simulated ticket: what it changes, its audit, and the sibling events that tell of it."""

from collections.abc import Callable, Sequence
from typing import cast

from pydantic import JsonValue

from contracts.base import Json
from nightshift.world.model import PRIORITIES, STATUSES, Audit, Comment, Status, Ticket, User, stamp

_EVENT_OF_FIELD = {
    "status": "status_changed",
    "priority": "priority_changed",
    "subject": "subject_changed",
    "tags": "tags_changed",
    "assignee_id": "agent_assignment_changed",
    "group_id": "group_assignment_changed",
}


class RefusedError(Exception):
    """The API says no. `body` is what it answers."""

    def __init__(self, status: int, error: str, description: str, *, retries: bool = False) -> None:
        """`retries`: the answer says when to come again."""
        super().__init__(f"{status} {error}")
        self.status = status
        self.retries = retries
        self.body: Json = {"error": error, "description": description}


def check(ticket: Ticket, change: Json) -> None:
    """Whether the change may be made to the ticket as it is. Raises RefusedError (409, 422)."""
    if ticket.status == "closed":
        raise RefusedError(422, "RecordInvalid", "Status: closed prevents ticket update")
    if change.get("safe_update") and change.get("updated_stamp") != stamp(ticket.updated_at):
        raise RefusedError(409, "UpdateConflict", "Safe Update prevented the update due to outdated ticket data")
    if "status" in change and change["status"] not in STATUSES:
        raise RefusedError(422, "RecordInvalid", "Status: is not valid")
    if change.get("priority") is not None and change["priority"] not in PRIORITIES:
        raise RefusedError(422, "RecordInvalid", "Priority: is not valid")
    for name in ("assignee_id", "group_id"):
        if change.get(name) is not None and not str(change[name]).isdecimal():
            raise RefusedError(422, "RecordInvalid", f"{name}: is not valid")


class Update:
    """An update in the making."""

    def __init__(self, ticket: Ticket, audit: Audit, new_id: Callable[[], int]) -> None:
        self.ticket = ticket
        self.audit = audit
        self.told: list[tuple[str, Json]] = []
        """Kind and content of each event."""
        self._new_id = new_id

    def say(self, body: str, *, public: bool, author: User, attachments: Sequence[str], arrival: int) -> None:
        """Add a comment."""
        comment = Comment(
            id=self._new_id(),
            author_id=author.id,
            public=public,
            body=body,
            created_at=self.audit.created_at,
            audit_id=self.audit.id,
            channel=self.audit.channel,
            arrival=arrival,
            attachments=tuple(attachments),
        )
        self.ticket.comments.append(comment)
        self.audit.events.append(
            {
                "id": comment.id,
                "type": "Comment",
                "author_id": author.id,
                "public": public,
                "body": body,
                "plain_body": body,
                "attachments": [{"file_name": name} for name in attachments],
                "audit_id": self.audit.id,
            }
        )
        said: Json = {
            "id": str(comment.id),
            "body": body,
            "is_public": public,
            "author": {"id": str(author.id), "is_staff": author.is_staff, "name": author.name},
        }
        self.told.append(("comment_added", {"comment": said}))

    def change_fields(self, change: Json) -> None:
        """Everything in `change` but its comment, checked before."""
        ticket = self.ticket
        if "subject" in change:
            self.set("subject", str(change["subject"]))
        if "priority" in change:
            self.set("priority", change["priority"])
        for name in ("group_id", "assignee_id"):
            if name in change:
                self.set(name, int(str(change[name])) if change[name] is not None else None)
        status = change.get("status")
        if status is None and ticket.status == "new" and ticket.assignee_id is not None:
            status = "open"
        if status is not None:
            self.set("status", cast("Status", status))
        tags = {tag_of(tag) for tag in texts_of(change["tags"])} if "tags" in change else set(ticket.tags)
        tags |= {tag_of(tag) for tag in texts_of(change.get("additional_tags"))}
        tags -= {tag_of(tag) for tag in texts_of(change.get("remove_tags"))}
        self.set("tags", sorted(tags))
        customs = change.get("custom_fields")
        for custom in customs if isinstance(customs, list) else []:
            one = object_of(custom)
            self._set_custom(str(one.get("id")), one.get("value"))

    def set(self, name: str, value: object) -> None:
        """Change one field, if it changes."""
        before = getattr(self.ticket, name)
        if before == value:
            return
        setattr(self.ticket, name, value)
        self.note("Change", name, value, before)
        self.told.append((_EVENT_OF_FIELD[name], _changed(before, value)))

    def _set_custom(self, name: str, value: object) -> None:
        before = self.ticket.custom_fields.get(name)
        if before != value:
            self.ticket.custom_fields[name] = cast("str | int | bool | None", value)
            self.note("Change", name, value, before)
            self.told.append(("custom_field_changed", _changed(before, value)))

    def note(self, kind: str, name: str, value: object, before: object = None) -> None:
        """Write a field into the audit: `Create` or `Change`."""
        event: Json = {"id": self._new_id(), "type": kind, "field_name": name, "value": _written(value)}
        if kind == "Change":
            event["previous_value"] = _written(before)
        self.audit.events.append(event)


def tag_of(tag: str) -> str:
    """As Zendesk spells tags."""
    return "_".join(tag.lower().split())


def object_of(value: object) -> Json:
    """The object that should be there, or an empty one."""
    return value if isinstance(value, dict) else {}


def texts_of(value: object) -> list[str]:
    """The list of words that should be there, or an empty one."""
    return [str(one) for one in value] if isinstance(value, list) else []


def _changed(before: object, value: object) -> Json:
    return {"previous": _written(before), "current": _written(value)}


def _written(value: object) -> JsonValue:
    """Audits and events write numbers as text, tags as a list."""
    return None if value is None else list(value) if isinstance(value, list) else str(value)
