"""The simulated Zendesk's API: a call in, an answer or a cut connection out. No HTTP server, no waiting."""

import base64
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random

from contracts.base import Json
from nightshift.world.faults import Faults
from nightshift.world.model import OUR_USER_ID, Audit, Ticket, audit_json, comment_json, stamp, ticket_json, user_json
from nightshift.world.update import RefusedError, object_of
from nightshift.world.zendesk import Zendesk

PAGE_ROWS_MAX = 100
LIST_ROWS_MAX = 1000
UPDATES_MAX = 30
"""Of one ticket by one user in ten minutes."""
_UPDATES_WINDOW = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as it arrives."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    authorization: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends without an answer, after `hold_seconds`."""

    hold_seconds: float = 0.0


@dataclass(kw_only=True)
class Api:
    """Checks who calls, how often, and what is to go wrong; then lets the state machine do it."""

    zendesk: Zendesk
    faults: Faults = field(default_factory=Faults)
    email: str = "nightshift@shop.example"
    token: str
    requests_per_minute: int = 100_000
    """A real account has 200 to 2,500; a night of 30 s needs more."""
    lists_per_minute: int = 10
    """Calls of the incremental list, by everybody together."""
    lag_seconds: float = 60.0
    """The incremental list leaves out what is newer."""
    random: Random = field(default_factory=lambda: Random(1))  # noqa: S311  # chooses faults, guards nothing
    _minute: datetime | None = None
    _calls_this_minute: int = 0
    _lists_this_minute: int = 0

    def answer(self, call: Call) -> Answer | Cut:
        """What the caller gets. Late work that is due by now is done first."""
        self.zendesk.advance()
        down = self._down()
        if down is not None:
            return down
        if not self._known(call.authorization):
            return self._with_headers(Answer(401, {"error": "Couldn't authenticate you"}))
        over = self._over_limit()
        if over is not None:
            return over
        try:
            outcome = self._faulty(call) if call.method == "PUT" else self._read_faulty(call)
        except RefusedError as error:
            self.zendesk.count(f"refused_{error.status}")
            later = {"retry-after": str(self.faults.retry_after_seconds)} if error.retries else {}
            outcome = Answer(error.status, error.body, later)
        return self._with_headers(outcome) if isinstance(outcome, Answer) else outcome

    def _down(self) -> Answer | Cut | None:
        if not self.faults.down:
            return None
        self.zendesk.count("down")
        if self.faults.down == "cut":
            return Cut()
        retry_after = str(self.faults.retry_after_seconds)
        return self._with_headers(Answer(503, {"error": "ServiceUnavailable"}, {"retry-after": retry_after}))

    def _known(self, authorization: str) -> bool:
        expected = base64.b64encode(f"{self.email}/token:{self.token}".encode()).decode()
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "basic" and hmac.compare_digest(given.strip().encode(), expected.encode())

    def _over_limit(self) -> Answer | None:
        minute = self.zendesk.now().replace(second=0)
        if minute != self._minute:
            self._minute, self._calls_this_minute, self._lists_this_minute = minute, 0, 0
        self._calls_this_minute += 1
        return self._rate_limited() if self._calls_this_minute > self.requests_per_minute else None

    def list_over_limit(self) -> bool:
        """Count a call of the incremental list."""
        self._lists_this_minute += 1
        return self._lists_this_minute > self.lists_per_minute

    def _rate_limited(self) -> Answer:
        self.zendesk.count("rate_limited")
        retry_after = str(self.faults.retry_after_seconds)
        return self._with_headers(Answer(429, {"error": "APIRateLimitExceeded"}, {"retry-after": retry_after}))

    def _with_headers(self, answer: Answer) -> Answer:
        now = self.zendesk.now()
        headers = {
            "date": format_datetime(now.astimezone(UTC), usegmt=True),
            "x-rate-limit": str(self.requests_per_minute),
            "x-rate-limit-remaining": str(max(0, self.requests_per_minute - self._calls_this_minute)),
            "ratelimit-reset": str(60 - now.second),
        }
        return Answer(answer.status, answer.body, headers | dict(answer.headers))

    def _read_faulty(self, call: Call) -> Answer:
        match self.faults.strike(self.random, writes=False):
            case "fail":
                return Answer(500, {"error": "InternalServerError"})
            case "rate_limited":
                return self._rate_limited()
            case _:
                return self._read(call)

    def _faulty(self, call: Call) -> Answer | Cut:
        """A call that writes, and what is to go wrong with it."""
        place = re.fullmatch(r"/api/v2/tickets/(\d{1,18})(?:\.json)?", call.path)
        change = object_of(_json(call.body).get("ticket"))
        if place is None:
            raise RefusedError(404, "InvalidEndpoint", "Not found")
        ticket_id, arrival = int(place[1]), self.zendesk.arrive()
        match self.faults.strike(self.random, writes=True):
            case "fail":
                self.zendesk.count("failed")
                return Answer(500, {"error": "InternalServerError"})
            case "rate_limited":
                return self._rate_limited()
            case "no_effect":
                self.zendesk.count("no_effect")
                return self._pretend(ticket_id)
            case "late":
                self.zendesk.count("late")
                self.zendesk.later(self.faults.late_seconds, ticket_id, change, actor_id=OUR_USER_ID, arrival=arrival)
                return Cut(self.faults.hold_seconds)
            case "effect_then_500":
                self._write(ticket_id, change, arrival)
                return Answer(500, {"error": "InternalServerError"})
            case "effect_then_cut":
                self._write(ticket_id, change, arrival)
                return Cut()
            case None:
                return self._write(ticket_id, change, arrival)

    def _write(self, ticket_id: int, change: Json, arrival: int) -> Answer:
        since = self.zendesk.now() - _UPDATES_WINDOW
        audits = self.zendesk.ticket(ticket_id).audits
        if sum(a.author_id == OUR_USER_ID and a.created_at > since for a in audits) >= UPDATES_MAX:
            return self._rate_limited()
        ticket, audit = self.zendesk.update(ticket_id, change, actor_id=OUR_USER_ID, arrival=arrival)
        self.zendesk.count("written")
        return Answer(200, {"ticket": ticket_json(ticket), "audit": audit_json(ticket, audit)})

    def _pretend(self, ticket_id: int) -> Answer:
        ticket = self.zendesk.ticket(ticket_id)
        lie: Json = {
            "id": 1,
            "ticket_id": ticket_id,
            "created_at": stamp(self.zendesk.now()),
            "author_id": OUR_USER_ID,
            "events": [],
        }
        return Answer(200, {"ticket": ticket_json(ticket), "audit": lie})

    def _read(self, call: Call) -> Answer:
        if call.method != "GET":
            raise RefusedError(405, "MethodNotAllowed", "Method not allowed")
        for pattern, reader in _READERS:
            if place := re.fullmatch(pattern, call.path):
                return Answer(200, reader(self, call.query, *map(int, place.groups())))
        raise RefusedError(404, "InvalidEndpoint", "Not found")


def _json(body: bytes) -> Json:
    try:
        return object_of(json.loads(body))
    except ValueError as error:
        raise RefusedError(400, "Unprocessable", "The body is no JSON") from error


def _me(api: Api, _: Mapping[str, str]) -> Json:
    return {"user": user_json(api.zendesk.state.users[OUR_USER_ID])}


def _ticket(api: Api, _: Mapping[str, str], ticket_id: int) -> Json:
    return {"ticket": ticket_json(api.zendesk.ticket(ticket_id))}


def _audits(api: Api, query: Mapping[str, str], ticket_id: int) -> Json:
    ticket = api.zendesk.ticket(ticket_id)
    page, found = _page("audits", [(a.id, audit_json(ticket, a)) for a in ticket.audits], query)
    return page | _users(api, found, query)


def _comments(api: Api, query: Mapping[str, str], ticket_id: int) -> Json:
    ticket = api.zendesk.ticket(ticket_id)
    page, found = _page("comments", [(c.id, comment_json(c)) for c in ticket.comments], query)
    return page | _users(api, found, query)


def _page(name: str, rows: list[tuple[int, Json]], query: Mapping[str, str]) -> tuple[Json, list[Json]]:
    """One page, oldest first; a cursor is the id of the last row before it."""
    size = min(PAGE_ROWS_MAX, max(1, _number(query.get("page[size]"), PAGE_ROWS_MAX)))
    after = _number(query.get("page[after]"), 0)
    rest = [row for row in rows if row[0] > after]
    found = [row for _, row in rest[:size]]
    cursor = str(rest[:size][-1][0]) if found else None
    return {name: list(found), "meta": {"has_more": len(rest) > size, "after_cursor": cursor}}, found


def _users(api: Api, rows: list[Json], query: Mapping[str, str]) -> Json:
    if "users" not in query.get("include", ""):
        return {}
    users = api.zendesk.state.users
    authors = {author for row in rows if isinstance(author := row["author_id"], int)}
    return {"users": [user_json(users[author]) for author in sorted(authors) if author in users]}


def _ticket_events(api: Api, query: Mapping[str, str]) -> Json:
    """Every audit by time, those of deleted tickets too. Paged by time: a page ends with a whole second."""
    if (refused := api.faults.list_refused) or api.list_over_limit():
        raise RefusedError(refused or 429, "ListRefused", "The list cannot be had", retries=True)
    until = api.zendesk.now() - timedelta(seconds=api.lag_seconds)
    start = datetime.fromtimestamp(_number(query.get("start_time"), 0), UTC)
    if start > until:
        raise RefusedError(422, "StartTimeTooRecent", "Use a start_time that is older")
    found = sorted(
        (audit.created_at, audit.id, ticket, audit)
        for ticket in api.zendesk.state.tickets.values()
        for audit in ticket.audits
        if start <= audit.created_at <= until
    )
    size = min(LIST_ROWS_MAX, max(1, _number(query.get("per_page"), LIST_ROWS_MAX)))
    last = found[:size][-1][0] if found else start
    page = [(ticket, audit) for at, _, ticket, audit in found if at <= last]
    whole = "comment_events" in query.get("include", "")
    return {
        "ticket_events": [_ticket_event(ticket, audit, comments=whole) for ticket, audit in page],
        "count": len(page),
        "end_time": int(last.timestamp()),
        "end_of_stream": len(page) == len(found),
    }


def _ticket_event(ticket: Ticket, audit: Audit, *, comments: bool) -> Json:
    return {
        "id": audit.id,
        "ticket_id": ticket.id,
        "timestamp": int(audit.created_at.timestamp()),
        "created_at": stamp(audit.created_at),
        "updater_id": audit.author_id,
        "event_type": "Audit",
        "child_events": [_child_event(event, comments=comments) for event in audit.events],
    }


def _child_event(event: Json, *, comments: bool) -> Json:
    """Other than in an audit, a changed field is a name of its own."""
    kind = event["type"]
    if kind == "Comment":
        told = event if comments else {"comment_present": True, "comment_public": event["public"]}
        return {**told, "event_type": kind}
    name, value = str(event["field_name"]), event["value"]
    changed: Json = {"custom_ticket_fields": {name: value}} if name.isdecimal() else {name: value}
    before: Json = {"previous_value": event["previous_value"]} if kind == "Change" else {}
    return {"id": event["id"], "event_type": kind, **changed, **before}


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and re.fullmatch(r"\d{1,12}", text) else default


Reader = Callable[..., Json]
_READERS: tuple[tuple[str, Reader], ...] = (
    (r"/api/v2/users/me(?:\.json)?", _me),
    (r"/api/v2/tickets/(\d{1,18})(?:\.json)?", _ticket),
    (r"/api/v2/tickets/(\d{1,18})/audits(?:\.json)?", _audits),
    (r"/api/v2/tickets/(\d{1,18})/comments(?:\.json)?", _comments),
    (r"/api/v2/incremental/ticket_events(?:\.json)?", _ticket_events),
)
