"""Tickets for the tests: changes as the zendesk connector gives them, and everything that a decision is made from."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.basis import version_of
from contracts.decision import Circumstances, FactAnswer, Facts
from contracts.events.cases import CaseChanged
from contracts.knowledge import Question
from contracts.sealed import SealedText, seal, unseal
from processes.support import case as cases
from processes.support.case import Case
from processes.support.policy import Policy
from processes.support.steps.answer.output import Proposal
from services.classifier.ports import Ask
from services.runtime.process import load

START = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
KEY = bytes(32)
CASE_ID = "support:zendesk:42"
POLICY: Policy = load("support").policy  # type: ignore[assignment]
REQUESTER = {"author_id": "501", "author_is_staff": False}
STAFF = {"author_id": "77", "author_is_staff": True}
OURS = {"author_id": "900001", "author_is_staff": True}
STATE = {"status": "new", "requester_id": "501", "brand_id": "7001", "channel": "email", "assignee_id": ""}
ASK = Ask(
    instructions="Answer.",
    data=lambda: '{"case": {}}',
    output=Proposal,
    question=Question(text="hello", brand=None, language="en"),
    facts={},
    passages=(),
    index_version="",
    tokens_out_max=1200,
)
"""A question to a model, as small as it can be."""


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def sealed(text: str) -> SealedText:
    return seal(text, key=KEY, key_version=1, case_id=CASE_ID)


def change(kind: str, seconds: float = 0, **more: Any) -> CaseChanged:
    """A change `seconds` after START; an identity of its own unless one is given."""
    more = {"author": "customer", "received_at": at(seconds + 1), **more}
    texts = {name: sealed(text) for name, text in more.pop("texts", {}).items()}
    told = {"updated_at": at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ"), **more.pop("fields", {})}
    identity = more.pop("identity", f"{kind}:{seconds}:{json.dumps(told, sort_keys=True)}")
    return CaseChanged.model_validate(
        {
            "door": "zendesk",
            "object_id": "42",
            "kind": kind,
            "identity": identity,
            "version": version_of(at(seconds)),
            "update_id": f"update-{seconds}",
            "occurred_at": at(seconds),
            "fields": told,
            "texts": texts,
            **more,
        }
    )


def created(body: str = "where is my order", seconds: float = 0, **more: Any) -> CaseChanged:
    stamp = at(seconds).isoformat()
    fields = {
        **STATE,
        "comment_id": "description",
        "comment_public": True,
        "comment_created_at": stamp,
        "created_at": stamp,
        **REQUESTER,
        **more.pop("fields", {}),
    }
    texts = {"subject": "A question", "body": body, **more.pop("texts", {})}
    return change("created", seconds, fields=fields, texts=texts, **more)


def comment(number: int, seconds: float, body: str | None = "and again", **more: Any) -> CaseChanged:
    """By the customer, unless `author` and `fields` say otherwise."""
    fields = {
        "comment_id": str(number),
        "comment_public": True,
        "comment_created_at": at(seconds).isoformat(),
        **REQUESTER,
        **more.pop("fields", {}),
    }
    texts = {} if body is None else {"body": body}
    return change("comment_added", seconds, fields=fields, texts=texts, **more)


def folded(*changes: CaseChanged) -> Case:
    return fold_all(changes)


def fold_all(changes: Iterable[CaseChanged]) -> Case:
    case: Case | None = None
    for one in changes:
        case = cases.fold(case, one)
    assert case is not None
    return case


def revealed(*changes: CaseChanged) -> Case:
    return cases.reveal(fold_all(changes), lambda text: unseal(text, key=KEY, case_id=CASE_ID))


def proposal(**more: Any) -> Proposal:
    """A good answer; the tests spoil one thing of it."""
    return Proposal.model_validate(
        {
            "intent": "track_order",
            "urgency": "normal",
            "language": "en",
            "sentiment": "neutral",
            "reply": "You can follow your order on the tracking page.",
            "citations": ["track-order"],
            "actions": [{"name": "reply"}],
            "confidence": 0.9,
            **more,
        }
    )


ORDER = {
    "order_number": "100200300",
    "status": "shipped",
    "placed_on": "2026-11-20",
    "shipped_on": "2026-11-22",
    "delivery_due": "2026-11-27",
    "carrier": "DHL",
    "tracking": "JD0146000100200",
    "total": "80.00",
    "currency": "EUR",
}
INVOICE = {
    "invoice_number": "INV-1",
    "order_number": "100200300",
    "total": "80.00",
    "paid": True,
    "issued_on": "2026-11-20",
    "refunded": "0",
}
PASSAGE = {
    "id": "track-order",
    "title": "Tracking",
    "text": "Shipping is 4.90 EUR. See https://harborpine.example/track.",
}


def facts(**more: Any) -> Facts:
    """What the shop answers and which passages were shown; a list gives rows, none a fact that could not be read."""
    rows: dict[str, Any] = {
        "customer": [{"name": "Ada Meer", "since": "2024-02-01"}],
        "orders": [ORDER],
        "invoices": [INVOICE],
        "tickets": [],
        "knowledge": [PASSAGE],
        **more,
    }
    return {
        name: FactAnswer(name=name, ok=False, error="unavailable")
        if found is None
        else FactAnswer(name=name, ok=True, rows=tuple(found))
        for name, found in rows.items()
    }


def policy(**more: Any) -> Policy:
    """The shipped policy with single limits changed."""
    return Policy.model_validate({**POLICY.model_dump(), **more})


def circumstances(**more: Any) -> Circumstances:
    return Circumstances.model_validate(more)
