"""One comment for the answer, one note for a person, one line for the pager."""

from collections.abc import Mapping, Sequence

from contracts.decision import Decision, Execute, Facts, Hold, Mode, Reason, Request
from processes.tiny.case import Case
from processes.tiny.rules import Policy
from processes.tiny.steps.answer.output import Proposal


def _object(case: Case) -> str:
    name: str = case.comments[0].name
    return name.split(".", 1)[0]


def requests(
    case: Case, facts: Facts, proposal: Proposal, decision: Decision, modes: Mapping[str, Mode], policy: Policy
) -> Sequence[Request]:
    """Each action as far as its mode lets it."""
    del facts, policy
    assert isinstance(decision, Execute | Hold)
    names = [action.name for action in decision.actions if modes[action.name] != "watch"]
    found = []
    if "reply" in names:
        body = {"body": proposal.answer, "public": modes["reply"] == "act"}
        found.append(_request(case, "reply", body))
    if "notice" in names:
        found.append(
            Request(kind="notice", connector="pager", object_id="on-call", semantics="blind", body={"text": "look"})
        )
    return found


def handover(case: Case, proposal: Proposal | None, reasons: Sequence[Reason], policy: Policy) -> Sequence[Request]:
    """A note that the customer does not see."""
    del policy
    draft = "" if proposal is None else f" Draft: {proposal.answer}"
    return [_request(case, "handover", {"body": "; ".join(r.code for r in reasons) + draft, "public": False})]


def _request(case: Case, kind: str, body: Mapping[str, str | bool]) -> Request:
    return Request(kind=kind, connector="none", object_id=_object(case), semantics="conditional", body=dict(body))
