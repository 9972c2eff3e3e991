"""Runs, errors, dead letters and approvals of a case, and what was said of a budget."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

from contracts.base import Fact
from contracts.decision import Verdict
from contracts.envelope import Event
from contracts.events.cases import CaseChanged
from contracts.events.control import ApprovalAnswered, RedriveRequested, SkipRequested
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterRedriven, DeadLetterResolved, DeadLetterSkipped
from contracts.events.decisions import ApprovalRequested, ApprovalResolved, DecisionMade
from contracts.events.effects import EffectAcknowledged, EffectFailed, EffectObserved
from contracts.events.proposals import BudgetExhausted, FactsRead, ProposalDropped, ProposalFailed, ProposalMade
from services.reporter.domain.causes import cause_id
from services.reporter.domain.log import History
from services.reporter.domain.sla import replies_of
from services.reporter.domain.views import (
    ApprovalRow,
    BudgetRow,
    DeadLetterRow,
    ErrorRow,
    LetterState,
    RunRow,
    SlaRow,
    Word,
)

WORDS: dict[Verdict, Word] = {"execute": "executed", "hold": "held", "refuse": "refused", "ignore": "ignored"}
_Paid = Event[ProposalMade] | Event[ProposalFailed] | Event[ProposalDropped]
_Work = Event[FactsRead] | _Paid | Event[DecisionMade]
_SHOWN = frozenset({"retry", "person"})
_MS = timedelta(milliseconds=1)


def deciding(decisions: Sequence[Event[DecisionMade]]) -> Event[DecisionMade] | None:
    """The decision that stands: the last for the newest basis; an ignore counts where that basis has no other."""
    return max(
        decisions, key=lambda e: (e.data.basis, e.data.verdict != "ignore", e.data.decided_at, e.event_id), default=None
    )


def runs_of(history: History, never_seen: Collection[str]) -> list[RunRow]:
    """One row a correlation that any work was done under; a change that led to no work is no run.

    `never_seen`: destinations in which an acknowledgement is the last word.
    """
    by_run: dict[UUID, list[Event[Fact]]] = defaultdict(list)
    for event in history.events:
        by_run[event.correlation_id].append(event)
    parts = [(run, History(history.case_id, history.process, tuple(events))) for run, events in sorted(by_run.items())]
    return [_run(correlation_id, part, never_seen) for correlation_id, part in parts if _work_of(part)]


def _work_of(part: History) -> list[_Work]:
    return [*part.of(FactsRead), *_paid_of(part), *part.of(DecisionMade)]


def _paid_of(part: History) -> list[_Paid]:
    return [*part.of(ProposalMade), *part.of(ProposalFailed), *part.of(ProposalDropped)]


def _run(correlation_id: UUID, part: History, never_seen: Collection[str]) -> RunRow:
    decided = deciding(part.of(DecisionMade))
    paid = _paid_of(part)
    started = min((e.data.received_at for e in part.of(CaseChanged)), default=part.events[0].time)
    failed = _failed(part)
    finished = _finished(decided, _done_at(part, never_seen))
    return RunRow(
        correlation_id=correlation_id,
        basis=max(e.data.basis for e in _work_of(part)),
        state=WORDS[decided.data.verdict] if decided is not None else "failed" if failed else _undecided(part),
        started_at=started,
        finished_at=finished,
        latency_ms=None if finished is None else max(0, (finished - started) // _MS),
        failed=failed,
        cost_usd=sum((e.data.cost_usd for e in paid), Decimal(0)),
        tokens_in=sum(e.data.tokens_in for e in paid),
        tokens_out=sum(e.data.tokens_out for e in paid),
    )


def _undecided(part: History) -> Literal["open", "ignored"]:
    """Whether anything may come of it: not where all its work was dropped."""
    return "ignored" if len(part.of(ProposalDropped)) == len(_work_of(part)) else "open"


def _failed(part: History) -> bool:
    lost = any(e.data.outcome in {"dead", "person"} for e in part.of(EffectFailed))
    return lost or bool(part.of(ProposalFailed)) or bool(part.of(DeadLetterRaised))


def _done_at(part: History, never_seen: Collection[str]) -> dict[str, datetime]:
    """By effect that was seen outside: when that was acknowledged, or else seen. An unseen yes counts for nothing."""
    said = {e.data.effect_key: e for e in sorted(part.of(EffectAcknowledged), key=lambda e: (e.data.attempt, e.time))}
    done = {key: event.time for key, event in said.items() if event.data.destination in never_seen}
    for event in part.of(EffectObserved):
        yes = said.get(event.data.effect_key, event)
        done[event.data.effect_key] = min(event.time, yes.time)
    return done


def _finished(decided: Event[DecisionMade] | None, done_at: Mapping[str, datetime]) -> datetime | None:
    """When the last planned effect was done; without effects, when it was decided."""
    if decided is None:
        return None
    if not decided.data.effect_keys and not done_at:
        return decided.data.decided_at
    if any(key not in done_at for key in decided.data.effect_keys):
        return None
    return max(done_at.values())


def errors_of(history: History) -> list[ErrorRow]:
    """What went wrong, oldest first.

    A superseded effect is no error. A dead one, and a failed proposal of a run that ended so, its dead letter tells.
    """
    found = []
    buried = {event.correlation_id for event in history.of(DeadLetterRaised)}
    said: tuple[str, str, str, str]
    for event in history.events:
        match event.data:
            case ProposalFailed(code=code, attempts=attempts) if event.correlation_id not in buried:
                said = ("classifier", code, f"no proposal after {attempts} attempts", "failed")
            case DeadLetterRaised(service=service, work=work, code=code, message=message):
                said = (f"{service}: {work}", code, message, "dead_letter")
            case BudgetExhausted(period=period, unit=unit, ceiling=ceiling):
                said = (
                    "classifier: models",
                    f"{period}_budget_exhausted",
                    f"the ceiling is {ceiling:f} {unit}",
                    "waits",
                )
            case EffectFailed(kind=kind, destination=destination, code=code, outcome=left) if left in _SHOWN:
                said = (f"actor: {kind} to {destination}", code, "", left)
            case _:
                continue
        where, code, message, outcome = said
        found.append(
            ErrorRow(
                event_id=event.event_id,
                case_id=history.case_id,
                process=history.process,
                at=event.time,
                where=where,
                code=code,
                message=message,
                outcome=outcome,
            )
        )
    return found


def dead_letters_of(history: History, sla: SlaRow) -> list[DeadLetterRow]:
    """Every dead letter of the case, by id. One whose redrive failed was raised again: the last word is told."""
    redriven = {e.data.dead_letter_id: e.data.by for e in history.of(DeadLetterRedriven)}
    skipped = {e.data.dead_letter_id: e.data for e in history.of(DeadLetterSkipped)}
    resolved = {e.data.dead_letter_id for e in history.of(DeadLetterResolved)}
    ordered = _ordered(history)
    rows: dict[UUID, DeadLetterRow] = {}
    for event in history.of(DeadLetterRaised):
        data = event.data
        first = rows.get(data.dead_letter_id)
        raised_at = first.raised_at if first is not None else event.time
        skip = skipped.get(data.dead_letter_id)
        state, by = ordered.get(data.dead_letter_id, ("open", None))
        if data.dead_letter_id in redriven:
            state, by = "redriven", redriven[data.dead_letter_id]
        elif skip is not None:
            state, by = "skipped", skip.by
        elif data.dead_letter_id in resolved:
            state, by = "resolved", None
        rows[data.dead_letter_id] = DeadLetterRow(
            dead_letter_id=data.dead_letter_id,
            case_id=history.case_id,
            process=history.process,
            service=data.service,
            work=data.work,
            basis=data.basis,
            code=data.code,
            message=data.message,
            attempts=data.attempts,
            cause=cause_id("dead_letter", history.process, data.service, data.work, data.code),
            state=state,
            raised_at=raised_at,
            ended_by=by,
            skip_reason=skip.reason if skip is not None else None,
            waits_behind=_since(history, raised_at),
            due_at=sla.due_at if sla.state == "waiting" else None,
        )
    return [rows[key] for key in sorted(rows)]


def budget_of(history: History) -> BudgetRow | None:
    """The last word about a budget that was used up; none where the subject is no budget."""
    last = max(history.of(BudgetExhausted), key=lambda e: (e.time, e.event_id), default=None)
    if last is None:
        return None
    return BudgetRow(process=history.process, said_at=last.time, told=last.data)


def _ordered(history: History) -> dict[UUID, tuple[LetterState, str | None]]:
    """What was ordered about dead letters, and by whom. A redrive that failed since is no longer on order."""
    heard = {event.causation_id for event in history.of(DeadLetterRaised)}
    failed = {e.data.nonce for e in history.of(RedriveRequested) if e.event_id in heard}
    redrives = [e.data for e in history.of(RedriveRequested) if e.data.nonce not in failed]
    found: dict[UUID, tuple[LetterState, str | None]] = {
        order.dead_letter_id: ("redrive_requested", order.by) for order in redrives
    }
    return found | {e.data.dead_letter_id: ("skip_requested", e.data.by) for e in history.of(SkipRequested)}


def is_skipped(history: History) -> bool:
    """Whether a person ended work of the case undone, and neither a decision nor a reply by staff has come since."""
    skipped_at = max((event.time for event in history.of(DeadLetterSkipped)), default=None)
    if skipped_at is None:
        return False
    decided = [e.data.decided_at for e in history.of(DecisionMade) if e.data.proposal_id is not None]
    replied = [reply.at for reply in replies_of(history) if reply.by == "staff"]
    return all(at <= skipped_at for at in (*decided, *replied))


def approvals_of(history: History, sla: SlaRow) -> list[ApprovalRow]:
    """Every approval of the case, by id."""
    ended = {e.data.approval_id: e.data for e in history.of(ApprovalResolved)}
    answered = {e.data.approval_id: e.data for e in history.of(ApprovalAnswered)}
    rows: dict[UUID, ApprovalRow] = {}
    for event in history.of(ApprovalRequested):
        data = event.data
        end, answer = ended.get(data.approval_id), answered.get(data.approval_id)
        rows[data.approval_id] = ApprovalRow(
            approval_id=data.approval_id,
            case_id=history.case_id,
            process=history.process,
            basis=data.basis,
            digest=data.digest,
            state=end.answer if end is not None else "answered" if answer is not None else "waiting",
            reasons=data.reasons,
            requested_at=event.time,
            expires_at=data.expires_at,
            ended_by=end.by if end is not None else answer.by if answer is not None else None,
            waits_behind=_since(history, event.time),
            due_at=sla.due_at if sla.state == "waiting" else None,
        )
    return [rows[key] for key in sorted(rows)]


def _since(history: History, time: datetime) -> int:
    """How many changes of the case, not ours, came after `time`."""
    return sum(1 for e in history.of(CaseChanged) if e.data.received_at > time and e.data.author != "ours")
