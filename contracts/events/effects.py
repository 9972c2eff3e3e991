"""`nightshift.effects`, written by the actor: what was done outside. Only an observed effect counts in a report."""

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from contracts import topics
from contracts.base import Fact
from contracts.decision import Mode


class _Effect(Fact):
    TOPIC: ClassVar[str] = topics.EFFECTS

    effect_key: str
    kind: str
    destination: str
    object_id: str
    basis: str
    attempt: int


class EffectAttempted(_Effect):
    """The intent, committed before the call."""

    TYPE: ClassVar[str] = "effect.attempted.v1"

    mode: Mode
    public: bool
    """Whether the customer can see it."""
    request_digest: str
    switch_generation: int
    """The generation of the switch under which it was claimed."""
    stamp: str | None
    """The `updated_stamp` that a conditional request carries."""


class EffectAcknowledged(_Effect):
    """The other side answered that it was done."""

    TYPE: ClassVar[str] = "effect.acknowledged.v1"

    reference: str
    """The other side's id for it: an audit."""
    acknowledged_at: AwareDatetime


class EffectObserved(_Effect):
    """It was seen outside, by echo or by reading back. Once per effect key."""

    TYPE: ClassVar[str] = "effect.observed.v1"

    reference: str
    by: Literal["echo", "read_back"]
    public: bool
    observed_at: AwareDatetime
    """When it happened outside, by the other side's clock."""


class EffectFailed(_Effect):
    """An attempt ended without the effect."""

    TYPE: ClassVar[str] = "effect.failed.v1"

    code: str
    outcome: Literal["retry", "superseded", "dead", "person"]
    """What follows: another attempt.

    Nothing, a newer basis or state overtook it; a dead letter; a person, for a blind effect.
    """
