"""A flat JSON body is one submission, and what people wrote in it is kept as text to be sealed."""

from datetime import UTC, datetime

import orjson
import pytest

from connectors.form import Form
from connectors.protocol import PlainChange
from contracts.failures import PermanentError

NOW = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)


def change_in(payload: object, form: Form | None = None) -> PlainChange:
    (change,) = (form or Form()).receive(payload, orjson.dumps(payload), NOW)
    return change


def test_a_submission_opens_a_case() -> None:
    change = change_in({"id": "2026-42", "message": "Where is my order?", "items": 2, "newsletter": False})

    assert change.opens
    assert (change.object_id, change.identity, change.author) == ("2026-42", "2026-42", "customer")
    assert change.texts == {"id": "2026-42", "message": "Where is my order?"}
    assert change.fields == {"items": 2, "newsletter": False}


@pytest.mark.parametrize("identity", [None, ""])
def test_without_an_id_equal_bodies_are_one_submission(identity: str | None) -> None:
    one = change_in({"id": identity, "message": "help"})
    same = change_in({"id": identity, "message": "help"})
    other = change_in({"id": identity, "message": "help!"})

    assert one.identity == same.identity != other.identity


def test_the_identity_may_be_another_field() -> None:
    assert change_in({"submission": 7, "id": "x"}, Form(identity_field="submission")).identity == "7"


def test_named_fields_are_kept_plain() -> None:
    change = change_in({"shop": "ber\0lin", "name": "Pat"}, Form(plain_fields=frozenset({"shop"})))

    assert change.fields == {"shop": "berlin"}
    assert change.texts == {"name": "Pat"}


@pytest.mark.parametrize("card", ["4111 1111 1111 1111", 4111111111111111, ["4111111111111111"]])
def test_card_numbers_are_masked_in_every_form(card: object) -> None:
    change = change_in({"card": card})

    assert change.texts == {"card": "[card ending 1111]"}
    assert change.fields == {}


@pytest.mark.parametrize(
    "payload",
    [
        ["a"],
        "a",
        None,
        {"nested": {"a": 1}},
        {"list": [1, 2]},
        {"id": True},
        {"id": ["a"]},
        {"id": "a\0b"},
        {"id": "x" * 201},
        {"na\0me": 1},
        {"n" * 101: 1},
        {str(n): n for n in range(101)},
    ],
)
def test_what_is_not_flat_is_refused(payload: object) -> None:
    with pytest.raises(PermanentError) as refused:
        change_in(payload)

    assert refused.value.code == "unreadable_body"


@pytest.mark.parametrize("payload", [{str(n): n for n in range(100)}, {"n" * 100: 1}, {"id": "x" * 200}, {}])
def test_up_to_the_limits_it_is_taken(payload: object) -> None:
    assert change_in(payload).opens


def test_a_delivery_is_known_by_the_senders_id_else_by_its_bytes() -> None:
    form = Form()

    assert form.delivery_id({"webhook-id": "m1"}, b"a") == "m1"
    assert form.delivery_id({"idempotency-key": "k1"}, b"a") == "k1"
    assert form.delivery_id({}, b"a") == form.delivery_id({}, b"a") != form.delivery_id({}, b"b")
