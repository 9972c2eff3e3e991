"""A delivery between its verification and its commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha1
from typing import Literal, NamedTuple
from uuid import UUID

from connectors.protocol import PlainChange

Outcome = Literal["accepted", "duplicate", "no_case", "unreadable"]
"""What became of a delivery that was stored, or that had been before. A column of `tallies` each."""

SENDER_ID_CHARS_MAX = 200
CHANGES_MAX = 500
"""In one delivery; a larger one is no webhook."""
PROOF_HEADERS: Mapping[str, Sequence[str]] = {
    "zendesk": ("x-zendesk-webhook-signature", "x-zendesk-webhook-signature-timestamp"),
    "github": ("x-hub-signature-256",),
    "slack": ("x-slack-signature", "x-slack-request-timestamp"),
    "stripe": ("stripe-signature",),
    "standard-webhooks": (
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
        *("svix-id", "svix-timestamp", "svix-signature"),
    ),
    "hmac": ("x-signature",),
    "none": (),
}
"""By scheme. Kept beside the body: with the secret they prove it again."""

_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
_DELIVERIES = UUID("6d1c7e52-7c1e-5f57-9f0e-0d0a3f2c9a41").bytes
_EVENTS = UUID("0b8a2d44-5e0c-5b1d-8f6a-7b6f1e9d2c58").bytes


class Change(NamedTuple):
    """One change in a delivery, with what makes it the same as one that came before."""

    plain: PlainChange
    case_id: str
    event_id: str
    """A UUID made of the change's name, whichever delivery brought it: a replay makes the same event."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a signed delivery needs a person. `code` is of a closed set; neither holds people's text."""

    code: str
    message: str


class Delivery(NamedTuple):
    """Verified and read."""

    delivery_id: str
    """A UUID, which the sender is told: the same for each retry of a delivery."""
    process: str
    source: str
    sender_id: str
    case_ids: Sequence[str]
    """Sorted; of no case in particular where there are no changes."""
    signed: Mapping[str, str]
    body: bytes
    traceparent: str
    received_at: datetime
    changes: Sequence[Change]
    unreadable: Unreadable | None = None
    late: bool = False
    """Taken in from the provider's own list, since no webhook had told it."""


def delivery_id_of(process: str, source: str, sender_id: str) -> str:
    """A UUID, unique on (source, the sender's id)."""
    return _uuid5(_DELIVERIES, process, source, sender_id)


def event_id_of(process: str, source: str, identity: str) -> str:
    """A UUID, unique on (source, identity of the change)."""
    return _uuid5(_EVENTS, process, source, identity)


def _uuid5(space: bytes, process: str, source: str, identity: str) -> str:
    """`str(uuid5(UUID(bytes=space), "process:source|identity"))`, four times as fast: it is made twice a webhook."""
    name = f"{process}:{source}|{identity}".encode("utf-8", "surrogatepass")
    text = sha1(space + name, usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def no_case_id(process: str, source: str, received_at: datetime) -> str:
    """Under whose key a delivery lies that concerns no case: one key a day, so that a day can be erased."""
    return f"{process}:{source}:no-case-{received_at.astimezone(UTC):%Y-%m-%d}"


def proof_in(scheme: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that were signed or are the signature; only what a database can hold."""
    return {name: value for name in PROOF_HEADERS[scheme] if (value := headers.get(name)) and value.isprintable()}


def short(sender_id: str) -> str:
    """A sender's id as it is stored: printable, bounded. Deduplication uses the whole one."""
    if sender_id.isprintable():
        return sender_id[:SENDER_ID_CHARS_MAX]
    return "".join(c if c.isprintable() else "?" for c in sender_id[:SENDER_ID_CHARS_MAX])
