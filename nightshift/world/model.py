"""What the simulated Zendesk remembers, and how its API and its webhooks write it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from contracts.base import Json

OUR_USER_ID = 900001
"""The user that Nightshift writes as."""
AGENT_ID = 800001
"""The person at the help desk."""
SYSTEM_ID = -1
ACCOUNT_ID = 12514403
BRANDS = {7001: "Harbor & Pine", 7002: "Harbor & Pine Kids"}
GROUPS = {8001: "Support", 8002: "Billing", 8003: "Shipping", 8004: "Accounts"}

Role = Literal["end-user", "agent", "admin"]
Status = Literal["new", "open", "pending", "hold", "solved", "closed"]
STATUSES: tuple[Status, ...] = ("new", "open", "pending", "hold", "solved", "closed")
PRIORITIES = ("low", "normal", "high", "urgent")


@dataclass(kw_only=True)
class User:
    """Somebody who writes."""

    id: int
    name: str
    email: str
    role: Role = "end-user"
    auto_reply: str | None = None
    """Sent by itself after each public reply, as out-of-office machines do."""

    @property
    def is_staff(self) -> bool:
        return self.role != "end-user"


@dataclass(kw_only=True)
class Comment:
    """What somebody wrote on a ticket."""

    id: int
    author_id: int
    public: bool
    body: str
    created_at: datetime
    audit_id: int
    channel: str
    arrival: int
    """The number of the call that brought it; a late call keeps its own."""
    attachments: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Audit:
    """One update of a ticket; `events` are as the API writes them."""

    id: int
    author_id: int
    created_at: datetime
    channel: str
    custom: Json = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)


@dataclass(kw_only=True)
class Ticket:
    """A ticket with everything that ever happened to it."""

    id: int
    subject: str
    description: str
    requester_id: int
    submitter_id: int
    channel: str
    brand_id: int
    created_at: datetime
    updated_at: datetime
    status: Status = "new"
    priority: str | None = None
    assignee_id: int | None = None
    group_id: int | None = None
    organization_id: int | None = None
    is_public: bool = True
    tags: list[str] = field(default_factory=list)
    custom_fields: dict[str, str | int | bool | None] = field(default_factory=dict)
    comments: list[Comment] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)
    merged_into: int | None = None
    gone: Literal["", "deleted", "spam"] = ""


@dataclass(kw_only=True)
class Due:
    """Something that happens later: a call applied late, or a machine's answer."""

    at: datetime
    ticket_id: int
    actor_id: int
    body: Json
    arrival: int
    kind: Literal["late", "auto_reply"]


@dataclass(kw_only=True)
class State:
    """Everything, as it is saved."""

    seed: int
    born: datetime
    tickets: dict[int, Ticket] = field(default_factory=dict)
    users: dict[int, User] = field(default_factory=dict)
    due: list[Due] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """What happened to the calls of the API, by outcome."""
    last_ticket_id: int = 0
    last_id: int = 41_000_000_000
    """Of audits, their events and comments: increasing, whatever ticket they belong to."""
    last_user_id: int = 100_000
    last_arrival: int = 0


def stamp(moment: datetime) -> str:
    """Zendesk's stamps have a resolution of one second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def ticket_json(ticket: Ticket) -> Json:
    """A ticket of the API."""
    return {
        "id": ticket.id,
        "url": f"/api/v2/tickets/{ticket.id}.json",
        "subject": ticket.subject,
        "raw_subject": ticket.subject,
        "description": ticket.description,
        "status": "deleted" if ticket.gone else ticket.status,
        "priority": ticket.priority,
        "type": None,
        "requester_id": ticket.requester_id,
        "submitter_id": ticket.submitter_id,
        "assignee_id": ticket.assignee_id,
        "group_id": ticket.group_id,
        "brand_id": ticket.brand_id,
        "organization_id": ticket.organization_id,
        "tags": list(ticket.tags),
        "custom_fields": [{"id": int(name), "value": value} for name, value in ticket.custom_fields.items()],
        "via": {"channel": ticket.channel},
        "is_public": ticket.is_public,
        "created_at": stamp(ticket.created_at),
        "updated_at": stamp(ticket.updated_at),
    }


def audit_json(ticket: Ticket, audit: Audit) -> Json:
    """An audit of the API."""
    return {
        "id": audit.id,
        "ticket_id": ticket.id,
        "created_at": stamp(audit.created_at),
        "author_id": audit.author_id,
        "via": {"channel": audit.channel},
        "metadata": {"system": {}, "custom": dict(audit.custom)},
        "events": list(audit.events),
    }


def comment_json(comment: Comment) -> Json:
    """A comment of the API."""
    return {
        "id": comment.id,
        "type": "Comment",
        "author_id": comment.author_id,
        "public": comment.public,
        "body": comment.body,
        "plain_body": comment.body,
        "attachments": [{"file_name": name} for name in comment.attachments],
        "created_at": stamp(comment.created_at),
        "audit_id": comment.audit_id,
        "via": {"channel": comment.channel},
    }


def user_json(user: User) -> Json:
    """A user of the API."""
    return {"id": user.id, "name": user.name, "email": user.email, "role": user.role, "active": True}


def detail_json(ticket: Ticket, actor_id: int) -> Json:
    """The `detail` of an event: the ticket after the change, with every id as text."""

    def text(value: int | None) -> str | None:
        return None if value is None else str(value)

    return {
        "actor_id": str(actor_id),
        "assignee_id": text(ticket.assignee_id),
        "brand_id": str(ticket.brand_id),
        "created_at": stamp(ticket.created_at),
        "custom_status": None,
        "description": ticket.description,
        "external_id": None,
        "form_id": "1900000001",
        "group_id": text(ticket.group_id),
        "id": str(ticket.id),
        "is_public": ticket.is_public,
        "organization_id": text(ticket.organization_id),
        "priority": ticket.priority.upper() if ticket.priority else None,
        "requester_id": str(ticket.requester_id),
        "status": "DELETED" if ticket.gone else ticket.status.upper(),
        "subject": ticket.subject,
        "submitter_id": str(ticket.submitter_id),
        "tags": list(ticket.tags),
        "type": None,
        "updated_at": stamp(ticket.updated_at),
        "via": {"channel": ticket.channel},
    }
