"""Everything that the projections hold about one case, as a pure function of the set of its events."""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from contracts.base import Contract
from contracts.basis import version_of
from contracts.events.cases import CaseChanged, IntakeReconciled
from contracts.events.control import CandidateChanged, CauseAcknowledged, ProcessPaused, ProcessResumed, RegimeAdmitted
from contracts.events.decisions import DecisionMade
from contracts.events.proposals import BudgetExhausted, ProposalMade
from services.reporter.domain import effects, intake, runs, shadows, sla
from services.reporter.domain.latency import bucket_of
from services.reporter.domain.log import History
from services.reporter.domain.views import (
    ApprovalRow,
    CaseRow,
    CaseState,
    DeadLetterRow,
    EffectRow,
    ErrorRow,
    RunRow,
    SlaRow,
)

VERSION = 10
"""Raise it when the same events would give other rows: the reporter then rebuilds at its start."""
ALL_DAYS = "all"
OF_NO_CASE = (
    *(ProcessPaused, ProcessResumed, CauseAcknowledged, RegimeAdmitted, CandidateChanged),
    *(IntakeReconciled, BudgetExhausted),
)
"""Their subject is a process, an hour of intake, or a budget."""
NOT_CONNECTED = "not_connected"
"""The code of an effect whose destination has no address: it was certainly not sent."""

Kind = Literal["case", "run", "error", "dead_letter", "approval", "sla", "intake", "budget", "shadow", "unread", "sums"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table `projections`; `key` is unique among the case's rows of this kind."""

    kind: Kind
    key: str
    state: str
    at: datetime
    body: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class Projected:
    """All rows of one case."""

    case_id: str
    process: str
    rows: tuple[Row, ...]


def project(history: History, policy: sla.Policy | None) -> Projected:
    """The rows of one case. A subject that is none (a process, an hour of intake, a budget) has no row of that kind.

    What a candidate did in shadow has rows of its own, and is in no other.
    """
    whole, history = history, shadows.without(history)
    found_runs, errors = runs.runs_of(history, _never_seen(policy)), runs.errors_of(history)
    promise = sla.sla_of(history, policy)
    letters, approvals = runs.dead_letters_of(history, promise), runs.approvals_of(history, promise)
    rows = [
        *(_row("run", str(r.correlation_id), r.state, r.started_at, r) for r in found_runs),
        *(_row("error", str(r.event_id), r.outcome, r.at, r) for r in errors),
        *(_row("dead_letter", str(r.dead_letter_id), r.state, r.raised_at, r) for r in letters),
        *(_row("approval", str(r.approval_id), r.state, r.requested_at, r) for r in approvals),
        *(Row("unread", str(u.event_id), u.type, u.time, json.dumps({"why": u.why})) for u in history.unread),
    ]
    rows += [_row("shadow", s.basis, s.state, s.at, s) for s in shadows.shadows_of(whole)]
    if (hour := intake.intake_of(history)) is not None:
        rows.append(_row("intake", "", hour.state, hour.hour, hour))
    if (budget := runs.budget_of(history)) is not None:
        rows.append(_row("budget", "", budget.told.period, budget.said_at, budget))
    case: CaseRow | None = None
    if len(history.events) > sum(len(history.of(contract)) for contract in OF_NO_CASE):
        case = _case(history, policy, promise, found_runs, errors, letters, approvals)
        rows.append(_row("case", "", case.state, case.changed_at, case))
        if promise.opened_at is not None:
            rows.append(_row("sla", "", promise.state, promise.due_at or promise.opened_at, promise))
    sums = _sums(whole, case, found_runs, letters, approvals)
    last = max((*(e.time for e in whole.events), *(u.time for u in history.unread)))
    rows.append(Row("sums", "", "", last, sums))
    return Projected(history.case_id, history.process, tuple(rows))


def _never_seen(policy: sla.Policy | None) -> frozenset[str]:
    """Destinations in which an acknowledgement is the last word; elsewhere only what was observed was done."""
    return policy.never_seen if policy is not None else frozenset()


def _row(kind: Kind, key: str, state: str, at: datetime, view: Contract) -> Row:
    return Row(kind, key, state, at, view.model_dump_json())


def _case(
    history: History,
    policy: sla.Policy | None,
    promise: SlaRow,
    found_runs: list[RunRow],
    errors: list[ErrorRow],
    letters: list[DeadLetterRow],
    approvals: list[ApprovalRow],
) -> CaseRow:
    changes = sla.changes_of(history)
    opening = sla.opening_of(history, policy)
    reply = next(iter(sla.replies_of(history)), None)
    decided = runs.deciding(history.of(DecisionMade))
    proposed = max(history.of(ProposalMade), key=lambda e: (e.data.basis, e.time, e.event_id), default=None)
    done = effects.effects_of(history)
    open_letters = [letter for letter in letters if letter.state not in {"redriven", "skipped", "resolved"}]
    unseen = [e for e in done if e.state == "acknowledged" and e.destination not in _never_seen(policy)]
    state, waiting = _state(
        history, decided.data if decided else None, done, unseen, found_runs, open_letters, approvals
    )
    return CaseRow(
        case_id=history.case_id,
        process=history.process,
        door=changes[0].data.door if changes else None,
        object_id=changes[0].data.object_id if changes else None,
        state=state,
        waiting=waiting,
        label=proposed.data.label if proposed is not None else decided.data.label if decided is not None else None,
        opened_at=opening.at if opening is not None else None,
        changed_at=history.events[-1].time,
        verdict=runs.WORDS[decided.data.verdict] if decided is not None else None,
        reasons=decided.data.reasons if decided is not None else (),
        effects=done,
        first_reply_at=reply.at if reply is not None else None,
        first_reply_by=reply.by if reply is not None else None,
        reply_seconds=(reply.at - opening.at).total_seconds() if reply is not None and opening is not None else None,
        runs=len(found_runs),
        failures=sum(run.failed for run in found_runs),
        cost_usd=sum((run.cost_usd for run in found_runs), Decimal(0)),
        tokens_in=sum(run.tokens_in for run in found_runs),
        tokens_out=sum(run.tokens_out for run in found_runs),
        dead_letters=len(open_letters),
        last_error=errors[-1] if errors else None,
        sla=promise,
        events=len(history.events) + len(history.unread),
    )


def _state(
    history: History,
    decided: DecisionMade | None,
    done: tuple[EffectRow, ...],
    unseen: list[EffectRow],
    found_runs: list[RunRow],
    letters: list[DeadLetterRow],
    approvals: list[ApprovalRow],
) -> tuple[CaseState, str | None]:
    """Where the case stands, what needs a person first, and what it waits for."""
    if letters:
        return "dead_letter", f"a person: {letters[0].work} of {letters[0].service} failed ({letters[0].code})"
    if sla.is_gone(history):
        return "gone", None
    asked = {approval.state for approval in approvals}
    if asked & {"waiting", "answered"}:
        return "approval", "a person's approval" if "waiting" in asked else "the actor, to carry out the answer"
    if (unsent := next((e for e in done if e.state in effects.OPEN), None)) is not None:
        why = f" ({unsent.code})" if unsent.code else ""
        return "acting", f"{unsent.kind or 'an effect'} that is not sent yet{why}"
    if unseen:
        return "acting", f"{unseen[0].kind} that was acknowledged and is not seen outside yet"
    if (doubtful := next((e for e in done if _is_doubtful(history, e)), None)) is not None:
        return "held", f"a person: whether {doubtful.kind} was done is unknown"
    if any(run.state == "open" for run in found_runs):
        return "working", "a decision"
    if runs.is_skipped(history):
        return "skipped", None
    return ("seen", None) if decided is None else _decided(history, decided, done)


def _is_doubtful(history: History, effect: EffectRow) -> bool:
    """Whether nobody can tell if it was done. What was never sent is certain, and a person's answer ends the doubt."""
    if effect.state != "person" or effect.code == NOT_CONNECTED or effect.at is None:
        return False
    return not any(reply.by == "staff" and reply.at > effect.at for reply in sla.replies_of(history))


def _decided(history: History, decided: DecisionMade, done: tuple[EffectRow, ...]) -> tuple[CaseState, str | None]:
    """Where a case stands whose newest basis was decided and of which nothing is left to send."""
    if decided.verdict == "ignore":
        return "ignored", None
    answering = [effect for effect in done if effect.effect_key.endswith(f"|{decided.basis}")]
    asked_at = decided.basis.partition("|")[0]
    by_staff = any(reply.by == "staff" and version_of(reply.at) > asked_at for reply in sla.replies_of(history))
    if by_staff or any(effect.public and effect.state in effects.REACHED for effect in answering):
        return "answered", None
    person = None if sla.is_closed(history) else "a person who takes the case"
    if decided.verdict != "execute":
        return ("held" if decided.verdict == "hold" else "refused"), person
    if any(effect.kind == "handover" and effect.state in effects.REACHED for effect in answering):
        return "held", person
    if overtaken := [effect for effect in answering if effect.state == "superseded"]:
        newer = any(effect.code == "newer_basis" for effect in overtaken)
        return ("seen", "a decision about what is newer") if newer else ("ignored", None)
    return "done", None


class _Sums:
    """What a case adds to `totals`. Nothing is zero."""

    def __init__(self) -> None:
        self._amounts: dict[str, int | Decimal] = defaultdict(int)

    def add(self, at: datetime, name: str, amount: int | Decimal = 1) -> None:
        if amount:
            self._amounts[f"{at.astimezone(UTC).date().isoformat()}|{name}"] += amount
            self._amounts[f"{ALL_DAYS}|{name}"] += amount

    def body(self) -> str:
        """JSON: `<period>|<name>` → amount."""
        plain = {name: str(n) if isinstance(n, int) else f"{n:f}" for name, n in sorted(self._amounts.items())}
        return json.dumps(plain)


def _sums(
    history: History,
    case: CaseRow | None,
    found_runs: list[RunRow],
    letters: list[DeadLetterRow],
    approvals: list[ApprovalRow],
) -> str:
    sums = _Sums()
    for event in history.events:
        sums.add(event.time, "events")
    for unread in history.unread:
        sums.add(unread.time, "events")
        sums.add(unread.time, "unread")
    for run in found_runs:
        _add_run(sums, run)
    for decision in history.of(DecisionMade):
        sums.add(decision.data.decided_at, f"decision.{runs.WORDS[decision.data.verdict]}")
    for letter in letters:
        sums.add(letter.raised_at, f"dead_letter.{letter.state}")
    for approval in approvals:
        sums.add(approval.requested_at, f"approval.{approval.state}")
    if case is not None:
        _add_case(sums, history, case)
    return sums.body()


def _add_run(sums: _Sums, run: RunRow) -> None:
    sums.add(run.started_at, "runs")
    sums.add(run.started_at, "failures", int(run.failed))
    sums.add(run.started_at, "cost_usd", run.cost_usd)
    sums.add(run.started_at, "tokens", run.tokens_in + run.tokens_out)
    if run.latency_ms is not None:
        sums.add(run.started_at, "latency_ms", run.latency_ms)
        sums.add(run.started_at, f"latency.{bucket_of(run.latency_ms)}")


def _add_case(sums: _Sums, history: History, case: CaseRow) -> None:
    """A case is counted under the day of its opening, else of its first change, else of its first event."""
    first = min((e.data.occurred_at for e in history.of(CaseChanged)), default=history.events[0].time)
    sums.add(case.opened_at or first, f"case.{case.state}")
    for effect in case.effects:
        sums.add(effect.at or first, f"effect.{effect.state}")
    if case.sla.opened_at is not None:
        sums.add(case.sla.opened_at, f"sla.{case.sla.state}")
