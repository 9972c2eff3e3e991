"""What may go out by itself, what a person must see, and what is left alone: pure, every limit from the policy.

In this order: the ticket is gone (refuse) · nobody asked, or somebody has it (ignore) · any objection of objections.py
(hold, with every reason) · otherwise execute. A rule that raises is the engine's business: it holds.
"""

from datetime import datetime

from contracts.decision import Action, Circumstances, Decision, Execute, Facts, Hold, Ignore, Reason, Refuse
from processes.support import case as cases
from processes.support.objections import OBJECTIONS
from processes.support.policy import Policy
from processes.support.seen import Seen, look
from processes.support.steps.answer.output import Proposal, Route, SetPriority, Tag
from processes.support.ticket import Case

__all__ = ["Policy", "decide", "still_allowed"]

_GONE = {
    "merged": "The ticket was merged into another one.",
    "spam": "The ticket was marked as spam.",
    "deleted": "The ticket was deleted.",
    "closed": "The ticket is closed and cannot be changed any more.",
}


def decide(
    case: Case, facts: Facts, proposal: Proposal, policy: Policy, now: datetime, circumstances: Circumstances
) -> Decision:
    """What may be done about a revealed case. Every objection is named, not only the first."""
    if (reason := _ended(case)) is not None:
        return Refuse(reasons=(reason,)) if cases.basis(case) is not None else Ignore(reasons=(reason,))
    if (reason := still_allowed(case, policy) or _channel_not_answered(case, policy)) is not None:
        return Ignore(reasons=(reason,))
    seen = look(case, facts, proposal, policy, now, circumstances)
    found = [(rule, reason) for rule in OBJECTIONS if (reason := rule.check(seen)) is not None]
    reasons = (*(reason for _, reason in found), *seen.refund_reasons)
    actions, left_out = _actions(seen, with_reply=not any(rule.spoils_reply for rule, _ in found))
    if reasons:
        return Hold(reasons=reasons, actions=actions)
    return Execute(reasons=left_out, actions=actions)


def still_allowed(case: Case, policy: Policy) -> Reason | None:
    """Why the state of the case now forbids an effect, or none. Asked again when an effect is claimed."""
    if (reason := _ended(case)) is not None:
        return reason
    if cases.basis(case) is None:
        return Reason(code="nothing_asked", text="The customer has asked nothing yet.")
    released = policy.release_tag in case.tags
    assignee = case.text("assignee_id")
    if not released and assignee is not None and assignee not in policy.assignees_not_persons:
        return Reason(code="assigned", text="A person has it: the ticket is assigned.")
    if not released and any(cases.speaker(case, answer) == "staff" for answer in cases.answers(case)):
        return Reason(code="person_answered", text="A person has it: somebody of the staff has answered publicly.")
    if not cases.awaits_answer(case):
        return Reason(code="answered", text="The customer's last message is already answered, or the ticket solved.")
    return None


def _ended(case: Case) -> Reason | None:
    why = cases.gone(case)
    return None if why is None else Reason(code=why, text=_GONE[why])


def _channel_not_answered(case: Case, policy: Policy) -> Reason | None:
    channel = case.text("channel")
    if channel is None or channel in policy.channels:
        return None
    return Reason(code="channel", text="Tickets of this channel are recorded and left to people.")


def _actions(seen: Seen, *, with_reply: bool) -> tuple[tuple[Action, ...], tuple[Reason, ...]]:
    """What the lists of the policy let through of the suggestions, and what was left out."""
    policy = seen.policy
    kept: list[Action] = [Action(name="reply")] if with_reply and seen.wants_reply else []
    left_out: dict[str, Reason] = {}
    for suggestion in seen.proposal.actions:
        match suggestion:
            case Tag(tag=tag) if tag in policy.tags:
                kept.append(Action(name="tag", params={"tag": tag}))
            case SetPriority(priority=priority) if priority in policy.priorities:
                kept.append(Action(name="set_priority", params={"priority": priority}))
            case Route(group=group) if group in policy.groups:
                kept.append(Action(name="route", params={"group": group}))
            case Tag() | SetPriority() | Route():
                left_out[suggestion.name] = Reason(
                    code=f"{suggestion.name}_not_listed",
                    text=f"A suggestion ({suggestion.name}) that the policy does not list was left out.",
                )
            case _:
                pass  # reply and refund are judged apart; escalation and account deletion are never carried out
    kept += seen.refunds
    once = tuple(action for place, action in enumerate(kept) if action not in kept[:place])
    return once, tuple(left_out.values())
