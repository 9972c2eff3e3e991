"""Names, what is kept of a delivery, and how a body is parsed."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID, uuid5

import pytest
from hypothesis import given, strategies as st

from connectors.protocol import RejectedDeliveryError
from contracts.sealed import UnsealableError, seal_bytes, unseal_bytes
from services.ingest.app import tracing
from services.ingest.config import secrets_of
from services.ingest.domain.delivery import (
    SENDER_ID_CHARS_MAX,
    delivery_id_of,
    event_id_of,
    no_case_id,
    proof_in,
    short,
)
from services.ingest.handlers.webhook import parse
from services.runtime.config import MissingSettingError
from services.runtime.process import Door, ProcessInvalidError

NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@given(identity=NAMES)
def test_an_id_is_the_uuid5_of_its_name(identity: str) -> None:
    expected = uuid5(UUID("6d1c7e52-7c1e-5f57-9f0e-0d0a3f2c9a41"), f"support:zendesk|{identity}")

    assert delivery_id_of("support", "zendesk", identity) == str(expected)


def test_a_delivery_and_a_change_of_one_name_are_two_things() -> None:
    assert delivery_id_of("support", "zendesk", "1") != event_id_of("support", "zendesk", "1")


def test_half_a_character_has_an_id_too() -> None:
    assert UUID(event_id_of("support", "zendesk", "\ud83d")).version == 5


def test_what_concerns_no_case_lies_under_the_key_of_its_day() -> None:
    late = datetime.fromisoformat("2026-11-26T00:30:00+01:00")
    assert no_case_id("support", "zendesk", late) == "support:zendesk:no-case-2026-11-25"


def test_only_the_headers_of_the_scheme_are_kept() -> None:
    headers = {"x-hub-signature-256": "sha256=00", "authorization": "secret", "x-signature": "other"}
    assert proof_in("github", headers) == {"x-hub-signature-256": "sha256=00"}
    assert proof_in("hmac", {"x-signature": "a\0b"}) == {}


@given(sender_id=st.text())
def test_a_stored_sender_id_is_short_and_printable(sender_id: str) -> None:
    kept = short(sender_id)
    assert len(kept) <= SENDER_ID_CHARS_MAX
    assert kept.isprintable()


@given(body=st.binary(max_size=200))
def test_parsing_any_bytes_gives_json_or_a_refusal(body: bytes) -> None:
    with suppress(RejectedDeliveryError):
        parse(body)


def test_no_json_is_400() -> None:
    with pytest.raises(RejectedDeliveryError) as refused:
        parse(b"{")
    assert (refused.value.status, refused.value.reason) == (400, "no_json")


def test_half_a_character_is_parsed() -> None:
    assert parse(b'{"a": "\\ud83d"}') == {"a": "\ud83d"}


@given(plain=st.binary(max_size=500))
def test_sealed_bytes_come_back_byte_for_byte_and_only_to_their_case(plain: bytes) -> None:
    key = bytes(range(32))
    box = seal_bytes(plain, key=key, key_version=3, case_id="support:zendesk:42")

    assert unseal_bytes(box, key=key, case_id="support:zendesk:42") == plain
    for wrong_key, wrong_case in ((bytes(32), "support:zendesk:42"), (key, "support:zendesk:43")):
        with pytest.raises(UnsealableError):
            unseal_bytes(box, key=wrong_key, case_id=wrong_case)


VALID = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
INVALID = (None, "", "00-" + "0" * 32 + "-" + "b" * 16 + "-01", VALID.upper(), VALID + "x", "ff" + VALID[2:], "é")


@pytest.mark.parametrize("exported", [False, True])
def test_a_valid_trace_goes_on_and_any_other_begins_anew(exported: bool) -> None:  # noqa: FBT001  # both ways
    trace = tracing(exported=exported)

    assert trace(VALID).split("-")[1] == "a" * 32
    fresh = [trace(header) for header in INVALID]
    assert len({one.split("-")[1] for one in fresh}) == len(INVALID)
    assert all(len(one) == len(VALID) for one in fresh)


def a_door(scheme: str, *names: str) -> Door:
    return Door.model_validate(
        {"connector": "none", "scheme": scheme, "secret_settings": names, "start_at": datetime(2026, 1, 1, tzinfo=UTC)}
    )


def test_the_first_secret_is_required_and_further_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    door = a_door("zendesk", "NIGHTSHIFT_TEST_SECRET", "NIGHTSHIFT_TEST_SECRET_NEXT")
    with pytest.raises(MissingSettingError):
        secrets_of(door)

    monkeypatch.setitem(os.environ, "NIGHTSHIFT_TEST_SECRET", "one")
    assert secrets_of(door) == ("one",)
    monkeypatch.setitem(os.environ, "NIGHTSHIFT_TEST_SECRET_NEXT", "two")
    assert secrets_of(door) == ("one", "two")


def test_a_signing_door_without_secrets_and_a_secret_that_is_none_are_refused_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ProcessInvalidError):
        secrets_of(a_door("github"))
    monkeypatch.setitem(os.environ, "NIGHTSHIFT_TEST_SECRET", "no base64!")
    with pytest.raises(ProcessInvalidError) as refused:
        secrets_of(a_door("standard-webhooks", "NIGHTSHIFT_TEST_SECRET"))
    assert "no base64!" not in str(refused.value)
    assert secrets_of(a_door("none")) == ()
