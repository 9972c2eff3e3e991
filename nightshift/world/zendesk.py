"""The simulated Zendesk: a state machine in memory with a clock of its choice. No HTTP, no waiting."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

from contracts.base import Json
from nightshift.world.model import (
    ACCOUNT_ID,
    AGENT_ID,
    OUR_USER_ID,
    Audit,
    Due,
    State,
    Ticket,
    User,
    detail_json,
)
from nightshift.world.update import RefusedError, Update, check, object_of, tag_of, texts_of

Clock = Callable[[], datetime]
Listener = Callable[[Ticket, Sequence[Json]], None]
"""Told of the sibling events of one update, in the event-subscription form."""

AUTO_REPLY_SECONDS = 1.0


class Zendesk:
    """Tickets, comments and audits; every change, our own too, makes the sibling events of one update."""

    def __init__(self, clock: Clock, *, seed: int = 1, state: State | None = None) -> None:
        self._clock = clock
        self.state = state or State(seed=seed, born=clock())
        self.listeners: list[Listener] = []
        self.changes = 0
        """Grows with every change: what was saved at an older count is out of date."""
        self._namespace = uuid5(NAMESPACE_URL, f"zendesk:{self.state.seed}:{self.state.born.isoformat()}")
        for user in (
            User(id=OUR_USER_ID, name="Nightshift", email="nightshift@shop.example", role="agent"),
            User(id=AGENT_ID, name="Support agent", email="agent@shop.example", role="agent"),
        ):
            self.state.users.setdefault(user.id, user)

    def now(self) -> datetime:
        """The clock, to the second."""
        return self._clock().astimezone(UTC).replace(microsecond=0)

    def count(self, what: str) -> None:
        """Note what became of a call."""
        self.state.counts[what] = self.state.counts.get(what, 0) + 1
        self.changes += 1

    def arrive(self) -> int:
        """The number of a call that changes something; a late call keeps its own."""
        self.state.last_arrival += 1
        return self.state.last_arrival

    def add_customer(self, name: str, email: str, *, user_id: int | None = None, auto_reply: str | None = None) -> User:
        """A customer, known by the address: the second time the same one."""
        for user in self.state.users.values():
            if user.email == email:
                return user
        if user_id is None:
            self.state.last_user_id += 1
            user_id = self.state.last_user_id
        user = User(id=user_id, name=name, email=email, auto_reply=auto_reply)
        self.state.users[user.id] = user
        self.state.last_user_id = max(self.state.last_user_id, user.id if user.id < AGENT_ID else 0)
        self.changes += 1
        return user

    def ticket(self, ticket_id: int) -> Ticket:
        """The ticket, unless it is gone. Raises RefusedError(404)."""
        ticket = self.state.tickets.get(ticket_id)
        if ticket is None or ticket.gone:
            raise RefusedError(404, "RecordNotFound", "Not found")
        return ticket

    def create(
        self,
        requester_id: int,
        subject: str,
        body: str,
        *,
        submitter_id: int | None = None,
        channel: str = "web",
        brand_id: int = 7001,
        tags: Sequence[str] = (),
        priority: str | None = None,
        assignee_id: int | None = None,
        attachments: Sequence[str] = (),
        public: bool = True,
    ) -> Ticket:
        """A new ticket; its first comment is its description and makes no event of its own."""
        now = self.now()
        self.state.last_ticket_id += 1
        ticket = Ticket(
            id=self.state.last_ticket_id,
            subject=subject,
            description=body,
            requester_id=requester_id,
            submitter_id=submitter_id or requester_id,
            channel=channel,
            brand_id=brand_id,
            created_at=now,
            updated_at=now,
            status="open" if assignee_id else "new",
            priority=priority,
            assignee_id=assignee_id,
            is_public=public,
            tags=sorted({tag_of(tag) for tag in tags}),
        )
        self.state.tickets[ticket.id] = ticket
        update = self._begin(ticket, ticket.submitter_id, channel)
        self._say(update, body, public=public, author_id=ticket.submitter_id, attachments=attachments)
        update.told = [("created", {})]
        for name in ("subject", "status", "priority", "tags", "requester_id", "assignee_id", "brand_id"):
            update.note("Create", name, getattr(ticket, name))
        self._end(update)
        return ticket

    def comment(
        self, ticket_id: int, author_id: int, body: str, *, public: bool = True, attachments: Sequence[str] = ()
    ) -> Ticket:
        """A comment by mail or web. A customer's reopens the ticket, or follows up where it is closed."""
        ticket = self.ticket(ticket_id)
        author = self.state.users[author_id]
        if ticket.status == "closed" and not author.is_staff:
            return self.create(author_id, f"Re: {ticket.subject}", body, channel=ticket.channel)
        change: Json = {"comment": {"body": body, "public": public, "attachments": list(attachments)}}
        if not author.is_staff and ticket.status in {"pending", "hold", "solved"}:
            change["status"] = "open"
        self.update(ticket_id, change, actor_id=author_id, channel=ticket.channel)
        return ticket

    def update(
        self, ticket_id: int, change: Json, *, actor_id: int, channel: str = "api", arrival: int | None = None
    ) -> tuple[Ticket, Audit]:
        """What `PUT /tickets/{id}` does with its `ticket`. Raises RefusedError (404, 409, 422)."""
        ticket = self.ticket(ticket_id)
        check(ticket, change)
        update = self._begin(ticket, actor_id, channel)
        update.audit.custom = object_of(change.get("metadata"))
        comment = object_of(change.get("comment"))
        body = comment.get("body") or comment.get("html_body")
        attachments = texts_of(comment.get("attachments"))
        if body or attachments:
            self._say(
                update,
                str(body or ""),
                public=comment.get("public") is not False,
                author_id=self._author(comment.get("author_id"), actor_id),
                attachments=attachments,
                arrival=arrival,
            )
        update.change_fields(change)
        self._end(update)
        return ticket, update.audit

    def merge(self, source_id: int, target_id: int, *, actor_id: int = AGENT_ID) -> None:
        """The source is closed; the target goes on. Raises RefusedError."""
        source, target = self.ticket(source_id), self.ticket(target_id)
        if source is target or "closed" in {source.status, target.status}:
            raise RefusedError(422, "RecordInvalid", "Merge: the tickets cannot be merged")
        update = self._begin(source, actor_id, "web")
        source.merged_into = target_id
        update.set("tags", sorted({*source.tags, "closed_by_merge"}))
        update.set("status", "closed")
        update.told.insert(0, ("merged", {"target_ticket_id": str(target_id)}))
        self._end(update)
        said = source.comments[-1].body
        note = f"Request #{source_id} was closed and merged into this request. Last comment in it:\n\n{said}"
        self.update(target_id, {"comment": {"body": note, "public": False}}, actor_id=actor_id, channel="web")

    def remove(self, ticket_id: int, *, actor_id: int = AGENT_ID, spam: bool = False) -> None:
        """Delete a ticket, or mark it as spam: the API no longer knows it."""
        ticket = self.ticket(ticket_id)
        update = self._begin(ticket, actor_id, "web")
        ticket.gone = "spam" if spam else "deleted"
        update.note("Change", "status", "deleted", ticket.status)
        update.told = [("marked_as_spam" if spam else "soft_deleted", {})]
        self._end(update)

    def restore(self, ticket_id: int, *, actor_id: int = AGENT_ID) -> None:
        """Bring a deleted ticket back."""
        ticket = self.state.tickets[ticket_id]
        update = self._begin(ticket, actor_id, "web")
        ticket.gone = ""
        update.note("Change", "status", ticket.status, "deleted")
        update.told = [("undeleted", {})]
        self._end(update)

    def later(self, seconds: float, ticket_id: int, change: Json, *, actor_id: int, arrival: int) -> None:
        """A call that is applied late, also when its caller is dead by then."""
        at = self._clock() + timedelta(seconds=seconds)
        self.state.due.append(
            Due(at=at, ticket_id=ticket_id, actor_id=actor_id, body=change, arrival=arrival, kind="late")
        )
        self.changes += 1

    def advance(self) -> None:
        """Do what is due by now."""
        now = self._clock()
        for due in sorted((d for d in self.state.due if d.at <= now), key=lambda d: (d.at, d.arrival)):
            self.state.due.remove(due)
            try:
                self.update(
                    due.ticket_id,
                    due.body,
                    actor_id=due.actor_id,
                    channel="api" if due.kind == "late" else "email",
                    arrival=due.arrival,
                )
                self.count(f"{due.kind}_applied")
            except RefusedError:
                self.count(f"{due.kind}_refused")

    def _author(self, named: object, actor_id: int) -> int:
        if named is None:
            return actor_id
        if not isinstance(named, int) or named not in self.state.users:
            raise RefusedError(422, "RecordInvalid", "Author: is not valid")
        return named

    def _id(self) -> int:
        self.state.last_id += 1
        return self.state.last_id

    def _begin(self, ticket: Ticket, actor_id: int, channel: str) -> Update:
        audit = Audit(id=self._id(), author_id=actor_id, created_at=self.now(), channel=channel)
        return Update(ticket, audit, self._id)

    def _end(self, update: Update) -> None:
        """Keep the audit, move the stamp, tell the listeners. An update that changed nothing tells nobody."""
        ticket, audit = update.ticket, update.audit
        ticket.audits.append(audit)
        self.changes += 1
        if not update.told:
            return
        ticket.updated_at = max(audit.created_at, ticket.updated_at)
        events = self._events(update)
        for listener in self.listeners:
            listener(ticket, events)

    def _events(self, update: Update) -> list[Json]:
        ticket, audit = update.ticket, update.audit
        sequence = self._uuid("update", audit.id)
        detail = detail_json(ticket, audit.author_id)
        return [
            {
                "type": f"zen:event-type:ticket.{kind}",
                "id": str(self._uuid("event", audit.id, position)),
                "account_id": ACCOUNT_ID,
                "time": self._clock().astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
                "zendesk_event_version": "2022-11-06",
                "subject": f"zen:ticket:{ticket.id}",
                "detail": detail,
                "event": {
                    **what,
                    "meta": {"sequence": {"id": str(sequence), "position": position, "total": len(update.told)}},
                },
            }
            for position, (kind, what) in enumerate(update.told, start=1)
        ]

    def _uuid(self, *parts: object) -> UUID:
        return uuid5(self._namespace, "|".join(map(str, parts)))

    def _say(
        self,
        update: Update,
        body: str,
        *,
        public: bool,
        author_id: int,
        attachments: Sequence[str],
        arrival: int | None = None,
    ) -> None:
        author = self.state.users[author_id]
        update.say(
            body,
            public=public,
            author=author,
            attachments=attachments,
            arrival=self.arrive() if arrival is None else arrival,
        )
        requester = self.state.users[update.ticket.requester_id]
        if public and author.is_staff and requester.auto_reply is not None:
            self._answer_automatically(update.ticket, requester)

    def _answer_automatically(self, ticket: Ticket, requester: User) -> None:
        change: Json = {"comment": {"body": requester.auto_reply, "public": True}}
        if ticket.status in {"pending", "hold", "solved"}:
            change["status"] = "open"
        self.state.due.append(
            Due(
                at=self._clock() + timedelta(seconds=AUTO_REPLY_SECONDS),
                ticket_id=ticket.id,
                actor_id=requester.id,
                body=change,
                arrival=self.arrive(),
                kind="auto_reply",
            )
        )
