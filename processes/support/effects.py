"""What is sent: one PUT to the ticket for an answer, one for a handover, perhaps a notice. Pure; no money is moved."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from contracts.base import Json
from contracts.decision import Action, Decision, Execute, Facts, Hold, Mode, Reason, Request
from processes.support import case as cases
from processes.support.policy import Policy
from processes.support.steps.answer.output import Proposal
from processes.support.ticket import Case

_NOTICES = "slack"
_FURTHEST: tuple[Mode, ...] = ("watch", "draft", "act")


def requests(
    case: Case,
    facts: Facts,  # noqa: ARG001  # part of every process's interface; the rules have checked them already
    proposal: Proposal,
    decision: Decision,
    modes: Mapping[str, Mode],
    policy: Policy,
) -> Sequence[Request]:
    """Everything that a decision changes, as one PUT. Nothing for a refusal, a ticket that is gone, or in mode watch.

    Mode act writes to the customer; draft writes the same as an internal note. A reply that comes with a refund goes no
    further than the refund does: it must not promise what nobody was asked for. An action without a mode is watched.
    """
    if not isinstance(decision, Execute | Hold) or cases.gone(case) is not None:
        return ()
    actions = decision.actions
    reply = [modes.get("reply", "watch") for action in actions if action.name == "reply"]
    refund = [modes.get("refund", "watch") for action in actions if action.name == "refund"]
    reach = min([*reply, *refund], key=_FURTHEST.index) if reply else "watch"
    done = [action for action in actions if action.name != "reply" and modes.get(action.name, "watch") == "act"]
    drafted = [action for action in actions if action.name != "reply" and modes.get(action.name, "watch") == "draft"]
    ticket = _fields(done, policy)
    tags = _tags(done, policy)
    if reach == "act":
        ticket["comment"] = {"body": signed(case, proposal, policy), "public": True}
        ticket["status"] = policy.status_after_reply
        tags.append(policy.reply_tag)
    elif note := _note(case, proposal, drafted, policy, with_draft=reach == "draft"):
        ticket["comment"] = {"body": note, "public": False}
    if tags:
        ticket["additional_tags"] = [*dict.fromkeys(tags)]
    return (_put(case, "reply", ticket),) if ticket else ()


def handover(case: Case, proposal: Proposal | None, reasons: Sequence[Reason], policy: Policy) -> Sequence[Request]:
    """The internal note with reasons and draft, tag and group; a notice where the policy wants somebody told at once.

    Nothing for a ticket that is gone: it cannot be written to. The notice holds the ticket's number and our own
    sentences, never what people wrote.
    """
    if cases.gone(case) is not None:
        return ()
    told = "\n".join(f"- {reason.text}" for reason in reasons)
    body = f"Nightshift leaves this ticket to you.\n\n{told}"
    if proposal is not None:
        body += f"\n\nIt reads like: {proposal.intent.replace('_', ' ')}, {proposal.urgency} urgency."
        if proposal.reply.strip():
            body += f"\n\nDraft, not sent:\n\n{signed(case, proposal, policy)}"
    ticket: Json = {
        "comment": {"body": body, "public": False},
        "additional_tags": [policy.handover_tag],
        "group_id": policy.groups[policy.handover_group],
    }
    note = _put(case, "handover", ticket)
    urgent = proposal is not None and proposal.urgency in policy.notice_urgencies
    if not urgent and not any(reason.code in policy.notice_reasons for reason in reasons):
        return (note,)
    return (note, _notice(case, reasons))


def signed(case: Case, proposal: Proposal, policy: Policy) -> str:
    """The draft above the signature of the ticket's brand, in the customer's language where the brand has one."""
    brand = policy.brands.get(case.text("brand_id") or "", policy.brands["default"])
    signature = brand.signatures.get(proposal.language, brand.signatures[policy.languages[0]])
    return f"{proposal.reply.strip()}\n\n{signature}"


def _fields(actions: Sequence[Action], policy: Policy) -> Json:
    """Ticket fields of the actions that are done. A refund's group counts over a suggested one."""
    ticket: Json = {}
    for action in sorted(actions, key=lambda action: action.name == "refund"):
        match action.name:
            case "set_priority":
                ticket["priority"] = action.params["priority"]
            case "route":
                ticket["group_id"] = policy.groups[str(action.params["group"])]
            case "refund":
                ticket["group_id"] = policy.groups[policy.refunds.group]
            case _:
                pass  # tags are gathered apart: an answer adds its own
    asked: list[JsonValue] = [_sentence(action) for action in actions if action.name == "refund"]
    if asked:
        value = "; ".join(map(str, asked))
        ticket["custom_fields"] = [{"id": policy.refunds.amount_field_id, "value": value}]
    return ticket


def _tags(actions: Sequence[Action], policy: Policy) -> list[JsonValue]:
    tags: list[JsonValue] = [action.params["tag"] for action in actions if action.name == "tag"]
    return [*tags, policy.refunds.tag] if any(action.name == "refund" for action in actions) else tags


def _note(case: Case, proposal: Proposal, drafted: Sequence[Action], policy: Policy, *, with_draft: bool) -> str:
    parts = [f"Suggested reply, not sent:\n\n{signed(case, proposal, policy)}"] if with_draft else []
    if drafted:
        parts.append("Suggested, not done:\n" + "\n".join(f"- {_sentence(action)}" for action in drafted))
    return "\n\n".join(parts)


def _sentence(action: Action) -> str:
    match action.name:
        case "refund":
            return "{order_id}: {amount} {currency}".format(**action.params)
        case name:
            return f"{name.replace('_', ' ')}: {', '.join(map(str, action.params.values()))}"


def _put(case: Case, kind: str, ticket: Json) -> Request:
    return Request(
        kind=kind, connector=case.door, object_id=case.object_id, semantics="conditional", body={"ticket": ticket}
    )


def _notice(case: Case, reasons: Sequence[Reason]) -> Request:
    sentences = " ".join(reason.text for reason in reasons)
    return Request(
        kind="notice",
        connector=_NOTICES,
        object_id=case.object_id,
        semantics="blind",
        may_repeat=True,
        body={"text": f"Ticket {case.object_id} needs a person. {sentences}"},
    )
