"""Zendesk's incremental list of ticket events as updates: which webhooks should have told what. Pure."""

from collections.abc import Mapping

from pydantic import JsonValue

from connectors.protocol import Part, Update
from connectors.zendesk.audits import DELETED, KINDS
from connectors.zendesk.wire import Id, Text, Wire, moment, plain_text

_GONE = frozenset({"soft_deleted", "marked_as_spam", "permanently_deleted"})
_BACK = frozenset({"undeleted"})


class TicketEvent(Wire):
    """One audit. A changed field is a name of its child event beside `previous_value`."""

    id: Id
    ticket_id: Id
    created_at: Text
    child_events: tuple[Mapping[str, JsonValue], ...] = ()


class TicketEvents(Wire):
    """A page, paged by time: the next one begins with the second in which this one ends, and repeats that."""

    ticket_events: tuple[TicketEvent, ...]
    end_time: int | None = None
    end_of_stream: bool
    """Without it nobody could tell a list that ends from one that goes on."""


def update_of(event: TicketEvent) -> Update:
    """Raises ValueError for a malformed time, UnusualError for what is no id."""
    opens = any(child.get("event_type") == "Create" for child in event.child_events)
    told = [part for child in event.child_events for part in _parts(child)]
    return Update(
        object_id=event.ticket_id,
        update_id=f"audit:{event.id}",
        at=moment(event.created_at),
        parts=(Part(frozenset({"created"})),) if opens else tuple(told),
    )


def _parts(child: Mapping[str, JsonValue]) -> list[Part]:
    """What nobody reads (a custom field, a notification) is no part: it may be subscribed to, or not."""
    match child.get("event_type"):
        case "Comment":
            return [Part(frozenset({"comment_added"}), plain_text(child.get("id")) or None)]
        case "Change":
            return [Part(_told_by(field, child)) for field in KINDS if field in child]
        case _:
            return []


def _told_by(field: str, child: Mapping[str, JsonValue]) -> frozenset[str]:
    if field == "status" and child["status"] == DELETED:
        return _GONE
    if field == "status" and child.get("previous_value") == DELETED:
        return _BACK
    return frozenset({KINDS[field]})
