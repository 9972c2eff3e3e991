"""The answer of the provider `nearest`: from a label, facts and passages to a proposal.

Pure, and free of guesses: what is not in the facts or in a passage is not said.
Urgency and sentiment follow words (signs.py).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final, cast

from contracts.base import Json
from contracts.decision import Facts
from contracts.knowledge import ANY_BRAND, Passage, Question
from processes.support import facts as books, text
from processes.support.steps.answer import signs
from processes.support.steps.answer.output import (
    REFUND_MAX,
    DeleteAccount,
    Escalate,
    Intent,
    Priority,
    Proposal,
    Refund,
    Reply,
    Route,
    SetPriority,
    Suggestion,
    Tag,
    Urgency,
)

OUT_OF_SCOPE: Final = "out_of_scope"
BOOKS_MAX: Final = 10**15
"""What an invoice holds is less: more is a slip, or infinite."""
_TAGS: Final[Mapping[str, str]] = {
    "cancel_order": "cancellation",
    "change_order": "order",
    "change_shipping_address": "shipping",
    "check_cancellation_fee": "cancellation",
    "check_invoice": "invoice",
    "check_payment_methods": "payment",
    "check_refund_policy": "refund",
    "complaint": "feedback",
    "contact_customer_service": "contact",
    "contact_human_agent": "contact",
    "create_account": "account",
    "delete_account": "account",
    "delivery_options": "delivery",
    "delivery_period": "delivery",
    "edit_account": "account",
    "get_invoice": "invoice",
    "get_refund": "refund",
    "newsletter_subscription": "newsletter",
    "payment_issue": "payment",
    "place_order": "order",
    "recover_password": "account",
    "registration_problems": "account",
    "review": "feedback",
    "set_up_shipping_address": "shipping",
    "switch_account": "account",
    "track_order": "delivery",
    "track_refund": "refund",
}
_GROUPS: Final[Mapping[str, str]] = {
    "complaint": "support",
    "contact_human_agent": "support",
    "delete_account": "accounts",
    "payment_issue": "billing",
}
"""Where people have something to do after the reply."""
_PRIORITIES: Final[Mapping[str, Priority]] = {"low": "low", "high": "high", "urgent": "high"}
_GREETINGS: Final[Mapping[str, tuple[str, str]]] = {
    "en": ("Hello {},", "Hello,"),
    "de": ("Guten Tag {},", "Guten Tag,"),
    "fr": ("Bonjour {},", "Bonjour,"),
    "es": ("Hola {}:", "Hola:"),
}
_NAME = re.compile(r"[^\W\d_]+(?:[ '\u2019-][^\W\d_]+){0,4}")
_BLANK = re.compile(r"\{\{(\w+)\}\}")
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def propose(
    *, label: str, confidence: float, familiar: bool, question: Question, facts: Facts, passages: Sequence[Passage]
) -> Proposal:
    """Suggest an answer. Without a passage that can be filled there is no draft, and a person is asked."""
    intent = cast("Intent", label if familiar and label in {*_TAGS, OUT_OF_SCOPE} else OUT_OF_SCOPE)
    order = _order_of(question, facts)
    refund = _refund(question, order, facts) if intent == "get_refund" else None
    values = _values(order, facts, refund)
    state = str(order["status"]) if order is not None else None
    passage = _passage(intent, state, question, passages, values)
    body = "" if passage is None else _BLANK.sub(lambda blank: values[blank[1]], passage.reply)
    urgency = signs.urgency(question.text)
    return Proposal(
        intent=intent,
        urgency=urgency,
        language=question.language,
        sentiment=signs.sentiment(question.text),
        reply=f"{_greeting(question.language, facts)}\n\n{body}" if body else "",
        citations=() if passage is None else (passage.id,),
        actions=_actions(
            intent, urgency, passage, refund, asks_too_much=_asks_too_much(intent, question, order, facts)
        ),
        confidence=confidence,
    )


def _passage(
    intent: str, state: str | None, question: Question, passages: Sequence[Passage], values: Mapping[str, str]
) -> Passage | None:
    """Of those that fit and can be filled: the brand's own first, then the fullest, then the one for the state."""
    fitting = [
        passage
        for passage in passages
        if intent in passage.intents
        and passage.language == question.language
        and passage.brand in (ANY_BRAND, question.brand)
        and (not passage.when or state in passage.when)
        and passage.reply
        and {*_BLANK.findall(passage.reply)} <= {*values}
    ]
    return min(fitting, key=_order_of_choice, default=None)


def _order_of_choice(passage: Passage) -> tuple[bool, int, bool, str]:
    blanks = len({*_BLANK.findall(passage.reply)})
    return passage.brand == ANY_BRAND, -blanks, not passage.when, passage.id


def _order_of(question: Question, facts: Facts) -> Json | None:
    """The order that is meant: the one the customer names and has, or the only one there is."""
    orders, named = books.orders(facts), text.order_numbers(question.text)
    if named:
        return orders.get(named[0]) if len(named) == 1 else None
    return next(iter(orders.values())) if len(orders) == 1 else None


def _values(order: Json | None, facts: Facts, refund: Refund | None) -> dict[str, str]:
    """What blanks may be filled with; what is empty in the books is not here."""
    if order is None:
        return {}
    currency = str(order["currency"])
    found: dict[str, object] = {
        name: _day(order[name]) for name in ("placed_on", "shipped_on", "delivery_due") if order.get(name)
    }
    found |= {name: order.get(name) for name in ("order_number", "carrier", "tracking")}
    invoices = books.invoices(facts, str(order["order_number"]))
    if len(invoices) == 1:
        invoice = invoices[0]
        found["invoice_number"] = invoice["invoice_number"]
        found["invoice_issued_on"] = _day(invoice["issued_on"])
        for name, column in (("invoice_total", "total"), ("refunded_amount", "refunded")):
            if (amount := _money(invoice[column])) is not None and amount > 0:
                found[name] = f"{amount:.2f} {currency}"
    if refund is not None:
        found["refund_amount"] = f"{Decimal(str(refund.amount)):.2f} {currency}"
    return {name: str(value) for name, value in found.items() if value}


def _refund(question: Question, order: Json | None, facts: Facts) -> Refund | None:
    """For a delivered order: what the customer names, else all that its paid invoices still hold; never more."""
    held = _refundable(order, facts)
    if order is None or held <= 0:
        return None
    asked = [amount for amount in text.amounts(question.text) if amount > 0]
    amount = round(asked[0] if len(asked) == 1 else held, 2)
    if len(asked) > 1 or not 0 < amount <= held or amount > REFUND_MAX:
        return None
    return Refund(order_id=str(order["order_number"]), amount=float(amount))


def _refundable(order: Json | None, facts: Facts) -> Decimal:
    if order is None or order["status"] != "delivered":
        return Decimal(0)
    held = Decimal(0)
    for invoice in books.invoices(facts, str(order["order_number"])):
        total, refunded = _money(invoice["total"]), _money(invoice["refunded"])
        if total is None or refunded is None:
            return Decimal(0)
        held += (total if invoice["paid"] is True else 0) - refunded
    return held


def _asks_too_much(intent: str, question: Question, order: Json | None, facts: Facts) -> bool:
    """More money back than the books hold: a person should look, whatever else is suggested."""
    if intent != "get_refund" or order is None:
        return False
    return max(text.amounts(question.text), default=Decimal(0)) > _refundable(order, facts)


def _actions(
    intent: Intent, urgency: Urgency, passage: Passage | None, refund: Refund | None, *, asks_too_much: bool
) -> tuple[Suggestion, ...]:
    actions: list[Suggestion] = [] if passage is None else [Reply()]
    if intent in _TAGS:
        actions.append(Tag(tag=_TAGS[intent]))
    if urgency in _PRIORITIES:
        actions.append(SetPriority(priority=_PRIORITIES[urgency]))
    if intent in _GROUPS:
        actions.append(Route(group=_GROUPS[intent]))
    if refund is not None:
        actions += [Route(group="billing"), refund]
    if intent == "delete_account":
        actions.append(DeleteAccount())
    if passage is None or asks_too_much:
        actions.append(Escalate())
    return tuple(actions)


def _greeting(language: str, facts: Facts) -> str:
    """With the customer's name where the books have one that looks like a name."""
    named, plain = _GREETINGS.get(language, _GREETINGS["en"])
    rows = facts["customer"].rows if "customer" in facts else ()
    name = str(rows[0].get("name") or "").strip() if len(rows) == 1 else ""
    return named.format(name) if _NAME.fullmatch(name) and len(name) <= 60 else plain  # noqa: PLR2004  # longer is no name


def _day(value: object) -> str:
    """`2026-11-05` as 5 November 2026, which reads alike everywhere."""
    try:
        day = date.fromisoformat(str(value)[:10])
    except ValueError:
        return ""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def _money(value: object) -> Decimal | None:
    """Zero where the books are empty; none where they hold no amount, or Postgres' NaN: nothing is refunded then."""
    try:
        amount = Decimal(0 if value is None else str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and abs(amount) < BOOKS_MAX else None
