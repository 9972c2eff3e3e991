"""Confidence decides; the answers `raise` and `refuse` do what they say."""

from datetime import datetime

from pydantic import BaseModel

from contracts.decision import Action, Circumstances, Decision, Execute, Facts, Hold, Reason, Refuse
from processes.tiny.case import Case, taken
from processes.tiny.steps.answer.output import Proposal


class Policy(BaseModel):
    """[policy]."""

    confidence_min: float


def decide(
    case: Case, facts: Facts, proposal: Proposal, policy: Policy, now: datetime, circumstances: Circumstances
) -> Decision:
    """Execute what is certain."""
    del case, facts, now, circumstances
    actions = tuple(Action(name=name) for name in proposal.do)
    if proposal.answer == "raise":
        raise ZeroDivisionError(proposal.answer)
    if proposal.answer == "refuse":
        return Refuse(reasons=(Reason(code="refused", text="It must not be."),))
    if proposal.confidence < policy.confidence_min:
        return Hold(reasons=(Reason(code="low_confidence", text="Not certain enough."),), actions=actions)
    return Execute(actions=actions)


def still_allowed(case: Case, policy: Policy) -> Reason | None:
    """Not while a person has the case."""
    del policy
    return Reason(code="taken", text="A person has it.") if taken(case) else None
