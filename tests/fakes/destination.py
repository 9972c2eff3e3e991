"""A ticket system in memory that behaves as badly as the real one: stamps of a second, safe updates, late landings.

Its own books count public answers per customer's comment, and know nothing of effect keys.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from connectors.protocol import Acknowledged, PlainChange, Written
from contracts.basis import version_of
from contracts.decision import Request
from contracts.failures import ConflictError, OutcomeUnknownError, PermanentError


@dataclass
class Ticket:
    """One object: its stamp, its history, and who answered what."""

    stamp: str
    history: list[PlainChange] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    answers_since_customer: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """A call as it arrived."""

    request: Request
    effect_key: str
    stamp: str | None


Fault = Callable[["FakeDestination", Call], Acknowledged]


class FakeDestination:
    """Sends, ReadsBack and Reads. `faults` are taken by the next calls, one each."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.tickets: dict[str, Ticket] = {}
        self.calls: list[Call] = []
        self.faults: deque[Fault | None] = deque()
        self.late: list[Call] = []
        self.reads = 0
        self._count = 0

    def tick(self, seconds: float = 1.0) -> None:
        """Its clock goes on."""
        self.now += timedelta(seconds=seconds)

    def says(self, ticket: str, *, author: str = "customer", public: bool = True, text: str = "Help!") -> PlainChange:
        """Somebody comments; gives the change that a webhook would bring."""
        opens = ticket not in self.tickets
        thing = self.tickets.setdefault(ticket, Ticket(self._stamp()))
        change = self._change(thing, ticket, author=author, public=public, text=text, opens=opens)
        if public and author == "customer":
            thing.answers_since_customer.append(0)
        if author == "ours":
            thing.written.append(self._audit(public=public, effect_key=None))
        return change

    def delete(self, ticket: str) -> None:
        self.tickets.pop(ticket)

    @property
    def answers_most(self) -> int:
        """The most public answers that one comment of a customer got."""
        return max((n for t in self.tickets.values() for n in t.answers_since_customer), default=0)

    def land(self) -> None:
        """The calls that were on their way arrive now; what is refused, nobody hears."""
        waiting, self.late = self.late, []
        for call in waiting:
            try:
                self.carry_out(call)
            except ConflictError:
                continue

    async def send(self, request: Request, *, effect_key: str, stamp: str | None) -> Acknowledged:
        call = Call(request, effect_key, stamp)
        self.calls.append(call)
        fault = self.faults.popleft() if self.faults else None
        return self.carry_out(call) if fault is None else fault(self, call)

    def carry_out(self, call: Call) -> Acknowledged:
        thing = self._ticket(call.request.object_id)
        if call.request.semantics == "conditional" and call.stamp != thing.stamp:
            raise ConflictError("changed in between")
        public = call.request.body.get("public") is not False
        text = str(call.request.body.get("body", ""))
        self._change(thing, call.request.object_id, author="ours", public=public, text=text, opens=False)
        audit = self._audit(public=public, effect_key=call.effect_key)
        thing.written.append(audit)
        if public and thing.answers_since_customer:
            thing.answers_since_customer[-1] += 1
        return Acknowledged(reference=audit.reference, at=self.now, stamp=thing.stamp)

    async def current_stamp(self, object_id: str) -> str:
        return self._ticket(object_id).stamp

    async def written(self, object_id: str) -> Sequence[Written]:
        self.reads += 1
        return tuple(self._ticket(object_id).written)

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        self.reads += 1
        return tuple(self._ticket(object_id).history)

    def _ticket(self, object_id: str) -> Ticket:
        if object_id not in self.tickets:
            raise PermanentError("gone", "there is no such ticket")
        return self.tickets[object_id]

    def _stamp(self) -> str:
        return self.now.replace(microsecond=0).isoformat()

    def _audit(self, *, public: bool, effect_key: str | None) -> Written:
        self._count += 1
        return Written(reference=f"audit-{self._count}", at=self.now, public=public, effect_key=effect_key)

    def _change(self, thing: Ticket, ticket: str, *, author: str, public: bool, text: str, opens: bool) -> PlainChange:
        thing.stamp = self._stamp()
        name = f"{ticket}.{len(thing.history) + 1}"
        change = PlainChange(
            object_id=ticket,
            kind="created" if opens else "comment_added",
            identity=name,
            version=version_of(self.now.replace(microsecond=0)),
            author=author,  # type: ignore[arg-type]
            occurred_at=self.now,
            opens=opens,
            fields={"comment_id": name, "comment_public": public, "updated_at": thing.stamp},
            texts={"body": text},
        )
        thing.history.append(change)
        return change


def answer_lost(outside: FakeDestination, call: Call) -> Acknowledged:
    """It was carried out, and the answer never came."""
    outside.carry_out(call)
    raise OutcomeUnknownError("timeout", "no answer")


def call_lost(outside: FakeDestination, call: Call) -> Acknowledged:
    """It never arrived, and nobody knows."""
    del outside, call
    raise OutcomeUnknownError("timeout", "no answer")


def lands_late(outside: FakeDestination, call: Call) -> Acknowledged:
    """It arrives when the test says so."""
    outside.late.append(call)
    raise OutcomeUnknownError("timeout", "no answer")


def raises(error: BaseException) -> Fault:
    """The call ends with `error`."""

    def fault(outside: FakeDestination, call: Call) -> Acknowledged:
        del outside, call
        raise error

    return fault


def swallowed(outside: FakeDestination, call: Call) -> Acknowledged:
    """It is acknowledged, and never there."""
    del call
    return Acknowledged(reference="audit-never", at=outside.now)
