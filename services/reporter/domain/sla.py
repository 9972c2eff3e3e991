"""First reply: was the customer answered in time, and which events prove it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from contracts.base import Json
from contracts.envelope import Event
from contracts.events.cases import CaseChanged, CaseOpened
from contracts.events.effects import EffectObserved
from contracts.events.proposals import ProposalMade
from services.reporter.domain.log import History
from services.reporter.domain.views import By, SlaRow

GONE = frozenset({"merged", "marked_as_spam", "soft_deleted", "permanently_deleted"})
BACK = "undeleted"
CLOSED = frozenset({"solved", "closed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a process promises its customers."""

    first_reply_minutes: float
    automated_reply_counts: bool
    start_at: Mapping[str, datetime] = field(default_factory=dict)
    """By door; what was opened before is nobody's promise."""
    opened_at: Callable[[Json], datetime | None] = lambda _: None
    """When a proposal's case was opened, for cases whose opening no webhook told."""
    never_seen: frozenset[str] = frozenset()
    """Destinations in which nothing can be looked for: there an acknowledgement is the last word."""


@dataclass(frozen=True, slots=True)
class Opening:
    """When the case came into being outside, by which event, and who opened it (none: not told)."""

    at: datetime
    event_id: UUID
    author: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A public reply, as seen outside."""

    at: datetime
    event_id: UUID
    by: By


def changes_of(history: History) -> list[Event[CaseChanged]]:
    """The case's changes in the source's own order."""
    return sorted(history.of(CaseChanged), key=lambda e: (e.data.version, e.data.position, e.event_id))


def opening_of(history: History, policy: Policy | None) -> Opening | None:
    """The earliest opening event, else what a proposal's case says; none when nobody told."""
    opened = min(history.of(CaseOpened), key=lambda e: (e.data.occurred_at, e.event_id), default=None)
    if opened is not None:
        return Opening(opened.data.occurred_at, opened.event_id, opened.data.author)
    for made in history.of(ProposalMade) if policy is not None else ():
        assert policy is not None, "the loop runs for a policy alone"
        if (at := policy.opened_at(made.data.case)) is not None:
            return Opening(at, made.event_id, None)
    return None


def replies_of(history: History) -> list[Reply]:
    """Public replies, earliest first: observed effects, and comments by staff. An attempt alone is no reply."""
    automated = [
        Reply(e.data.observed_at, e.event_id, "automated") for e in history.of(EffectObserved) if e.data.public
    ]
    staff = [
        Reply(e.data.occurred_at, e.event_id, "staff")
        for e in history.of(CaseChanged)
        if e.data.kind == "comment_added"
        and e.data.author == "staff"
        and e.data.fields.get("comment_public") is True
        and not isinstance(e.data, CaseOpened)
    ]
    return sorted(automated + staff, key=lambda reply: (reply.at, reply.event_id))


def is_gone(history: History) -> bool:
    """Deleted, merged or marked as spam, and not brought back."""
    last = [e.data.kind for e in changes_of(history) if e.data.kind in GONE or e.data.kind == BACK]
    return bool(last) and last[-1] != BACK


def is_closed(history: History) -> bool:
    """Solved or closed outside, by the last change that told a status."""
    told = [e.data.fields["status"] for e in changes_of(history) if e.data.fields.get("status") is not None]
    return bool(told) and told[-1] in CLOSED


def sla_of(history: History, policy: Policy | None) -> SlaRow:
    """The first-reply verdict of one case. A reply at the very end of the target is in time."""
    opening = opening_of(history, policy)
    if policy is None:
        return SlaRow(state="not_applicable", why="no_policy")
    if opening is None:
        return SlaRow(state="not_applicable", why="opening_not_seen")
    known = SlaRow(state="not_applicable", why="", opened_at=opening.at, evidence=(opening.event_id,))
    if (why := _not_owed(history, policy, opening)) is not None:
        return known.model_copy(update={"why": why})
    due_at = opening.at + timedelta(minutes=policy.first_reply_minutes)
    target = {"target_minutes": policy.first_reply_minutes, "due_at": due_at}
    counting = [
        r for r in replies_of(history) if r.at >= opening.at and (r.by == "staff" or policy.automated_reply_counts)
    ]
    if not counting:
        if is_gone(history) or is_closed(history):
            why = "gone_without_reply" if is_gone(history) else "closed_without_reply"
            return known.model_copy(update={"why": why})
        return known.model_copy(update={"state": "waiting", "why": "no_reply_yet", **target})
    reply = counting[0]
    in_time = reply.at <= due_at
    return SlaRow(
        state="met" if in_time else "breached",
        why="replied_in_time" if in_time else "replied_late",
        target_minutes=policy.first_reply_minutes,
        opened_at=opening.at,
        due_at=due_at,
        replied_at=reply.at,
        replied_by=reply.by,
        minutes=(reply.at - opening.at).total_seconds() / 60,
        evidence=(opening.event_id, reply.event_id),
    )


def _not_owed(history: History, policy: Policy, opening: Opening) -> str | None:
    if opening.author in {"staff", "ours"}:
        return f"opened_by_{opening.author}"
    doors = {e.data.door for e in history.of(CaseChanged)}
    starts = [policy.start_at[door] for door in doors if door in policy.start_at]
    return "before_start" if starts and opening.at < min(starts) else None
