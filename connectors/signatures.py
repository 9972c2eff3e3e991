"""Whether a delivery was signed by who holds the secret. On the path of every webhook: one HMAC for each secret tried.

| scheme | headers | what is signed |
|---|---|---|
| zendesk | x-zendesk-webhook-signature, …-timestamp | timestamp + body, base64 |
| github | x-hub-signature-256 | body, `sha256=` + hex |
| slack | x-slack-signature, x-slack-request-timestamp | `v0:` timestamp `:` body, `v0=` + hex |
| stripe | stripe-signature `t=…,v1=…` (several v1 while Stripe rotates) | t `.` body, hex |
| standard-webhooks | webhook-id, -timestamp, -signature (or svix-…) | id `.` timestamp `.` body, `v1,` + base64 |
| hmac | x-signature | body, hex or base64, with or without `sha256=` |
| none | | nothing: process.toml says so in writing |
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple

from connectors.protocol import RejectedDeliveryError

Scheme = Literal["zendesk", "github", "slack", "stripe", "standard-webhooks", "hmac", "none"]
Reason = Literal[
    "missing_signature",
    "malformed_signature",
    "bad_signature",
    "missing_timestamp",
    "malformed_timestamp",
    "stale",
    "future",
    "no_secret",
]
"""Every reason that `verify` gives; fit for a metric label."""

SIGNATURE_CHARS_MAX = 4096
TIMESTAMP_CHARS_MAX = 64
ID_CHARS_MAX = 256
CANDIDATES_MAX = 16
"""Signatures in one header; a rotation needs two."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX_SECONDS = re.compile(r"[0-9]{1,12}")
_HEX = re.compile(rb"[0-9A-Fa-f]{64}")
_STANDARD_PREFIX = "whsec_"


class _Signed(NamedTuple):
    """What a delivery claims: its signatures, the bytes before the body that they cover, and when it was signed."""

    candidates: Sequence[bytes]
    encoding: Literal["hex", "base64", "either"]
    prefix: bytes = b""
    signed_at_seconds: float | None = None


def verify(
    scheme: Scheme,
    *,
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[str],
    tolerance_seconds: float,
    now: datetime,
) -> None:
    """Return if `body` was signed under one of `secrets`, no further than `tolerance_seconds` from `now`.

    Header names are lower case; header values may be anything. Raises RejectedDeliveryError (401) with a `Reason`.
    `github` and `hmac` sign no time: there deduplication alone stops replays. Raises ValueError for a secret that
    `key_of` refuses: check the secrets at start.
    """
    if scheme == "none":
        return
    signed = _read(scheme, headers)
    if not secrets:
        raise _rejected("no_secret", "set the secret that the sender signs with")
    message = signed.prefix + body if signed.prefix else body
    for secret in secrets:
        if _matches(signed, hmac.digest(key_of(scheme, secret), message, "sha256")):
            break
    else:
        raise _rejected("bad_signature", "sign the raw bytes of the body with the secret that is set here")
    if signed.signed_at_seconds is not None:
        _check_age(signed.signed_at_seconds, (now - _EPOCH).total_seconds(), tolerance_seconds)


def key_of(scheme: Scheme, secret: str) -> bytes:
    """The bytes of a secret. Raises ValueError, which never holds the secret, for one that cannot protect anything."""
    if scheme != "standard-webhooks":
        key = secret.encode(errors="surrogateescape")  # the bytes that the environment held
    else:
        try:
            key = base64.b64decode(secret.removeprefix(_STANDARD_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("a secret of standard-webhooks is base64, with or without whsec_ before it") from None
    if not key:
        raise ValueError("the secret is empty")
    return key


def _read(scheme: Scheme, headers: Mapping[str, str]) -> _Signed:
    match scheme:
        case "zendesk":
            return _zendesk(headers)
        case "github":
            return _Signed([_after("sha256=", _signature(headers, "x-hub-signature-256"))], "hex")
        case "slack":
            return _slack(headers)
        case "stripe":
            return _stripe(headers)
        case "standard-webhooks":
            return _standard(headers)
        case _:
            return _Signed([_signature(headers, "x-signature").removeprefix("sha256=").encode()], "either")


def _zendesk(headers: Mapping[str, str]) -> _Signed:
    signature = _signature(headers, "x-zendesk-webhook-signature")
    timestamp = _timestamp(headers.get("x-zendesk-webhook-signature-timestamp"))
    return _Signed([signature.encode()], "base64", timestamp.encode(), _seconds(timestamp))


def _slack(headers: Mapping[str, str]) -> _Signed:
    candidate = _after("v0=", _signature(headers, "x-slack-signature"))
    timestamp = _timestamp(headers.get("x-slack-request-timestamp"))
    return _Signed([candidate], "hex", f"v0:{timestamp}:".encode(), _seconds(timestamp))


def _stripe(headers: Mapping[str, str]) -> _Signed:
    pairs = [item.strip().partition("=") for item in _signature(headers, "stripe-signature").split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    candidates = [value.encode() for name, _, value in pairs if name == "v1"]
    if len(times) > 1 or not 0 < len(candidates) <= CANDIDATES_MAX:
        raise _rejected("malformed_signature", "the header is t=<seconds>,v1=<hex>")
    timestamp = _timestamp(times[0] if times else None)
    return _Signed(candidates, "hex", f"{timestamp}.".encode(), _seconds(timestamp))


def _standard(headers: Mapping[str, str]) -> _Signed:
    family = "webhook" if "webhook-signature" in headers else "svix"
    signatures = [item.partition(",") for item in _signature(headers, f"{family}-signature").split(" ")]
    candidates = [value.encode() for version, _, value in signatures if version == "v1"]
    identity = headers.get(f"{family}-id", "")
    if not 0 < len(candidates) <= CANDIDATES_MAX:
        raise _rejected("malformed_signature", "the header is v1,<base64>, several with a space between")
    if not identity or not identity.isascii() or len(identity) > ID_CHARS_MAX:
        raise _rejected("malformed_signature", f"the message's id is in {family}-id, and is part of what is signed")
    timestamp = _timestamp(headers.get(f"{family}-timestamp"))
    return _Signed(candidates, "base64", f"{identity}.{timestamp}.".encode(), _seconds(timestamp))


def _signature(headers: Mapping[str, str], name: str) -> str:
    """The header, known to be short and ASCII."""
    value = headers.get(name)
    if not value:
        raise _rejected("missing_signature", f"sign the delivery and send {name}")
    if len(value) > SIGNATURE_CHARS_MAX or not value.isascii():
        raise _rejected("malformed_signature", f"{name} is longer than any signature, or not ASCII")
    return value


def _after(prefix: str, signature: str) -> bytes:
    if not signature.startswith(prefix):
        raise _rejected("malformed_signature", f"the signature begins with {prefix}")
    return signature.removeprefix(prefix).encode()


def _timestamp(value: str | None) -> str:
    """The timestamp as it was signed, known to be short and ASCII."""
    if not value:
        raise _rejected("missing_timestamp", "send the time at which the delivery was signed")
    if len(value) > TIMESTAMP_CHARS_MAX or not value.isascii():
        raise _rejected("malformed_timestamp", "the timestamp is in seconds since 1970 or RFC 3339")
    return value


@lru_cache(maxsize=1024)
def _seconds(timestamp: str) -> float:
    """Seconds since 1970, from that or from RFC 3339. Whatever is signed within a second says the same."""
    if _UNIX_SECONDS.fullmatch(timestamp):
        return float(timestamp)
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _rejected("malformed_timestamp", "the timestamp is in seconds since 1970 or RFC 3339")
    return (moment - _EPOCH).total_seconds()


def _matches(signed: _Signed, digest: bytes) -> bool:
    """Whether any candidate is this digest, in a time that does not depend on how nearly it is."""
    found = False
    for candidate in signed.candidates:
        if signed.encoding == "hex" or (signed.encoding == "either" and _HEX.fullmatch(candidate)):
            found |= hmac.compare_digest(digest.hex().encode(), candidate.lower())
        else:
            found |= hmac.compare_digest(binascii.b2a_base64(digest, newline=False), candidate)
    return found


def _check_age(signed_at_seconds: float, now_seconds: float, tolerance_seconds: float) -> None:
    if now_seconds - signed_at_seconds > tolerance_seconds:
        raise _rejected(
            "stale", f"signed more than {tolerance_seconds:g} s ago: deliver sooner, or raise tolerance_seconds"
        )
    if signed_at_seconds - now_seconds > tolerance_seconds:
        raise _rejected("future", f"signed more than {tolerance_seconds:g} s from now: set the clocks right")


def _rejected(reason: Reason, mend: str) -> RejectedDeliveryError:
    return RejectedDeliveryError(401, reason, mend)
