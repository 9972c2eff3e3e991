"""`nightshift.cases`, written by ingest: what changed outside, and whether all of it was heard."""

from typing import ClassVar, Literal

from pydantic import AwareDatetime, Field

from contracts import topics
from contracts.base import Fact
from contracts.sealed import Sealed

Author = Literal["customer", "staff", "ours", "system", "unknown"]
"""Who made the change. `ours` is the user that Nightshift writes as: an echo, never new work."""

FieldValue = str | int | bool | None | tuple[str, ...]


class CaseChanged(Fact):
    """One outside change of one case."""

    TYPE: ClassVar[str] = "case.changed.v1"
    TOPIC: ClassVar[str] = topics.CASES

    door: str
    object_id: str
    """The case's id in the outside system: a ticket number."""
    kind: str
    """The connector's word: `created`, `comment_added`, `status_changed`, `merged`, `soft_deleted` …"""
    identity: str
    """What makes two deliveries the same change."""
    version: str
    """Orderable stamp of the source (contracts.basis.version_of)."""
    position: int = 0
    """Place inside one update that makes several events."""
    update_id: str | None = None
    """Which update of the source this change belongs to, where it says so.

    Different updates of one version are a tie.
    """
    author: Author
    hint: bool = False
    """The body names no change of its own, or not all of it: read the object before answering."""
    fields: dict[str, FieldValue] = Field(default_factory=dict)
    """State after the change.

    Only what the body held. `comment_id`, `comment_public`, `author_id` where kind is comment_added.
    """
    texts: dict[str, Sealed] = Field(default_factory=dict)
    """What people wrote: `subject`, `body` …"""
    late: bool = False
    """Learnt from the provider's own list: no webhook had told it. Other changes of the object may be known better."""
    occurred_at: AwareDatetime
    received_at: AwareDatetime


class CaseOpened(CaseChanged):
    """The change by which the case came into being outside."""

    TYPE: ClassVar[str] = "case.opened.v1"


CHANGES = frozenset({CaseOpened.TYPE, CaseChanged.TYPE})
"""The types by which something outside changed."""


class IntakeReconciled(Fact):
    """What came in through one door within one hour was compared with the provider's own list.

    The subject is no case: `<process>:<door>:intake-<hour>`.
    """

    TYPE: ClassVar[str] = "intake.reconciled.v1"
    TOPIC: ClassVar[str] = topics.CASES

    door: str
    hour: AwareDatetime
    """Its beginning."""
    since: AwareDatetime
    """From when on it was compared: later than its beginning where the door was first used within it."""
    revision: int
    """The how-manieth word about this hour, from 1 on; the last one stands."""
    state: Literal["complete", "missing", "backfilled", "unknown"]
    """`missing`: not all of it is taken in yet. `unknown`: the list could not be had, so nobody can tell."""
    listed: int
    """Updates on the provider's list, as far as webhooks tell of them."""
    missing: int
    """Of these, how many no webhook had told when they were looked for."""
    code: str | None = None
    """Why the list could not be had, where it is unknown."""
    settled: bool
    """Nothing further will be said of this hour: the list did not change any more.

    Where the state is `unknown` or `missing`: it is not asked for again, since it cannot be mended any more.
    """
    compared_at: AwareDatetime
