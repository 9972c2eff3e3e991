"""Software asks for small refunds that the books bear out; everything else goes to a person."""

from typing import Any

import pytest

from contracts.decision import Decision, Execute, Hold, verdict_of
from processes.support import rules
from tests.unit.support.tickets import (
    INVOICE,
    ORDER,
    POLICY,
    at,
    circumstances,
    created,
    facts,
    proposal,
    revealed,
)


def decide(*amounts: float, order: str = "100200300", confidence: float = 0.9, **read: Any) -> Decision:
    actions = [{"name": "reply"}, *({"name": "refund", "order_id": order, "amount": amount} for amount in amounts)]
    suggested = proposal(intent="get_refund", actions=actions, confidence=confidence)
    return rules.decide(revealed(created()), facts(**read), suggested, POLICY, at(120), circumstances())


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


def refunds(decision: Decision) -> list[str]:
    assert isinstance(decision, Execute | Hold)
    return [str(action.params["amount"]) for action in decision.actions if action.name == "refund"]


@pytest.mark.parametrize(("amount", "found"), [(50, []), (50.01, ["refund_over_limit"])])
def test_a_refund_up_to_the_limit_goes_to_billing(amount: float, found: list[str]) -> None:
    decision = decide(amount)

    assert codes(decision) == found
    assert refunds(decision) == [f"{amount:.2f}"]


@pytest.mark.parametrize(("second", "found"), [(25, []), (25.01, ["refund_over_limit"])])
def test_refunds_of_one_decision_count_together(second: float, found: list[str]) -> None:
    assert codes(decide(25, second)) == found


@pytest.mark.parametrize(("before", "found"), [("30", []), ("30.01", ["refund_order_over_limit"])])
def test_earlier_refunds_of_the_order_count(before: str, found: list[str]) -> None:
    assert codes(decide(20, invoices=[{**INVOICE, "refunded": before}])) == found


@pytest.mark.parametrize(("total", "found"), [("40", []), ("39.99", ["refund_above_invoice"])])
def test_no_refund_exceeds_the_invoice_even_with_approval(total: str, found: list[str]) -> None:
    decision = decide(40, invoices=[{**INVOICE, "total": total}])

    assert codes(decision) == found
    assert refunds(decision) == ([] if found else ["40.00"])


def test_what_was_never_paid_is_not_refunded() -> None:
    decision = decide(10, invoices=[{**INVOICE, "paid": False}])

    assert codes(decision) == ["refund_above_invoice"]


def test_invoices_read_twice_count_once() -> None:
    decision = decide(45, invoices=[{**INVOICE, "total": "40"}], invoices_1=[{**INVOICE, "total": "40"}])

    assert codes(decision) == ["refund_above_invoice"]


def test_an_invoice_of_another_order_pays_for_nothing() -> None:
    decision = decide(10, invoices=[{**INVOICE, "order_number": "1"}])

    assert codes(decision) == ["refund_above_invoice"]


def test_a_refund_for_an_order_of_somebody_else_is_not_carried() -> None:
    decision = decide(10, order="555000")

    assert codes(decision) == ["refund_order_unknown"]
    assert refunds(decision) == []


@pytest.mark.parametrize(("currency", "found"), [("USD", []), ("JPY", ["refund_currency"])])
def test_only_listed_currencies_are_refunded_without_a_person(currency: str, found: list[str]) -> None:
    assert codes(decide(10, orders=[{**ORDER, "currency": currency}])) == found


@pytest.mark.parametrize(("confidence", "found"), [(0.9, []), (0.899, ["low_confidence", "refund_low_confidence"])])
def test_a_refund_below_its_own_least_confidence_says_so_beside_the_answers(
    confidence: float, found: list[str]
) -> None:
    assert codes(decide(10, confidence=confidence)) == found


def test_the_reply_may_name_the_amount_that_the_books_bear_out() -> None:
    actions = [{"name": "reply"}, {"name": "refund", "order_id": "100200300", "amount": 12.5}]

    def verdict(reply: str) -> str:
        suggested = proposal(intent="get_refund", actions=actions, reply=reply)
        return verdict_of(rules.decide(revealed(created()), facts(), suggested, POLICY, at(120), circumstances()))

    assert verdict("We have asked billing for 12.50 EUR.") == "execute"
    assert verdict("We have asked billing for 13 EUR.") == "hold"
