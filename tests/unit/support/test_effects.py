"""What is sent: one change of the ticket for each decision, and never further than an action's mode."""

from collections.abc import Sequence
from typing import Any

import pytest

from contracts.decision import Action, Decision, Execute, Hold, Ignore, Mode, Reason, Refuse, Request
from processes.support import effects
from services.runtime.process import load
from tests.unit.support.tickets import POLICY, change, created, facts, policy, proposal, revealed

REASON = Reason(code="legal_threat", text="The message speaks of lawyers.")
ALL_ACT: dict[str, Mode] = dict.fromkeys(("reply", "tag", "set_priority", "route", "refund"), "act")
REFUND = Action(name="refund", params={"order_id": "100200300", "amount": "12.50", "currency": "EUR"})


def send(decision: Decision, modes: dict[str, Mode], **case: Any) -> Sequence[Request]:
    return effects.requests(revealed(created(**case)), facts(), proposal(), decision, modes, POLICY)


def ticket(requests: Sequence[Request]) -> Any:
    (request,) = requests
    assert (request.kind, request.connector, request.object_id) == ("reply", "zendesk", "42")
    assert request.semantics == "conditional"
    return request.body["ticket"]


def execute(*names: str) -> Execute:
    params: dict[str, Any] = {
        "tag": {"tag": "order"},
        "set_priority": {"priority": "high"},
        "route": {"group": "shipping"},
        "refund": REFUND.params,
    }
    return Execute(actions=tuple(Action(name=name, params=params.get(name, {})) for name in names))


def test_everything_of_a_decision_is_one_change_of_the_ticket() -> None:
    sent = ticket(send(execute("reply", "tag", "set_priority", "route"), ALL_ACT))

    assert sent == {
        "comment": {
            "body": "You can follow your order on the tracking page.\n\nKind regards,\nHarbor & Pine Customer Care",
            "public": True,
        },
        "status": "pending",
        "priority": "high",
        "group_id": 8003,
        "additional_tags": ["order", "nightshift_replied"],
    }


def test_a_draft_is_a_note_for_people_and_changes_nothing_else() -> None:
    sent = ticket(send(execute("reply", "tag"), {"reply": "draft", "tag": "draft"}))

    assert {*sent} == {"comment"}
    assert sent["comment"]["public"] is False
    assert "tracking page" in sent["comment"]["body"]
    assert "tag: order" in sent["comment"]["body"]


@pytest.mark.parametrize("modes", [{}, {"reply": "watch", "tag": "watch"}], ids=["no mode", "watch"])
def test_a_watched_action_sends_nothing(modes: dict[str, Mode]) -> None:
    assert send(execute("reply", "tag"), modes) == ()


def test_each_action_goes_as_far_as_its_own_mode() -> None:
    sent = ticket(
        send(execute("reply", "tag", "set_priority"), {"reply": "watch", "tag": "act", "set_priority": "draft"})
    )

    assert sent["additional_tags"] == ["order"]
    assert sent["comment"] == {"body": "Suggested, not done:\n- set priority: high", "public": False}


def test_a_refund_asks_the_billing_group_and_moves_no_money() -> None:
    sent = ticket(send(execute("reply", "route", "refund"), ALL_ACT))

    assert sent["group_id"] == 8002
    assert sent["additional_tags"] == ["nightshift_refund", "nightshift_replied"]
    assert sent["custom_fields"] == [{"id": 360001, "value": "100200300: 12.50 EUR"}]


@pytest.mark.parametrize(
    ("refund", "public"), [("act", True), ("draft", False), ("watch", None)], ids=["act", "draft", "watch"]
)
def test_a_reply_goes_no_further_than_the_refund_it_speaks_of(refund: Mode, *, public: bool | None) -> None:
    sent = send(execute("reply", "refund"), {"reply": "act", "refund": refund})

    assert (ticket(sent)["comment"]["public"] if sent else None) is public


@pytest.mark.parametrize(
    ("brand", "signature"),
    [("7001", "Harbor & Pine Customer Care"), ("7002", "Harbor & Pine Kids Customer Care"), ("9", "Harbor & Pine")],
)
def test_the_brand_signs(brand: str, signature: str) -> None:
    sent = ticket(send(execute("reply"), ALL_ACT, fields={"brand_id": brand}))

    assert signature in sent["comment"]["body"]


@pytest.mark.parametrize(
    ("language", "signature"), [("en", "Kind regards"), ("de", "Freundliche Grüße"), ("nl", "Kind")]
)
def test_the_signature_is_in_the_customers_language_where_there_is_one(language: str, signature: str) -> None:
    case = revealed(created())

    sent = ticket(effects.requests(case, facts(), proposal(language=language), execute("reply"), ALL_ACT, POLICY))

    assert signature in sent["comment"]["body"]


def test_an_approval_sends_what_the_hold_carries() -> None:
    sent = ticket(send(Hold(reasons=(REASON,), actions=(Action(name="reply"),)), ALL_ACT))

    assert sent["comment"]["public"] is True


@pytest.mark.parametrize("decision", [Refuse(reasons=(REASON,)), Ignore(reasons=(REASON,)), Execute(actions=())])
def test_nothing_is_sent_where_nothing_was_decided(decision: Decision) -> None:
    assert send(decision, ALL_ACT) == ()


def test_nothing_is_sent_to_a_ticket_that_is_gone() -> None:
    gone = revealed(created(), change("soft_deleted", 60, author="staff"))

    assert effects.requests(gone, facts(), proposal(), execute("reply"), ALL_ACT, POLICY) == ()
    assert effects.handover(gone, proposal(), (REASON,), POLICY) == ()


def test_a_handover_tells_a_person_why_and_gives_the_draft() -> None:
    note, notice = effects.handover(revealed(created()), proposal(), (REASON,), POLICY)

    sent: Any = note.body["ticket"]
    assert (note.kind, note.semantics) == ("handover", "conditional")
    assert sent["comment"]["public"] is False
    assert REASON.text in sent["comment"]["body"]
    assert "tracking page" in sent["comment"]["body"]
    assert (sent["additional_tags"], sent["group_id"]) == (["nightshift_held"], 8001)
    assert (notice.kind, notice.connector, notice.semantics, notice.may_repeat) == ("notice", "slack", "blind", True)


def test_a_handover_without_a_proposal_still_tells_why() -> None:
    (note,) = effects.handover(revealed(created()), None, (Reason(code="no_proposal", text="No answer."),), POLICY)

    assert "No answer." in str(note.body)


@pytest.mark.parametrize(
    ("urgency", "code", "told"),
    [("high", "low_confidence", False), ("urgent", "low_confidence", True), ("low", "intent_surge", True)],
)
def test_a_notice_is_for_what_cannot_wait(urgency: str, code: str, *, told: bool) -> None:
    sent = effects.handover(
        revealed(created()), proposal(urgency=urgency), (Reason(code=code, text="Because."),), POLICY
    )

    assert ("notice" in [request.kind for request in sent]) is told


def test_a_notice_holds_no_word_that_people_wrote() -> None:
    case = revealed(created("my parcel was stolen by pirates"))

    notice = effects.handover(case, proposal(reply="Dear Ada"), (REASON,), POLICY)[1]

    assert notice.body == {"text": "Ticket 42 needs a person. The message speaks of lawyers."}


def test_status_and_tags_follow_the_policy() -> None:
    limits = policy(status_after_reply="solved", reply_tag="answered")
    sent = ticket(effects.requests(revealed(created()), facts(), proposal(), execute("reply"), ALL_ACT, limits))

    assert (sent["status"], sent["additional_tags"]) == ("solved", ["answered"])


def test_every_action_starts_in_watch_and_has_a_price() -> None:
    actions = load("support").settings.actions

    assert {*actions} == {"reply", "tag", "set_priority", "route", "refund", "escalate", "handover", "notice"}
    assert {action.mode for action in actions.values()} == {"watch"}
    assert all(action.cost_of_error_usd > 0 for action in actions.values())
