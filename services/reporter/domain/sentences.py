"""Each event told to a person: who did what, and why. No people's text: that is shown beside, when it may be opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.base import Fact
from contracts.decision import Reason
from contracts.envelope import Event
from contracts.events import cases, control, dead_letters, decisions, effects, proposals
from services.reporter.domain.views import CauseRow

_WHO = {
    "customer": "the customer",
    "staff": "staff",
    "ours": "Nightshift (its own user, seen from outside)",
    "system": "the outside system",
    "unknown": "somebody",
}
_OUTCOMES = {
    "retry": "it will be tried again",
    "superseded": "something newer overtook it, so it is not sent",
    "dead": "it is now a dead letter",
    "person": "nobody knows whether it was done, so a person must look",
}
CODES = {
    "closed": "the ticket was closed meanwhile",
    "conflict": "the ticket changed meanwhile",
    "day_budget_exhausted": "the day's money for models is used up",
    "deleted": "the ticket was deleted meanwhile",
    "forbidden": "our credentials are refused, or a right is missing",
    "gone": "the ticket is gone",
    "list_short": "the list lacks updates that webhooks told of",
    "list_empty": "the list is empty, and webhooks told of updates",
    "newer_basis": "something newer happened outside",
    "newest_again": "what was taken for newer is not",
    "basis_gone": "what it would answer is not the newest word",
    "not_connected": "its address or token is not set",
    "not_found": "no clear answer came, and it is not there",
    "not_there": "it was confirmed, and it is not there",
    "rate_limited": "the other side asks for patience",
    "run_budget_exhausted": "it would have cost more than one piece of work may",
    "total_budget_exhausted": "the money for models is used up",
    "unavailable": "the other side is away",
    "unknown_outcome": "nobody can tell whether it was done",
    "unreachable": "the other side cannot be reached",
}
"""What frequent codes mean; others are told as they are."""
ORDERED = {"redrive_requested": "redrive asked for", "skip_requested": "skip asked for"}
"""What is asked for about a dead letter, by its state."""
_MODES = {"watch": "only watched", "draft": "as a note for staff", "act": "for real"}


@dataclass(frozen=True, slots=True)
class Told:
    """Who did it, and the sentence."""

    who: str
    sentence: str


def tell(event: Event[Fact]) -> Told:
    """What happened. Raises KeyError for a type without a sentence; a test asks for each type that there is."""
    return SENTENCES[event.data.TYPE](event.data)


def sealed_of(data: Fact) -> dict[str, str]:
    """The sealed texts that an event carries, by name."""
    match data:
        case cases.CaseChanged():
            return dict(data.texts)
        case proposals.FactsRead():
            return {"answers": data.answers}
        case proposals.ProposalMade():
            return {"proposal": data.output}
        case proposals.ProposalShadowed(output=str() as output):
            return {"the candidate's proposal": output}
        case decisions.ApprovalRequested():
            return {"requests": data.requests}
        case _:
            return {}


def why(reasons: Sequence[Reason]) -> str:
    """The reasons as the end of a sentence."""
    return f": {'; '.join(reason.text.rstrip('.') for reason in reasons)}" if reasons else ""


def said_of(row: CauseRow) -> str:
    """Who was told of a cause, and who sees to it."""
    if row.acknowledged_by is not None:
        return f"{row.acknowledged_by} sees to it"
    if row.failed is not None:
        return f"nobody could be told ({row.failed}), {row.tries} tries"
    if row.escalated_at is not None:
        return "told and escalated, nobody has acknowledged it"
    return "told, nobody has acknowledged it" if row.told_count else "nobody was told yet"


def _opened(data: cases.CaseOpened) -> Told:
    number = f"{data.door} {data.object_id}"
    return Told(_WHO[data.author], f"{_capital(_WHO[data.author])} opened {number}{_state_of(data)}{_late(data)}.")


def _changed(data: cases.CaseChanged) -> Told:
    kind = data.kind.replace("_", " ")
    public = data.fields.get("comment_public")
    seen = "" if public is None else ", publicly" if public else ", as an internal note"
    hint = "; the news is not complete, so the object is read" if data.hint else ""
    who = _WHO[data.author]
    told = f"{kind}{seen}{_state_of(data)}{hint}{_late(data)}"
    return Told(who, f"{_capital(who)} changed {data.door} {data.object_id}: {told}.")


def _reconciled(data: cases.IntakeReconciled) -> Told:
    over = "; it is old, and not asked for again" if data.settled else ""
    listed = f"{data.listed} update{'' if data.listed == 1 else 's'} on the provider's own list"
    words = {
        "complete": f"Everything came in: webhooks had told all {listed}",
        "missing": f"Not everything came in: no webhook had told {data.missing} of {listed}{over or '; they are read'}",
        "backfilled": f"{data.missing} of {listed} came in late, for no webhook had told them",
        "unknown": "Nobody can tell whether everything came in: "
        f"the provider's own list cannot be had ({data.code}){over}",
    }
    return Told("ingest", f"{words[data.state]}.")


def _late(data: cases.CaseChanged) -> str:
    return "; no webhook had told it, it was found on the provider's own list" if data.late else ""


def _state_of(data: cases.CaseChanged) -> str:
    told = [f"{name} {data.fields[name]}" for name in ("status", "priority") if data.fields.get(name)]
    return f" ({', '.join(told)})" if told else ""


def _facts(data: proposals.FactsRead) -> Told:
    good = [fact.name for fact in data.facts if fact.ok]
    bad = [f"{fact.name} ({fact.error or 'unreadable'})" for fact in data.facts if not fact.ok]
    read = f"Read {', '.join(good)}" if good else "Read no fact"
    return Told("classifier", f"{read}{'; could not read ' + ', '.join(bad) if bad else ''}.")


def _proposed(data: proposals.ProposalMade) -> Told:
    again = f" at attempt {data.attempts}" if data.attempts > 1 else ""
    count = len(data.made_from.passages)
    given = f", given {count} passage{'' if count == 1 else 's'}" if count else ""
    return Told(
        "classifier",
        f"{_whose(data)}{_in_vain(data.failed)}{data.made_from.model} took it for “{data.label}” with confidence "
        f"{data.confidence:.2f}{given}{again}, "
        f"in {data.latency_ms} ms for {data.cost_usd:f} USD.",
    )


def _proposal_failed(data: proposals.ProposalFailed) -> Told:
    cost = f" and {data.cost_usd:f} USD" if data.cost_usd else ""
    asked = _whose(data) + (_in_vain(data.failed) if len(data.failed) > 1 else "")
    return Told("classifier", f"{asked}No proposal came of it after {data.attempts} attempts{cost} ({data.code}).")


def _dropped(data: proposals.ProposalDropped) -> Told:
    return Told("classifier", f"Nobody waits for what {data.model} was asked any more; it took {data.cost_usd:f} USD.")


def _whose(data: proposals.ProposalMade | proposals.ProposalFailed) -> str:
    return "It is the candidate's turn. " if data.candidate else ""


def _in_vain(failed: Sequence[proposals.ModelFailed]) -> str:
    """Which models were asked before, as the beginning of what is said."""
    return "".join(f"{one.model} came to nothing ({one.code}). " for one in failed)


def _budget_exhausted(data: proposals.BudgetExhausted) -> Told:
    whose = "The day's" if data.period == "day" else "The whole"
    goes_on = "a higher ceiling" if data.until is None else f"{data.until:%Y-%m-%d %H:%M} UTC, or a higher ceiling"
    return Told(
        "classifier",
        f"{whose} budget for models is used up: {data.spent:f} of {data.ceiling:f} {data.unit} are spent, "
        f"{data.reserved:f} reserved, and the next call to {data.model} (for {data.asked_by}, run {data.asked_run}) "
        f"can take {data.asked:f}. {data.dearest} took most of it: {data.dearest_spent:f}. "
        f"What needs a model waits for {goes_on}.",
    )


def _decided(data: decisions.DecisionMade) -> Told:
    names = ", ".join(action.name for action in data.actions)
    said = {
        "execute": f"The rules let {names or 'it'} go out",
        "hold": f"The rules hold {names or 'the case'} for a person",
        "refuse": "The rules refuse and leave the case to a person",
        "ignore": "The rules ignore it",
    }
    count = len(data.effect_keys)
    planned = f" {count} effect{'' if count == 1 else 's'} planned." if count else ""
    return Told("actor", f"{said[data.verdict]}{why(data.reasons)}.{planned}")


def _shadowed(data: proposals.ProposalShadowed) -> Told:
    cost = f"{data.cost_usd:f} USD"
    if data.made_from is None:
        return Told("classifier", f"In shadow: no proposal of the candidate came of it ({data.code}), for {cost}.")
    return Told(
        "classifier",
        f"In shadow: {data.made_from.model} took it for “{data.label}” with confidence {data.confidence:.2f}, "
        f"in {data.latency_ms} ms for {cost}. Nothing is done about it.",
    )


def _decision_shadowed(data: decisions.DecisionShadowed) -> Told:
    if data.difference == "same":
        return Told("actor", "In shadow: the candidate's proposal would have been decided alike.")
    how = f"{data.difference} ({data.live.verdict} → {data.shadow.verdict})"
    return Told(
        "actor",
        f"In shadow: the candidate's proposal would have been decided otherwise, {how}{why(data.shadow.reasons)}.",
    )


def _handover_planned(data: decisions.HandoverPlanned) -> Told:
    return Told("actor", f"A person is told that the case is theirs{why(data.reasons)}.")


def _approval_requested(data: decisions.ApprovalRequested) -> Told:
    until = f"{data.expires_at:%Y-%m-%d %H:%M} UTC"
    return Told("actor", f"A person is asked to approve{why(data.reasons)}. Without an answer by {until} it is a no.")


def _approval_resolved(data: decisions.ApprovalResolved) -> Told:
    words = {
        "approved": f"{data.by} approved; exactly what was shown is sent",
        "denied": f"{data.by} said no",
        "expired": "Nobody answered in time, so it is a no",
        "superseded": "Something newer came, so the request for approval is withdrawn",
    }
    return Told(data.by, f"{words[data.answer]}{': ' + data.reason if data.reason else ''}.")


def _attempted(data: effects.EffectAttempted) -> Told:
    again = f", attempt {data.attempt}" if data.attempt > 1 else ""
    seen = "the customer will see it" if data.public else "the customer does not see it"
    return Told(
        "actor", f"Sent a {data.kind} to {data.destination} {data.object_id}, {_MODES[data.mode]}{again}; {seen}."
    )


def _acknowledged(data: effects.EffectAcknowledged) -> Told:
    return Told(data.destination, f"{_capital(data.destination)} confirmed the {data.kind} (as {data.reference}).")


def _observed(data: effects.EffectObserved) -> Told:
    how = "its echo came back" if data.by == "echo" else "it was read back"
    return Told("actor", f"The {data.kind} was seen in {data.destination} {data.object_id}: {how}.")


def _effect_failed(data: effects.EffectFailed) -> Told:
    why_not = CODES.get(data.code, data.code)
    return Told("actor", f"The {data.kind} to {data.destination} failed ({why_not}): {_OUTCOMES[data.outcome]}.")


def _raised(data: dead_letters.DeadLetterRaised) -> Told:
    said = f", {data.message}" if data.message else ""
    tries = f"{data.attempts} attempt{'' if data.attempts == 1 else 's'}"
    return Told(
        data.service,
        f"{data.work} needs a person after {tries} ({data.code}{said}). Later work of this case waits behind it.",
    )


def _redriven(data: dead_letters.DeadLetterRedriven) -> Told:
    return Told(data.by, f"{data.by} put the work back; {data.service} tries it again.")


def _skipped(data: dead_letters.DeadLetterSkipped) -> Told:
    return Told(data.by, f"{data.by} ended it undone: {data.reason.rstrip('.')}. The case goes on without that work.")


def _resolved(data: dead_letters.DeadLetterResolved) -> Told:
    return Told(data.service, f"Nobody is needed any more: {data.reason} The case goes on.")


def _paused(data: control.ProcessPaused) -> Told:
    return Told(data.by, f"{data.by} paused the process{': ' + data.reason if data.reason else ''}.")


def _resumed(data: control.ProcessResumed) -> Told:
    return Told(data.by, f"{data.by} let the process run again{': ' + data.reason if data.reason else ''}.")


def _answered(data: control.ApprovalAnswered) -> Told:
    said = "yes" if data.answer == "approved" else "no"
    return Told(data.by, f"{data.by} answered {said} to the approval{': ' + data.reason if data.reason else ''}.")


def _redrive(data: control.RedriveRequested) -> Told:
    return Told(data.by, f"{data.by} asked {data.service} to try the dead letter again.")


def _skip(data: control.SkipRequested) -> Told:
    return Told(data.by, f"{data.by} asked {data.service} to skip the dead letter: {data.reason.rstrip('.')}.")


def _acknowledged_cause(data: control.CauseAcknowledged) -> Told:
    return Told(data.by, f"{data.by} looked at {data.cause} and will see to it.")


def _admitted(data: control.RegimeAdmitted) -> Told:
    return Told(
        data.by,
        f"{data.by} let {data.model} be asked without a passed eval (regime {data.regime[:16]}): "
        f"{data.reason.rstrip('.')}.",
    )


def _candidate_changed(data: control.CandidateChanged) -> Told:
    where = {
        "off": "switched the candidate off",
        "shadow": f"put the candidate into shadow on {data.percent} % of the cases",
        "canary": f"let the candidate propose for {data.percent} % of the cases",
    }
    which = f"{data.model}, regime {data.regime[:16]}"
    return Told(data.by, f"{data.by} {where[data.mode]} ({which}): {data.reason.rstrip('.')}.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


SENTENCES: dict[str, Callable[[Any], Told]] = {
    cases.CaseOpened.TYPE: _opened,
    cases.CaseChanged.TYPE: _changed,
    cases.IntakeReconciled.TYPE: _reconciled,
    proposals.FactsRead.TYPE: _facts,
    proposals.ProposalMade.TYPE: _proposed,
    proposals.ProposalFailed.TYPE: _proposal_failed,
    proposals.ProposalShadowed.TYPE: _shadowed,
    proposals.ProposalDropped.TYPE: _dropped,
    proposals.BudgetExhausted.TYPE: _budget_exhausted,
    decisions.DecisionMade.TYPE: _decided,
    decisions.DecisionShadowed.TYPE: _decision_shadowed,
    decisions.HandoverPlanned.TYPE: _handover_planned,
    decisions.ApprovalRequested.TYPE: _approval_requested,
    decisions.ApprovalResolved.TYPE: _approval_resolved,
    effects.EffectAttempted.TYPE: _attempted,
    effects.EffectAcknowledged.TYPE: _acknowledged,
    effects.EffectObserved.TYPE: _observed,
    effects.EffectFailed.TYPE: _effect_failed,
    dead_letters.DeadLetterRaised.TYPE: _raised,
    dead_letters.DeadLetterRedriven.TYPE: _redriven,
    dead_letters.DeadLetterSkipped.TYPE: _skipped,
    dead_letters.DeadLetterResolved.TYPE: _resolved,
    control.ProcessPaused.TYPE: _paused,
    control.ProcessResumed.TYPE: _resumed,
    control.ApprovalAnswered.TYPE: _answered,
    control.RedriveRequested.TYPE: _redrive,
    control.SkipRequested.TYPE: _skip,
    control.CauseAcknowledged.TYPE: _acknowledged_cause,
    control.RegimeAdmitted.TYPE: _admitted,
    control.CandidateChanged.TYPE: _candidate_changed,
}
"""By type and version, in the order in which a case meets them."""
ORDER = {name: number for number, name in enumerate(SENTENCES)}
"""Tells events of the same instant apart: what was read stands before what was proposed from it."""
