"""What a connector can do, as small Protocols: a connector implements those that its kind of system allows.

Every async method may raise the failures of `contracts.failures` and nothing else that a caller must know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from contracts.base import Json
from contracts.decision import Request
from contracts.events.cases import Author, FieldValue


class RejectedDeliveryError(Exception):
    """A webhook that is not taken.

    `status` is the HTTP answer, `reason` a word of a closed set, `mend` says what to do.
    """

    def __init__(self, status: int, reason: str, mend: str) -> None:
        super().__init__(f"{reason}: {mend}")
        self.status = status
        self.reason = reason
        self.mend = mend


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainChange:
    """`contracts.events.cases.CaseChanged` before its texts are sealed; the fields mean the same."""

    object_id: str
    kind: str
    identity: str
    version: str
    author: Author
    occurred_at: datetime
    position: int = 0
    update_id: str | None = None
    opens: bool = False
    hint: bool = False
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that an update did, and the kinds of change that tell it: one of them is enough."""

    kinds: frozenset[str]
    comment_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update on the provider's own list, without anybody's words."""

    object_id: str
    update_id: str
    """As in the changes that `Reads.read` tells."""
    at: datetime
    parts: Sequence[Part]
    """Those that webhooks tell."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the provider's own list of updates."""

    updates: Sequence[Update]
    cursor: str
    end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """A definite yes."""

    reference: str
    """The other side's id of what was written (an audit)."""
    at: datetime
    """By the other side's clock."""
    stamp: str | None = None
    """The object's stamp after the write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Something that our user wrote, as found outside. `effect_key` is none where somebody else used our account."""

    reference: str
    at: datetime
    public: bool
    effect_key: str | None


class Receives(Protocol):
    """A door's side: webhooks in. Verification is done before by `connectors.signatures`."""

    def delivery_id(self, headers: Mapping[str, str], body: bytes) -> str:
        """What stays the same when this delivery is retried; header names are lower case."""

    def receive(self, payload: object, body: bytes, received_at: datetime) -> Sequence[PlainChange]:
        """Changes in a verified body (`payload` is its parsed JSON). Nothing for a type that concerns no case.

        Raises PermanentError where a known type cannot be understood.
        """


class Reads(Protocol):
    """Read-only calls about one object."""

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        """The object's whole history as changes with the source's own identity and order.

        When it is gone: nothing, or one `soft_deleted`.
        """


class Lists(Protocol):
    """The provider's own list, for reconciliation."""

    async def list_updates(self, since: datetime, cursor: str | None) -> Page:
        """Every update since a moment, in order of time, a page at a time; the same one may be on two pages."""


class LooksUp(Protocol):
    """A system of record. The names of the queries are process.toml's."""

    async def look_up(self, query: str, params: Json) -> Sequence[Json]:
        """Rows of one named read-only query; at most 100."""


class Sends(Protocol):
    """A destination's side: effects out."""

    async def send(self, request: Request, *, effect_key: str, stamp: str | None) -> Acknowledged:
        """Carry the request out, once. A conditional request carries `stamp`.

        Raises ConflictError (certainly not done: the object changed), PermanentError, LaterError (certainly not done),
        OutcomeUnknownError.
        """


class ReadsBack(Protocol):
    """A destination whose writes can be found again."""

    async def current_stamp(self, object_id: str) -> str:
        """The object's stamp now, when nothing more is written under it.

        Raises PermanentError("gone") when there is no such object.
        """

    async def written(self, object_id: str) -> Sequence[Written]:
        """Everything that our user wrote to the object, oldest first."""
