"""The outside world's own books: what was answered how often, counted by who wrote what after what.

Nothing else is looked at, no effect key and no metadata: a system that acted twice cannot talk its way out.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from contracts.base import Json
from nightshift.world.model import OUR_USER_ID, SYSTEM_ID, Comment, State, Ticket, stamp


@dataclass
class _Asked:
    """What a customer wrote, and what came after it and before the customer's next words."""

    comment: Comment
    ours: list[Comment] = field(default_factory=list)
    notes: list[Comment] = field(default_factory=list)
    staff: list[Comment] = field(default_factory=list)


def books(state: State) -> Json:
    """The figures over all tickets, and each ticket's own."""
    answered: Counter[int] = Counter()
    totals: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    seconds: list[float] = []
    tickets: Json = {}
    for ticket in state.tickets.values():
        asked, early = _asked(ticket, state)
        answered.update(min(len(one.ours), 2) for one in asked)
        first = next((c.created_at for c in ticket.comments if c.public and c.author_id == OUR_USER_ID), None)
        if first is not None:
            seconds.append((first - ticket.created_at).total_seconds())
        totals["replies_to_nobody"] += len(early)
        totals["replies_after_staff"] += sum(_after_staff(one) for one in asked)
        totals["replies_out_of_order"] += _out_of_order(ticket)
        totals["customer_comments"] += len(asked)
        totals["replies"] += sum(c.public for c in _ours(ticket))
        totals["notes"] += sum(not c.public for c in _ours(ticket))
        totals["untouched"] += sum(not (one.ours or one.notes or one.staff) for one in asked) if not ticket.gone else 0
        tags.update(ticket.tags)
        tickets[str(ticket.id)] = _ticket(ticket, asked)
    return {
        "tickets": len(state.tickets),
        "answered_never": answered[0],
        "answered_once": answered[1],
        "answered_twice": answered[2],
        **{name: totals[name] for name in _TOTALS},
        "first_reply_seconds": {
            "count": len(seconds),
            "p50": _percentile(seconds, 50),
            "p99": _percentile(seconds, 99),
        },
        "tags": dict(tags.most_common()),
        "calls": dict(state.counts),
        "per_ticket": tickets,
    }


_TOTALS = (
    "customer_comments",
    "replies",
    "notes",
    "untouched",
    "replies_to_nobody",
    "replies_after_staff",
    "replies_out_of_order",
)


def _asked(ticket: Ticket, state: State) -> tuple[list[_Asked], list[Comment]]:
    """Each customer's comment with what followed; and our public replies before anybody asked anything."""
    asked: list[_Asked] = []
    early: list[Comment] = []
    for comment in ticket.comments:
        ours = comment.author_id == OUR_USER_ID
        staff = comment.author_id == SYSTEM_ID or state.users[comment.author_id].is_staff
        if not staff:
            asked.append(_Asked(comment))
        elif not asked:
            early += [comment] if ours and comment.public else []
        elif ours:
            (asked[-1].ours if comment.public else asked[-1].notes).append(comment)
        elif comment.public:
            asked[-1].staff.append(comment)
    return asked, early


def _ours(ticket: Ticket) -> Iterator[Comment]:
    return (comment for comment in ticket.comments if comment.author_id == OUR_USER_ID)


def _after_staff(asked: _Asked) -> int:
    """Our public replies to something that a person had answered already."""
    return sum(any(person.id < reply.id for person in asked.staff) for reply in asked.ours)


def _out_of_order(ticket: Ticket) -> int:
    """Our public replies that came to lie after one whose call arrived later."""
    newest = found = 0
    for reply in _ours(ticket):
        if reply.public:
            found += reply.arrival < newest
            newest = max(newest, reply.arrival)
    return found


def _ticket(ticket: Ticket, asked: list[_Asked]) -> Json:
    return {
        "status": ticket.gone or ticket.status,
        "tags": list(ticket.tags),
        "created_at": stamp(ticket.created_at),
        "customer_comments": [
            {
                "id": one.comment.id,
                "at": _at(one.comment),
                "replies": [_at(reply) for reply in one.ours],
                "notes": len(one.notes),
                "staff_replies": len(one.staff),
            }
            for one in asked
        ],
    }


def _at(comment: Comment) -> str:
    moment: datetime = comment.created_at
    return stamp(moment)


def _percentile(values: list[float], percent: int) -> float | None:
    """Nearest rank."""
    if not values:
        return None
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]
