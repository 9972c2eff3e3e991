"""A door for GitHub: issues and their comments. Deliveries of any other type are taken and give nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from connectors import cards
from connectors.protocol import PlainChange
from contracts.basis import version_of
from contracts.events.cases import Author, FieldValue
from contracts.failures import PermanentError

_STAFF = frozenset({"OWNER", "MEMBER", "COLLABORATOR"})
_KINDS = {
    "opened": "created",
    "closed": "status_changed",
    "reopened": "status_changed",
    "labeled": "tags_changed",
    "unlabeled": "tags_changed",
    "assigned": "assignment_changed",
    "unassigned": "assignment_changed",
}
"""Actions of an issue that have a word of ours; any other keeps GitHub's."""
_OURS = {"state": "status", "labels": "tags", "assignees": "assignee_ids"}
_COMMENT_KINDS = {"created": "comment_added", "edited": "comment_edited", "deleted": "comment_deleted"}


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _User(_Wire):
    id: int
    login: str
    type: str = "User"


class _Label(_Wire):
    name: str


class _Comment(_Wire):
    id: int
    user: _User | None
    author_association: str = "NONE"
    body: str | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class _Issue(_Wire):
    id: int
    number: int
    title: str
    body: str | None = None
    user: _User | None
    author_association: str = "NONE"
    state: str = ""
    locked: bool = False
    labels: tuple[_Label, ...] = ()
    assignees: tuple[_User, ...] = ()
    pull_request: dict[str, object] | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class _Repository(_Wire):
    full_name: str


class _Payload(_Wire):
    action: str
    issue: _Issue
    comment: _Comment | None = None
    repository: _Repository
    sender: _User


class GitHub:
    """Receives. A case is an issue (`owner/name#7`); a pull request is one too, and `is_pull_request` says so."""

    def __init__(self, *, our_login: str | None = None) -> None:
        """`our_login` is the account that Nightshift writes as, if it does."""
        self._our_login = our_login

    def delivery_id(self, headers: Mapping[str, str], body: bytes) -> str:
        """`x-github-delivery`, which a redelivery keeps; without it, the body's digest."""
        return headers.get("x-github-delivery") or f"sha256:{sha256(body).hexdigest()}"

    def receive(self, payload: object, body: bytes, received_at: datetime) -> Sequence[PlainChange]:  # noqa: ARG002  # Receives
        """One change for `issues` and `issue_comment`. Raises PermanentError("unreadable_body")."""
        if not isinstance(payload, dict) or not {"action", "issue", "repository", "sender"} <= payload.keys():
            return ()
        try:
            event = _Payload.model_validate(payload)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, e["loc"])) for e in error.errors(include_input=False)[:5])
            raise PermanentError("unreadable_body", places) from None  # the cause quotes the body
        try:
            if event.comment is None:
                return (self._issue_change(event, body),)
            return (self._comment_change(event, event.comment, body),)
        except OverflowError as error:
            raise PermanentError("unreadable_body", "a time is none of the calendar in UTC") from error

    def _issue_change(self, event: _Payload, body: bytes) -> PlainChange:
        issue = event.issue
        opened = event.action == "opened"
        moment = issue.created_at if opened else issue.updated_at
        return PlainChange(
            object_id=_object_id(event),
            kind=_KINDS.get(event.action, event.action),
            identity=f"issue:{issue.id}:opened" if opened else _identity(f"issue:{issue.id}", event, body),
            version=version_of(issue.updated_at),
            author=self._author(event),
            occurred_at=moment,
            opens=opened,
            fields=_fields(event) | (_comment_fields("description", issue, moment) if opened else {}),
            texts={"subject": cards.mask(issue.title)}
            | ({"body": cards.mask(issue.body or "")} if opened or event.action == "edited" else {}),
        )

    def _comment_change(self, event: _Payload, comment: _Comment, body: bytes) -> PlainChange:
        added = event.action == "created"
        moment = comment.created_at if added else comment.updated_at
        if event.action == "deleted":
            moment = event.issue.updated_at
        return PlainChange(
            object_id=_object_id(event),
            kind=_COMMENT_KINDS.get(event.action, f"comment_{event.action}"),
            identity=f"comment:{comment.id}:created" if added else _identity(f"comment:{comment.id}", event, body),
            version=version_of(moment),
            author=self._author(event),
            occurred_at=moment,
            fields=_fields(event) | _comment_fields(str(comment.id), comment, comment.created_at),
            texts={"subject": cards.mask(event.issue.title), "body": cards.mask(comment.body or "")},
        )

    def _author(self, event: _Payload) -> Author:
        """Who sent it. Acting on what somebody else wrote takes rights that only staff has."""
        if event.sender.login == self._our_login:
            return "ours"
        if event.sender.type == "Bot":
            return "system"
        written = event.comment or event.issue
        if written.user is None or written.user.id != event.sender.id:
            return "staff"
        return "staff" if written.author_association in _STAFF else "customer"


def _object_id(event: _Payload) -> str:
    return f"{event.repository.full_name}#{event.issue.number}"


def _identity(thing: str, event: _Payload, body: bytes) -> str:
    """GitHub names no event in the body: thing, action, stamp and digest, so that a redelivery is the same change."""
    return f"{thing}:{event.action}:{version_of(event.issue.updated_at)}:{sha256(body).hexdigest()}"


def _fields(event: _Payload) -> dict[str, FieldValue]:
    issue = event.issue
    fields: dict[str, FieldValue] = {
        "requester_id": str(issue.user.id) if issue.user else "",
        "is_pull_request": issue.pull_request is not None,
        "created_at": version_of(issue.created_at),
        "updated_at": version_of(issue.updated_at),
    }
    told: dict[str, FieldValue] = {
        "state": issue.state,
        "labels": tuple(label.name for label in issue.labels),
        "assignees": tuple(str(user.id) for user in issue.assignees),
        "locked": issue.locked,
    }
    return fields | {_OURS.get(name, name): value for name, value in told.items() if name in issue.model_fields_set}


def _comment_fields(comment_id: str, written: _Issue | _Comment, at: datetime) -> dict[str, FieldValue]:
    return {
        "comment_id": comment_id,
        "comment_public": True,
        "author_id": str(written.user.id) if written.user else "",
        "author_is_staff": written.author_association in _STAFF,
        "comment_created_at": version_of(at),
    }
