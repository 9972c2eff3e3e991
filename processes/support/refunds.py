"""Refunds that the model suggests, against what the shop's books say. Software only ever asks the billing group."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

from contracts.base import Json
from contracts.decision import Action, Facts, Reason
from processes.support import facts as books
from processes.support.policy import Refunds
from processes.support.steps.answer.output import Proposal, Refund


def check(proposal: Proposal, facts: Facts, policy: Refunds) -> tuple[Sequence[Reason], Sequence[Action]]:
    """Why a person must look at the refunds, and those that an approval may carry: never more than the invoices say."""
    suggested = [action for action in proposal.actions if isinstance(action, Refund)]
    if not suggested:
        return (), ()
    reasons: list[Reason] = []
    carried: list[Action] = []
    orders = books.orders(facts)
    by_order: dict[str, Decimal] = defaultdict(Decimal)
    for refund in suggested:
        by_order[refund.order_id] += Decimal(str(refund.amount))
    decided: dict[str, Decimal] = defaultdict(Decimal)
    for number, amount in by_order.items():
        if (order := orders.get(number)) is None:
            reasons.append(_unknown_order())
            continue
        currency = str(order["currency"])
        decided[currency] += amount
        found = _of_order(amount, currency, books.invoices(facts, number), policy)
        reasons += found
        if not any(reason.code == "refund_above_invoice" for reason in found):
            carried.append(
                Action(name="refund", params={"order_id": number, "amount": f"{amount:.2f}", "currency": currency})
            )
    for currency, total in decided.items():
        limit = policy.limit_by_currency.get(currency)
        if limit is not None and total > limit:
            sentence = f"The refund of {total:.2f} {currency} is above the limit of {limit:.2f} {currency}."
            reasons.append(Reason(code="refund_over_limit", text=sentence))
    has, needs = proposal.confidence, policy.confidence_min
    if has < needs:
        sentence = f"The suggestion has a confidence of {has:.0%}; a refund needs {needs:.0%}."
        reasons.append(Reason(code="refund_low_confidence", text=sentence))
    return reasons, carried


def _of_order(amount: Decimal, currency: str, invoices: Sequence[Json], policy: Refunds) -> list[Reason]:
    refunded = sum((_money(row["refunded"]) for row in invoices), Decimal())
    left = sum((_money(row["total"]) for row in invoices if row["paid"] is True), Decimal()) - refunded
    limit = policy.limit_by_currency.get(currency)
    reasons = []
    if amount > left:
        sentence = f"The refund of {amount:.2f} {currency} is more than the invoices still hold: {left:.2f} {currency}."
        reasons.append(Reason(code="refund_above_invoice", text=sentence))
    if limit is None:
        reasons.append(Reason(code="refund_currency", text="Refunds in the currency of this order go to a person."))
    elif refunded > 0 and amount + refunded > limit:
        sentence = f"This order was refunded before: in all {amount + refunded:.2f} {currency}, above {limit:.2f}."
        reasons.append(Reason(code="refund_order_over_limit", text=sentence))
    return reasons


def _unknown_order() -> Reason:
    return Reason(
        code="refund_order_unknown", text="A refund was suggested for an order that this customer does not have."
    )


def _money(value: object) -> Decimal:
    """Zero where the books are empty. Raises decimal.InvalidOperation for what is no number: the engine holds."""
    return Decimal(str(value)) if value is not None else Decimal()
