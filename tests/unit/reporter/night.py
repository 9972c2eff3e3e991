"""Events of a made-up night: a few cases of each kind, each ending in its own way."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid5

from contracts.base import Fact
from contracts.basis import basis_of, version_of
from contracts.decision import Action, Circumstances, Difference, Reason, Verdict
from contracts.envelope import Event, Record
from contracts.events.cases import Author, CaseChanged, CaseOpened, IntakeReconciled
from contracts.events.control import (
    ApprovalAnswered,
    CandidateChanged,
    CauseAcknowledged,
    ProcessPaused,
    ProcessResumed,
    RedriveRequested,
    RegimeAdmitted,
    SkipRequested,
)
from contracts.events.dead_letters import (
    DeadLetterRaised,
    DeadLetterRedriven,
    DeadLetterResolved,
    DeadLetterSkipped,
)
from contracts.events.decisions import (
    ApprovalRequested,
    ApprovalResolved,
    DecisionMade,
    DecisionShadowed,
    HandoverPlanned,
    Judged,
)
from contracts.events.effects import EffectAcknowledged, EffectAttempted, EffectFailed, EffectObserved
from contracts.events.proposals import (
    BudgetExhausted,
    FactRead,
    FactsRead,
    MadeFrom,
    PassageUsed,
    ProposalDropped,
    ProposalFailed,
    ProposalMade,
    ProposalShadowed,
)
from contracts.sealed import SealedText, seal
from services.reporter.domain.log import Told, entry_of, read
from services.reporter.domain.sla import Policy

START = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
POLICY = Policy(first_reply_minutes=60, automated_reply_counts=True)
ENDINGS = (
    "answered",
    "approval",
    "denied",
    "refused",
    "dead_letter",
    "redriven",
    "staff",
    "waiting",
    "deleted",
    "retry",
    "skipped",
    "resolved",
)
_LABELS = ("track_order", "refund", "cancel_order", "change_address", "invoice")


def key_of(case_id: str) -> bytes:
    return hashlib.sha256(case_id.encode()).digest()


class Story:
    """Tells one case's events, one after the other."""

    def __init__(self, object_id: str, start: datetime = START) -> None:
        self.case_id = f"support:zendesk:{object_id}"
        self.object_id = object_id
        self.now = start
        self.events: list[Event[Fact]] = []
        self.run = self._id("run")
        self.basis = basis_of(version_of(start), "description")
        self.effect = f"{self.case_id}|reply|{self.basis}"

    def say(self, data: Fact, after: float = 1.0, *, source: str = "actor", process: str = "support") -> Event[Fact]:
        self.now += timedelta(seconds=after)
        event: Event[Fact] = Event(
            event_id=self._id(f"{data.TYPE}|{len(self.events)}"),
            source=f"nightshift/{source}",
            time=self.now,
            process=process,
            case_id=self.case_id,
            correlation_id=self.run,
            causation_id=self.events[-1].event_id if self.events else None,
            data=data,
        )
        self.events.append(event)
        return event

    def seal(self, text: str) -> SealedText:
        return seal(text, key=key_of(self.case_id), key_version=1, case_id=self.case_id)

    def opens(self, text: str = "Where is my order?", author: Author = "customer") -> Event[Fact]:
        return self.say(CaseOpened(**self._change("created", text, author, {"status": "new"})), 0, source="ingest")

    def changes(
        self, kind: str, text: str = "", author: Author = "customer", after: float = 30, **fields: Any
    ) -> Event[Fact]:
        self.now += timedelta(seconds=after)
        return self.say(CaseChanged(**self._change(kind, text, author, fields)), 0, source="ingest")

    def proposes(self, label: str = "track_order", cost: str = "0.0031") -> None:
        read = FactRead(name="order", ok=True, digest="a" * 64)
        unread = FactRead(name="invoice", ok=False, digest="b" * 64, error="timeout")
        answers = self.seal('{"order": {"name": "order", "ok": true, "rows": [{"state": "shipped"}]}}')
        self.say(FactsRead(basis=self.basis, facts=(read, unread), answers=answers), 1.5, source="classifier")
        made = MadeFrom(
            model="nearest",
            prompt="c" * 64,
            output_schema="d" * 64,
            examples="e" * 64,
            settings="f" * 64,
            index_version="1",
            passages=(PassageUsed(source="shipping.md", version="1", digest="0" * 64),),
        )
        proposal = ProposalMade(
            basis=self.basis,
            case={},
            facts=answers,
            output=self.seal(f'{{"reply": "It is on its way.", "intent": "{label}"}}'),
            label=label,
            confidence=0.91,
            made_from=made,
            tokens_in=850,
            tokens_out=120,
            cost_usd=Decimal(cost),
            latency_ms=410,
        )
        self.say(proposal, 0.6, source="classifier")

    def decides(
        self,
        verdict: Verdict,
        text: str,
        *,
        code: str = "rule",
        effects: Sequence[str] = (),
        proposal_id: UUID | None = None,
    ) -> None:
        self.now += timedelta(seconds=0.1)
        decision = DecisionMade(
            basis=self.basis,
            proposal_id=proposal_id,
            verdict=verdict,
            reasons=(Reason(code=code, text=text),),
            actions=(Action(name="reply"),) if verdict == "execute" else (),
            label="track_order",
            circumstances=Circumstances(),
            policy_digest="0" * 64,
            decided_at=self.now,
            effect_keys=tuple(effects),
        )
        self.say(decision, 0)

    def attempts(self, attempt: int = 1, *, kind: str = "reply", public: bool = True, after: float = 0.2) -> None:
        told = EffectAttempted(
            **self._of_effect(attempt, kind),
            mode="act",
            public=public,
            request_digest="0" * 64,
            switch_generation=1,
            stamp=None,
        )
        self.say(told, after)

    def acknowledges(self, attempt: int = 1, *, kind: str = "reply", after: float = 0.3) -> None:
        self.now += timedelta(seconds=after)
        told = EffectAcknowledged(**self._of_effect(attempt, kind), reference="audit 77", acknowledged_at=self.now)
        self.say(told, 0)

    def observes(self, *, kind: str = "reply", public: bool = True, after: float = 0.8) -> Event[Fact]:
        self.now += timedelta(seconds=after)
        told = EffectObserved(
            **self._of_effect(1, kind), reference="audit 77", by="echo", public=public, observed_at=self.now
        )
        return self.say(told, 0)

    def fails(
        self,
        attempt: int = 1,
        *,
        kind: str = "reply",
        code: str = "unavailable",
        outcome: Literal["retry", "superseded", "dead", "person"] = "retry",
    ) -> None:
        self.say(EffectFailed(**self._of_effect(attempt, kind), code=code, outcome=outcome), 0.5)

    def shadows(self, difference: Difference = "same", *, code: str | None = None) -> None:
        """A candidate in shadow proposes what comes to another verdict, or fails with a code."""
        told: dict[str, Any] = {"basis": self.basis, "regime": "870a523752f9"}
        made = None if code else next(e for e in self.events if isinstance(e.data, ProposalMade)).data
        if made is None:
            self.say(ProposalShadowed(**told, proposal_id=UUID(int=3), code=code), 2, source="classifier")
            return
        assert isinstance(made, ProposalMade)
        same = made.model_dump(include={"facts", "output", "label", "confidence", "made_from", "cost_usd"})
        self.say(ProposalShadowed(**told, **same, proposal_id=UUID(int=3)), 2, source="classifier")
        live = Judged(verdict="execute", reasons=(), actions=(Action(name="reply"),), digest="1" * 64)
        held = Judged(verdict="hold", reasons=(Reason(code="unsure", text="Not sure."),), actions=(), digest="2" * 64)
        after = live if difference == "same" else held
        decided = DecisionShadowed(**told, decision_id=UUID(int=4), live=live, shadow=after, difference=difference)
        self.say(decided, 0.1)

    def asks_again(self) -> None:
        """The customer writes once more: a newer basis, and a run of its own."""
        self.changes("comment_added", "And another thing", comment_public=True)
        self.basis = basis_of(version_of(self.now), "said:2")
        self.effect = f"{self.case_id}|reply|{self.basis}"
        self.run = self._id("second run")

    def asks(self) -> UUID:
        approval_id = self._id("approval")
        asked = ApprovalRequested(
            approval_id=approval_id,
            basis=self.basis,
            decision_id=self.events[-1].event_id,
            requests=self.seal('[{"kind": "reply", "body": {"html": "<b>Your refund</b>"}}]'),
            digest="9" * 64,
            reasons=(Reason(code="refund_above_limit", text="The refund of 480.00 is above the limit of 50.00."),),
            expires_at=self.now + timedelta(hours=24),
        )
        self.say(asked, 0)
        return approval_id

    def hands_over(self, why: str, *, code: str) -> None:
        told = HandoverPlanned(
            basis=self.basis,
            reasons=(Reason(code=code, text=why),),
            effect_keys=(self._of_effect(1, "handover")["effect_key"],),
        )
        self.say(told, 0)

    def dies(self) -> UUID:
        dead_letter_id = self._id("dead letter")
        raised = DeadLetterRaised(
            dead_letter_id=dead_letter_id,
            service="classifier",
            work="propose",
            basis=self.basis,
            code="schema_failed_twice",
            message="reply: field required",
            attempts=2,
        )
        self.say(ProposalDropped(basis=self.basis, model="claude:m"), 1, source="classifier")
        self.say(ProposalFailed(basis=self.basis, code="schema_failed_twice", attempts=2), 1, source="classifier")
        self.say(raised, 0, source="classifier")
        return dead_letter_id

    def skips(self, letter: UUID) -> None:
        """A person goes on without the work."""
        why: dict[str, Any] = {
            "dead_letter_id": letter,
            "service": "classifier",
            "reason": "it was a test",
            "by": "kim",
        }
        self.say(SkipRequested(**why), 600)
        self.say(DeadLetterSkipped(**why), source="classifier")

    def _of_effect(self, attempt: int, kind: str) -> dict[str, Any]:
        key = self.effect.replace("|reply|", f"|{kind}|")
        return {
            "effect_key": key,
            "kind": kind,
            "destination": "zendesk",
            "object_id": self.object_id,
            "basis": self.basis,
            "attempt": attempt,
        }

    def _change(self, kind: str, text: str, author: Author, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "door": "zendesk",
            "object_id": self.object_id,
            "kind": kind,
            "identity": f"{kind}|{len(self.events)}",
            "version": version_of(self.now),
            "author": author,
            "fields": fields,
            "texts": {"body": self.seal(text)} if text else {},
            "occurred_at": self.now,
            "received_at": self.now + timedelta(milliseconds=40),
        }

    def _id(self, name: str) -> UUID:
        return uuid5(UUID(int=7), f"{self.case_id}|{name}")


def tell(object_id: str, ending: str, start: datetime = START) -> list[Event[Fact]]:
    """The events of one case that ends so."""
    story = Story(object_id, start)
    story.opens(f"Hello, this is about number {object_id}: where is it?")
    if ending in {"dead_letter", "redriven"}:
        letter = story.dies()
        if ending == "dead_letter":
            story.changes("comment_added", "Anybody there?", comment_public=True)
            return story.events
        nonce = UUID(int=11)
        story.say(RedriveRequested(dead_letter_id=letter, service="classifier", nonce=nonce, by="kim"), 600)
        story.say(DeadLetterRedriven(dead_letter_id=letter, service="classifier", nonce=nonce, by="kim"))
    if ending == "skipped":
        story.skips(story.dies())
        return story.events
    if ending == "resolved":
        found = DeadLetterResolved(dead_letter_id=story.dies(), service="actor", reason="It was found done outside.")
        story.say(found, 300)
        return story.events
    if ending == "waiting":
        return story.events
    story.proposes(_LABELS[sum(map(ord, object_id)) % len(_LABELS)])
    _END[ending](story)
    return story.events


def _answered(story: Story) -> None:
    story.decides("execute", "Every rule is content.", effects=[story.effect])
    story.attempts()
    story.acknowledges()
    story.observes()
    story.changes("comment_added", "It is on its way.", "ours", after=1, comment_public=True)


def _retry(story: Story) -> None:
    story.decides("execute", "Every rule is content.", effects=[story.effect])
    story.attempts()
    story.fails()


def _approval(story: Story) -> None:
    story.decides("hold", "The refund of 480.00 is above the limit of 50.00.", code="refund_above_limit")
    story.asks()


def _denied(story: Story) -> None:
    story.decides("hold", "The refund of 480.00 is above the limit of 50.00.", code="refund_above_limit")
    approval_id = story.asks()
    answered = ApprovalAnswered(approval_id=approval_id, answer="denied", digest="9" * 64, by="kim", reason="too much")
    story.say(answered, 300)
    story.say(
        ApprovalResolved(approval_id=approval_id, basis=story.basis, answer="denied", by="kim", reason="too much")
    )
    story.hands_over("A person denied what was proposed.", code="approval_denied")
    _tells_a_person(story)


def _refused(story: Story) -> None:
    story.decides("refuse", "The customer threatens to sue.", code="legal_threat")
    _tells_a_person(story)


def _tells_a_person(story: Story) -> None:
    story.attempts(kind="handover", public=False)
    story.acknowledges(kind="handover")
    story.observes(kind="handover", public=False)


def _staff(story: Story) -> None:
    story.decides("hold", "The reply cites nothing.", code="cites_nothing")
    story.changes("comment_added", "I looked into it.", "staff", after=7200, comment_public=True)


def _deleted(story: Story) -> None:
    story.decides("ignore", "The ticket was deleted.", code="gone")
    story.changes("soft_deleted", author="staff")


_END = {
    "answered": _answered,
    "redriven": _answered,
    "retry": _retry,
    "approval": _approval,
    "denied": _denied,
    "refused": _refused,
    "staff": _staff,
    "deleted": _deleted,
}


def shadowed(difference: Difference = "stricter") -> list[Event[Fact]]:
    """A case that was answered while a candidate was in shadow."""
    told = tell("7", "answered")
    return [*told, *_shadow_of(told, difference)]


def _shadow_of(told: Sequence[Event[Fact]], difference: Difference = "stricter") -> list[Event[Fact]]:
    story = Story(told[0].case_id.split(":")[2])
    story.events, story.now = [*told], told[-1].time
    story.shadows(difference)
    return story.events[len(told) :]


def switch_events() -> list[Event[Fact]]:
    """A pause and its end, a cause that somebody sees to, a regime let through; their subject is the process."""
    story = Story("switch", START)
    story.case_id = "support"
    story.say(ProcessPaused(generation=2, reason="odd replies", by="kim"))
    story.say(ProcessResumed(generation=3, reason="mended", by="kim"), 900)
    story.say(CauseAcknowledged(cause="3f2a9c01d4e7", by="kim"))
    change: dict[str, Any] = {
        "model": "nearest",
        "regime": "870a523752f9",
        "generation": 1,
        "reason": "a kinder prompt",
        "by": "kim",
    }
    story.say(CandidateChanged(mode="shadow", percent=20, **change))
    story.say(RegimeAdmitted(model="nearest", regime="870a523752f9", reason="a typing error", by="kim"))
    return story.events


def hour_events(hour: datetime, *states: Literal["complete", "missing", "backfilled", "unknown"]) -> list[Event[Fact]]:
    """What was said of an hour of intake, a word a state; the last one is final where it can be."""
    hour = hour.replace(minute=0, second=0, microsecond=0)
    story = Story(f"intake-{hour:%Y-%m-%dT%H}", hour + timedelta(hours=1))
    for revision, state in enumerate(states, 1):
        said = IntakeReconciled(
            door="zendesk",
            hour=hour,
            since=hour,
            revision=revision,
            state=state,
            listed=1000,
            missing=0 if state in {"complete", "unknown"} else 1,
            code="forbidden" if state == "unknown" else None,
            settled=revision == len(states) and state in {"complete", "backfilled"},
            compared_at=story.now + timedelta(minutes=5),
        )
        story.say(said, 300, source="ingest")
    return story.events


def budget_events(day: datetime, period: Literal["day", "total"] = "day") -> list[Event[Fact]]:
    """What was said of a budget that was used up."""
    story = Story("budget", day)
    story.case_id = f"support:budget-{day.date() if period == 'day' else 'total'}"
    said = BudgetExhausted(
        period=period,
        unit="usd",
        ceiling=Decimal(20),
        spent=Decimal("19.95"),
        reserved=Decimal(0),
        asked=Decimal("0.08"),
        asked_by="support:zendesk:42",
        asked_run=UUID(int=42),
        model="claude:claude-sonnet-5-5",
        dearest="support:zendesk:17",
        dearest_spent=Decimal("3.1"),
        until=day + timedelta(days=1) if period == "day" else None,
    )
    story.say(said, source="classifier")
    return story.events


def night(cases: int, start: datetime = START, *, first: int = 1000) -> list[Event[Fact]]:
    """`cases` cases, half of them answered, the rest in every other way; two hours of intake, and a day's budget.

    A candidate was in shadow on the first that was answered.
    """
    events = switch_events() + hour_events(start, "complete")
    events += hour_events(start + timedelta(hours=1), "unknown", "missing", "backfilled")
    events += budget_events(start)
    for number in range(cases):
        ending = "answered" if number % 2 else ENDINGS[number // 2 % len(ENDINGS)]
        told = tell(str(first + number), ending, start + timedelta(seconds=11 * number))
        events += [*told, *_shadow_of(told)] if number == 1 else told
    return events


def records(events: Sequence[Event[Fact]]) -> list[Record]:
    return [event.to_record() for event in events]


def told_by(record: Record) -> Told:
    return read(entry_of(record))


def unknown_record() -> Record:
    """Of a type that a newer build writes."""
    record = tell("1", "waiting")[0].to_record()
    return record._replace(headers={**record.headers, "ce_type": "case.opened.v9", "ce_id": str(UUID(int=99))})
