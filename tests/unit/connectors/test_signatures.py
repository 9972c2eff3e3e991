"""Deliveries are taken when they were signed by who holds the secret, and otherwise refused with a reason."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import orjson
import pytest
import standardwebhooks
import svix
from hypothesis import given, settings, strategies as st

from connectors.protocol import RejectedDeliveryError
from connectors.signatures import Reason, Scheme, key_of, verify

DATA = Path(__file__).parents[2] / "data" / "webhooks"
NOW = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)
NOW_SECONDS = str(int(NOW.timestamp()))
FOREVER_SECONDS = 1e12
HOUR_SECONDS = 3600.0
BODY = b'{"a": 1}'
SECRET = "s3cret"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNING: list[Scheme] = ["zendesk", "github", "slack", "stripe", "standard-webhooks", "hmac"]
TIMED: list[Scheme] = ["zendesk", "slack", "stripe", "standard-webhooks"]

HOSTILE = st.one_of(
    st.text(st.characters(), max_size=80),
    st.sampled_from(
        [
            "\0",
            "é",
            "\ud800",
            "9" * 5000,
            "v1," * 3000,
            "t=",
            "v0=",
            "sha256=",
            "v1,",
            "²",
            "t=1,v1=é",
            "0" * 64,
            "A" * 43 + "=",
        ]
    ),
)


def _mac(secret: str, message: bytes) -> bytes:
    return hmac.new(secret.encode(), message, hashlib.sha256).digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def signed(scheme: Scheme, body: bytes = BODY, *, secret: str = SECRET, at: str = NOW_SECONDS) -> dict[str, str]:
    """The headers that an honest sender sets, written down from each scheme's documentation."""
    match scheme:
        case "zendesk":
            signature = _base64(_mac(secret, at.encode() + body))
            return {"x-zendesk-webhook-signature": signature, "x-zendesk-webhook-signature-timestamp": at}
        case "github":
            return {"x-hub-signature-256": "sha256=" + _mac(secret, body).hex()}
        case "slack":
            signature = "v0=" + _mac(secret, f"v0:{at}:".encode() + body).hex()
            return {"x-slack-signature": signature, "x-slack-request-timestamp": at}
        case "stripe":
            return {"stripe-signature": f"t={at},v1={_mac(secret, f'{at}.'.encode() + body).hex()}"}
        case "standard-webhooks":
            signature = _base64(hmac.digest(secret.encode(), f"msg_1.{at}.".encode() + body, "sha256"))
            return {"webhook-id": "msg_1", "webhook-timestamp": at, "webhook-signature": f"v1,{signature}"}
        case "hmac":
            return {"x-signature": _mac(secret, body).hex()}
        case "none":
            return {}


def known_as(scheme: Scheme, secret: str = SECRET) -> str:
    """The secret as it stands in a setting."""
    return "whsec_" + _base64(secret.encode()) if scheme == "standard-webhooks" else secret


def check(
    scheme: Scheme,
    headers: dict[str, str],
    body: bytes = BODY,
    *,
    secrets: list[str] | None = None,
    tolerance_seconds: float = HOUR_SECONDS,
    now: datetime = NOW,
) -> None:
    secrets = [known_as(scheme)] if secrets is None else secrets
    verify(scheme, headers=headers, body=body, secrets=secrets, tolerance_seconds=tolerance_seconds, now=now)


def reason_of(*args: object, **kwargs: object) -> str:
    with pytest.raises(RejectedDeliveryError) as rejected:
        check(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
    assert rejected.value.status == 401
    assert rejected.value.mend
    return rejected.value.reason


def outcome_of(scheme: Scheme, headers: dict[str, str], body: bytes) -> str:
    try:
        check(scheme, headers, body)
    except RejectedDeliveryError as rejected:
        return rejected.reason
    return "taken"


@pytest.mark.parametrize("folder", ["zendesk", "github", "slack", "standard-webhooks"])
def test_public_vectors_verify(folder: Scheme) -> None:
    vectors = orjson.loads((DATA / folder / "vectors.json").read_bytes())
    assert vectors
    for vector in vectors:
        body = vector["body"].encode() if "body" in vector else (DATA / folder / vector["body_file"]).read_bytes()
        at = vector.get("timestamp", "")
        headers = {
            "zendesk": {
                "x-zendesk-webhook-signature": vector["signature"],
                "x-zendesk-webhook-signature-timestamp": at,
            },
            "github": {"x-hub-signature-256": vector["signature"]},
            "slack": {"x-slack-signature": vector["signature"], "x-slack-request-timestamp": at},
            "standard-webhooks": {
                "webhook-id": vector.get("id", ""),
                "webhook-timestamp": at,
                "webhook-signature": vector["signature"],
            },
        }[folder]

        check(folder, headers, body, secrets=[vector["secret"]], tolerance_seconds=FOREVER_SECONDS)
        assert reason_of(
            folder, headers, body + b" ", secrets=[vector["secret"]], tolerance_seconds=FOREVER_SECONDS
        ) == ("bad_signature")


def test_the_official_clients_signatures_verify() -> None:
    body = BODY.decode()
    ours = standardwebhooks.Webhook(STANDARD_SECRET).sign("msg_1", NOW, body)
    theirs = svix.Webhook(STANDARD_SECRET).sign("msg_2", NOW, body)

    check(
        "standard-webhooks",
        {"webhook-id": "msg_1", "webhook-timestamp": NOW_SECONDS, "webhook-signature": ours},
        secrets=[STANDARD_SECRET],
    )
    check(
        "standard-webhooks",
        {"svix-id": "msg_2", "svix-timestamp": NOW_SECONDS, "svix-signature": theirs},
        secrets=[STANDARD_SECRET],
    )


@pytest.mark.parametrize("scheme", SIGNING)
class TestEveryScheme:
    def test_an_honest_delivery_is_taken(self, scheme: Scheme) -> None:
        check(scheme, signed(scheme))
        check(scheme, signed(scheme, b""), b"")

    def test_another_secret_is_refused(self, scheme: Scheme) -> None:
        assert reason_of(scheme, signed(scheme, secret="other")) == "bad_signature"

    def test_an_altered_body_is_refused(self, scheme: Scheme) -> None:
        assert reason_of(scheme, signed(scheme), BODY + b"\n") == "bad_signature"

    @pytest.mark.parametrize("place", [0, 1])
    def test_either_of_two_secrets_is_good_while_one_is_rotated(self, scheme: Scheme, place: int) -> None:
        secrets = [known_as(scheme, "other"), known_as(scheme, "other")]
        secrets[place] = known_as(scheme)

        check(scheme, signed(scheme), secrets=secrets)

    def test_no_signature_is_refused(self, scheme: Scheme) -> None:
        assert reason_of(scheme, {}) == "missing_signature"

    def test_without_a_secret_nothing_is_taken(self, scheme: Scheme) -> None:
        assert reason_of(scheme, signed(scheme, secret=""), secrets=[]) == "no_secret"

    def test_an_empty_secret_is_our_own_mistake(self, scheme: Scheme) -> None:
        with pytest.raises(ValueError, match="empty"):
            key_of(scheme, "")
        with pytest.raises(ValueError, match="empty"):
            check(scheme, signed(scheme, secret=""), secrets=[""])

    @settings(derandomize=True, deadline=None)
    @given(data=st.data(), body=st.binary(max_size=200), hostile=HOSTILE)
    def test_hostile_headers_raise_nothing_but_a_rejection(
        self, scheme: Scheme, data: st.DataObject, body: bytes, hostile: str
    ) -> None:
        headers = signed(scheme, body)
        name = data.draw(st.sampled_from(sorted(headers)))
        headers[name] = hostile + headers[name] if data.draw(st.booleans()) else hostile

        assert outcome_of(scheme, headers, body) in {"taken", *get_args(Reason)}

    @settings(derandomize=True, deadline=None)
    @given(body=st.binary(max_size=200), hostile=HOSTILE)
    def test_no_text_passes_for_a_signature(self, scheme: Scheme, body: bytes, hostile: str) -> None:
        headers = signed(scheme, body)
        name = next(name for name in headers if "signature" in name and "timestamp" not in name)

        assert outcome_of(scheme, headers | {name: hostile}, body) != "taken"


@pytest.mark.parametrize("scheme", TIMED)
class TestSchemesWithATime:
    @pytest.mark.parametrize("off_seconds", [-HOUR_SECONDS, HOUR_SECONDS])
    def test_at_the_tolerance_it_is_taken(self, scheme: Scheme, off_seconds: float) -> None:
        check(scheme, signed(scheme), now=NOW + timedelta(seconds=off_seconds))

    @pytest.mark.parametrize(("off_seconds", "reason"), [(HOUR_SECONDS + 1, "stale"), (-HOUR_SECONDS - 1, "future")])
    def test_beyond_the_tolerance_it_is_refused(self, scheme: Scheme, off_seconds: float, reason: str) -> None:
        assert reason_of(scheme, signed(scheme), now=NOW + timedelta(seconds=off_seconds)) == reason

    @pytest.mark.parametrize("written", ["2026-11-25T06:00:00Z", "2026-11-25T07:00:00.000+01:00", NOW_SECONDS])
    def test_a_time_in_either_form_is_read(self, scheme: Scheme, written: str) -> None:
        check(scheme, signed(scheme, at=written), tolerance_seconds=0)

    @pytest.mark.parametrize("written", ["soon", "2026-11-25T06:00:00", "٣", "9" * 13, "-1", "1e3", " 1", "1" * 5000])
    def test_another_time_is_malformed(self, scheme: Scheme, written: str) -> None:
        assert reason_of(scheme, signed(scheme, at=written)) in {"malformed_timestamp", "malformed_signature"}

    def test_a_forger_is_not_told_that_he_is_late(self, scheme: Scheme) -> None:
        assert reason_of(scheme, signed(scheme, secret="other", at="1")) == "bad_signature"

    def test_the_time_is_signed_too(self, scheme: Scheme) -> None:
        stolen, fresh = signed(scheme, at="1"), signed(scheme)
        name = next((name for name in fresh if "timestamp" in name), None)
        if name is None:
            stolen = {"stripe-signature": stolen["stripe-signature"].replace("t=1,", f"t={NOW_SECONDS},")}
        else:
            stolen[name] = fresh[name]

        assert reason_of(scheme, stolen) == "bad_signature"


@pytest.mark.parametrize("scheme", TIMED)
def test_a_signature_without_its_time_is_refused(scheme: Scheme) -> None:
    headers = {name: value for name, value in signed(scheme).items() if "timestamp" not in name}
    if scheme == "stripe":
        headers = {"stripe-signature": headers["stripe-signature"].partition(",")[2]}

    assert reason_of(scheme, headers) == "missing_timestamp"


def test_stripe_may_send_several_signatures() -> None:
    good = signed("stripe")["stripe-signature"]
    time, _, signature = good.partition(",")

    check("stripe", {"stripe-signature": f"{time},v1={'0' * 64},{signature},v0=old"})
    assert reason_of("stripe", {"stripe-signature": f"{time},v0={signature[3:]}"}) == "malformed_signature"
    assert reason_of("stripe", {"stripe-signature": f"{good},t=1"}) == "malformed_signature"


def test_standard_webhooks_may_send_several_signatures() -> None:
    headers = signed("standard-webhooks")
    good = headers["webhook-signature"]

    check("standard-webhooks", headers | {"webhook-signature": f"v1a,asymmetric v1,AAAA {good}"})
    assert reason_of("standard-webhooks", headers | {"webhook-signature": f"v2,{good[3:]}"}) == "malformed_signature"
    assert reason_of("standard-webhooks", headers | {"webhook-signature": f"{good} " * 17}) == "malformed_signature"
    assert reason_of("standard-webhooks", headers | {"webhook-id": "msg_2"}) == "bad_signature"
    assert reason_of("standard-webhooks", headers | {"webhook-id": ""}) == "malformed_signature"


def test_a_plain_hmac_is_hex_or_base64() -> None:
    digest = _mac(SECRET, BODY)

    for written in (digest.hex(), digest.hex().upper(), _base64(digest)):
        check("hmac", {"x-signature": written})
        check("hmac", {"x-signature": f"sha256={written}"})


def test_a_standard_secret_must_be_base64() -> None:
    with pytest.raises(ValueError, match="base64") as refused:
        key_of("standard-webhooks", "whsec_not base64!")

    assert "not base64!" not in str(refused.value)


def test_none_takes_everything() -> None:
    check("none", {}, secrets=[])
