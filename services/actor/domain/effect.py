"""An effect's life: its key, when it may go, and what follows an attempt of which nobody knows the outcome."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import JsonValue

from contracts.decision import Action, Mode, Reason, Request

GONE_CODES = frozenset({"gone", "deleted", "closed"})
"""The object can never be written again: there is nothing left to do, and nothing for a person to mend."""
HANDOVER = "handover"
NOTICE = "notice"
"""Goes to people beside the case: it is no part of a duel, and takes nobody's place under the limit."""
UNBOUND_KINDS = frozenset({HANDOVER, NOTICE})
"""They tell a person something and answer no customer, so no newer basis makes them wrong."""
SETTLED_SECONDS = 2.0
"""Zendesk's stamps have a resolution of a second: after two, whatever landed under a stamp can be seen."""

BASIS_GONE = Reason(code="basis_gone", text="What this would answer turned out not to be the newest word.")

LOOKS_MIN = 2
"""So often, at least, something was looked for before it is said not to be there."""

_RANK: dict[Mode, int] = {"watch": 0, "draft": 1, "act": 2}

AfterUnknown = Literal["read_back", "resend", "person"]


def key_of(case_id: str, kind: str, basis: str) -> str:
    """The one key of an effect, inside and outside."""
    return f"{case_id}|{kind}|{basis}"


def digest_of(request: Request) -> str:
    """SHA-256 of the request's canonical JSON."""
    return hashlib.sha256(_canonical(request.model_dump(mode="json"))).hexdigest()


def approval_digest(basis: str, requests: Sequence[Request]) -> str:
    """What an approval is bound to: the basis, and exactly these requests in this order."""
    told = {"basis": basis, "requests": [request.model_dump(mode="json") for request in requests]}
    return hashlib.sha256(_canonical(told)).hexdigest()


def granted_modes(actions: Sequence[Action], modes: Mapping[str, Mode]) -> dict[str, Mode]:
    """The modes that these actions rely on; lowering one of them later stops the effect. Never holds `watch`."""
    return {action.name: modes[action.name] for action in actions if modes[action.name] != "watch"}


def mode_of(request: Request, granted: Mapping[str, Mode]) -> Mode:
    """How far the effect goes: `act` where the customer sees it, else as the most careful action behind it."""
    if is_public(request):
        return "act"
    return min(granted.values(), key=lambda mode: _RANK[mode], default="watch")


def is_public(request: Request) -> bool:
    """Whether the customer can see it: some part of its body says `public: true`."""
    return _says_public(request.body)


def _says_public(value: JsonValue) -> bool:
    match value:
        case dict():
            return value.get("public") is True or any(_says_public(part) for part in value.values())
        case list():
            return any(_says_public(part) for part in value)
        case _:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything that decides, at the moment of a claim, whether an effect may still go."""

    kind: str
    basis: str
    newest_basis: str | None
    now: datetime
    asked_at: datetime | None
    max_age: timedelta
    approval_state: str | None
    """None where it came of no approval."""
    granted: Mapping[str, Mode]
    modes: Mapping[str, Mode]
    effects_last_hour: int
    effects_max: int
    dead_letter_open: bool
    held: bool
    refusal: Reason | None
    """The process's own word on the case's state."""


def why_not(standing: Standing) -> Reason | None:
    """Why the effect must not go any more, or none. A handover is bound to its mode and to one more than the limit."""
    if any(_RANK[standing.modes.get(name, "watch")] < _RANK[mode] for name, mode in standing.granted.items()):
        return Reason(code="mode_lowered", text="A person lowered the mode of this action.")
    bound = standing.kind not in UNBOUND_KINDS
    if standing.effects_last_hour >= standing.effects_max + (0 if bound else 1):
        return Reason(code="effects_per_hour", text="This case reached its limit of effects in one hour.")
    if not bound:
        return None
    if went_back(standing.basis, standing.newest_basis):
        return BASIS_GONE
    if standing.basis != standing.newest_basis:
        return Reason(code="newer_basis", text="Something newer happened outside.")
    if standing.approval_state not in {None, "approved"}:
        return Reason(code="approval_invalid", text="The approval behind this is no longer valid.")
    if standing.held:
        return Reason(code="case_held", text="The case is held for a person.")
    if standing.dead_letter_open:
        return Reason(code="dead_letter_open", text="Earlier work of this case waits for a person.")
    if standing.asked_at is not None and standing.now - standing.asked_at > standing.max_age:
        return Reason(code="too_old", text="The customer has waited too long for an unattended answer.")
    return standing.refusal


def went_back(basis: str, newest_basis: str | None) -> bool:
    """Whether the newest basis is an older one after all: nothing newer comes that would answer in place of this."""
    return newest_basis is not None and newest_basis < basis


def after_unknown(*, semantics: str, may_repeat: bool, setting: AfterUnknown, can_read_back: bool) -> AfterUnknown:
    """What follows an attempt of unknown outcome. Only what can be told apart outside, or may repeat, is sent again."""
    if semantics == "blind":
        return "resend" if may_repeat or setting == "resend" else "person"
    if can_read_back and setting == "read_back":
        return "read_back"
    return "resend" if semantics == "idempotent" else "person"


def look_again_seconds(looks: int, *, waited_seconds: float, seen_within_seconds: float) -> float | None:
    """How long to wait after look number `looks` that did not find it; none: it is not there.

    The first look comes after SETTLED_SECONDS, each further one after twice the time, the last at the limit. Looks that
    could not be had are none; `waited_seconds`, since it was acknowledged, counts from the second one on. Look 0 is one
    that came too early.
    """
    looked_for = SETTLED_SECONDS * 2.0 ** (looks - 1)
    if looks >= LOOKS_MIN:
        looked_for = max(looked_for, waited_seconds)
    if looked_for >= seen_within_seconds:
        return None
    return min(looked_for, seen_within_seconds - looked_for)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
