"""What is settled about a proposal before the rules are asked."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.decision import Hold, Ignore, Reason
from services.actor.domain.effect import BASIS_GONE, went_back


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A proposal's case, as far as every process shares it."""

    basis: str
    newest_basis: str | None
    awaits_answer: bool
    already_decided: bool
    opened_at: datetime
    asked_at: datetime
    start_at: datetime
    max_age: timedelta
    now: datetime
    held: bool


def before_rules(situation: Situation) -> Ignore | Hold | None:
    """Ignore or Hold where no rule may widen it, or none: then the rules decide."""
    if situation.basis != situation.newest_basis:
        lost = went_back(situation.basis, situation.newest_basis) and situation.awaits_answer
        return Hold(reasons=(BASIS_GONE,)) if lost else STALE
    if situation.already_decided:
        return Ignore(reasons=(Reason(code="already_decided", text="This request was decided before."),))
    if situation.opened_at < situation.start_at:
        text = "The case is older than the day on which this door was opened."
        return Ignore(reasons=(Reason(code="before_start", text=text),))
    if situation.now - situation.asked_at > situation.max_age:
        text = "The customer has waited too long for an unattended answer."
        return Hold(reasons=(Reason(code="too_old", text=text),))
    if situation.held:
        return Hold(reasons=(Reason(code="case_held", text="The case is held for a person."),))
    return None


STALE = Ignore(reasons=(Reason(code="stale_basis", text="Something newer happened outside."),))
