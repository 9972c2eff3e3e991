"""What rules answer, what they are told, and the requests that come of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, JsonValue

from contracts.base import Contract, Json

Verdict = Literal["execute", "hold", "refuse", "ignore"]
Mode = Literal["watch", "draft", "act"]
Difference = Literal["same", "stricter", "looser", "other actions", "other reasons", "other requests"]
"""How one decision differs from another about the same basis."""


class Reason(Contract):
    """Why, in a word that a report counts and in a sentence that a support lead understands. Never people's text."""

    code: str
    text: str


class Action(Contract):
    """One thing to do. `name` is an action of process.toml.

    `params` are its own (never people's text: drafts stay in the proposal).
    """

    name: str
    params: Json = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execute:
    """The actions may go out by themselves, each as far as its mode lets it."""

    actions: tuple[Action, ...]
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A person must approve the actions; the case is handed over with the reasons."""

    reasons: tuple[Reason, ...]
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Nothing may be done by software; a person takes the case."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """Stale, already decided, or nobody asked: nothing is done and nobody is bothered."""

    reasons: tuple[Reason, ...]


Decision = Execute | Hold | Refuse | Ignore


def verdict_of(decision: Decision) -> Verdict:
    """The decision's word on the wire."""
    match decision:
        case Execute():
            return "execute"
        case Hold():
            return "hold"
        case Refuse():
            return "refuse"
        case Ignore():
            return "ignore"


class FactAnswer(Contract):
    """What one read-only look-up answered.

    `ok` is false when it could not be read; then rows is empty and error a code.
    """

    name: str
    ok: bool
    rows: tuple[Json, ...] = ()
    error: str | None = None


Facts = Mapping[str, FactAnswer]


class FactQuery(Contract):
    """A look-up that a process wants.

    The named source of process.toml, the named query of that source, and its parameters.
    """

    name: str
    source: str
    query: str
    params: Json = Field(default_factory=dict)


class Circumstances(Contract):
    """What the actor knows beyond the case, as it was when the decision was made.

    Recorded, so that a replay decides alike.
    """

    other_open_cases_of_party: int = 0
    label_count_last_hour: int = 0
    label_usual_per_hour: float = 0.0
    """Mean per hour over the last 28 days; 0.0 when there is no history yet."""
    effects_of_case_last_hour: int = 0
    hours_of_history: float = 0.0


class Request(Contract):
    """One rendered request to the outside. Holds people's text: it is sealed wherever it is stored."""

    kind: str
    """`reply`, `handover`, `notice` …; part of the effect's key."""
    connector: str
    """A door or destination of process.toml."""
    object_id: str
    semantics: Literal["conditional", "idempotent", "blind"]
    may_repeat: bool = False
    """A blind notice that may be sent again when its outcome is unknown."""
    body: dict[str, JsonValue]


def decision_digest(decision: Decision, requests: Sequence[Request]) -> str:
    """SHA-256 of what was decided and what that would send: verdict, reasons, actions, requests, each in its order.

    No id of ours and no clock goes in, so that the same inputs under the same rules give the same digest at any time.
    """
    actions = decision.actions if isinstance(decision, Execute | Hold) else ()
    told = {
        "verdict": verdict_of(decision),
        "reasons": [reason.model_dump(mode="json") for reason in decision.reasons],
        "actions": [action.model_dump(mode="json") for action in actions],
        "requests": [request.model_dump(mode="json") for request in requests],
    }
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
