"""A door for flat JSON: a web form, a script, any sender that can POST an object. Each submission is a case of its own.

{"id": "2026-0042", "email": "pat@example.com", "message": "Where is my order?", "newsletter": false}
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256

from connectors import cards
from connectors.protocol import PlainChange
from contracts.basis import version_of
from contracts.events.cases import FieldValue
from contracts.failures import PermanentError

FIELDS_MAX = 100
NAME_CHARS_MAX = 100
IDENTITY_CHARS_MAX = 200
_PLAIN_DIGITS_MAX = 12
"""A longer number may be somebody's card or account, and is kept as text."""


class Form:
    """Receives. A submission's identity is the field `identity_field` where the body has it, else the body's digest.

    So two equal bodies without that field are one submission. Whatever a person may have written is a text, which
    travels sealed: every string but those of `plain_fields`. Numbers, truth values and null are fields.
    """

    def __init__(self, *, identity_field: str = "id", plain_fields: frozenset[str] = frozenset()) -> None:
        self._identity_field = identity_field
        self._plain_fields = plain_fields

    def delivery_id(self, headers: Mapping[str, str], body: bytes) -> str:
        """`webhook-id` or `idempotency-key` where the sender sets one, else the body's digest."""
        return headers.get("webhook-id") or headers.get("idempotency-key") or _digest(body)

    def receive(self, payload: object, body: bytes, received_at: datetime) -> Sequence[PlainChange]:
        """One change, which opens a case. Raises PermanentError("unreadable_body") for what is not flat."""
        if not isinstance(payload, dict):
            raise _unreadable("the body is no object")
        if len(payload) > FIELDS_MAX:
            raise _unreadable(f"more than {FIELDS_MAX} fields")
        if not all(len(name) <= NAME_CHARS_MAX and name.isprintable() for name in payload):
            raise _unreadable(f"a name that is longer than {NAME_CHARS_MAX} characters or not printable")
        identity = self._identity(payload, body)
        fields: dict[str, FieldValue] = {}
        texts: dict[str, str] = {}
        for name, value in payload.items():
            read = _read(name, value)
            if isinstance(read, str) and name not in self._plain_fields:
                texts[name] = read
            else:
                fields[name] = read.replace("\0", "") if isinstance(read, str) else read  # jsonb holds no NUL
        return (
            PlainChange(
                object_id=identity,
                kind="submitted",
                identity=identity,
                version=version_of(received_at),
                author="customer",
                occurred_at=received_at,
                opens=True,
                fields=fields,
                texts=texts,
            ),
        )

    def _identity(self, payload: Mapping[str, object], body: bytes) -> str:
        value = payload.get(self._identity_field)
        if value is None or value == "":
            return _digest(body)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _unreadable(f"{self._identity_field} is no id")
        identity = str(value)
        if len(identity) > IDENTITY_CHARS_MAX or not identity.isprintable():
            raise _unreadable(f"{self._identity_field} is longer than {IDENTITY_CHARS_MAX} characters or not printable")
        return identity


def _read(name: str, value: object) -> FieldValue:
    """Strings are what a person may have written: these, lists of them, and numbers as long as a card's."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if len(str(abs(value))) <= _PLAIN_DIGITS_MAX else cards.mask(str(value))
    if isinstance(value, float) and math.isfinite(value):
        return cards.mask(repr(value))
    if isinstance(value, str):
        return cards.mask(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return cards.mask("\n".join(value))
    raise _unreadable(f"{name} is neither text, number, truth value, null nor a list of texts")


def _digest(body: bytes) -> str:
    return f"sha256:{sha256(body).hexdigest()}"


def _unreadable(what: str) -> PermanentError:
    return PermanentError("unreadable_body", what)
