"""How far each effect of a case got. Only an observed one counts in a report."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from contracts.envelope import Event
from contracts.events.decisions import ApprovalResolved, DecisionMade, HandoverPlanned
from contracts.events.effects import EffectAcknowledged, EffectAttempted, EffectFailed, EffectObserved
from services.reporter.domain.log import History
from services.reporter.domain.views import EffectRow, EffectState

OPEN: frozenset[EffectState] = frozenset({"planned", "attempted", "retry"})
REACHED: frozenset[EffectState] = frozenset({"acknowledged", "observed"})

E = TypeVar("E", EffectAttempted, EffectAcknowledged, EffectObserved, EffectFailed)


def effects_of(history: History) -> tuple[EffectRow, ...]:
    """Every effect that was planned or heard of, by key."""
    attempted = _by_key(history.of(EffectAttempted))
    acknowledged = _by_key(history.of(EffectAcknowledged))
    observed = _by_key(history.of(EffectObserved))
    failed = _by_key(history.of(EffectFailed))
    keys = {*attempted, *acknowledged, *observed, *failed}
    keys.update(*(e.data.effect_keys for e in history.of(DecisionMade)))
    keys.update(*(e.data.effect_keys for e in history.of(HandoverPlanned)))
    keys.update(*(e.data.effect_keys for e in history.of(ApprovalResolved)))
    return tuple(_effect(key, attempted[key], acknowledged[key], observed[key], failed[key]) for key in sorted(keys))


def _by_key(events: Sequence[Event[E]]) -> defaultdict[str, list[Event[E]]]:
    by_key = defaultdict[str, list[Event[E]]](list)
    for event in events:
        by_key[event.data.effect_key].append(event)
    return by_key


def _how_late(event: Event[EffectAcknowledged] | Event[EffectFailed]) -> tuple[int, datetime, bool]:
    """The last word on an attempt: a yes is taken back where the effect was not there after all."""
    ended = isinstance(event.data, EffectFailed) and event.data.outcome != "retry"
    return event.data.attempt, event.time, ended


def _effect(
    key: str,
    attempted: list[Event[EffectAttempted]],
    acknowledged: list[Event[EffectAcknowledged]],
    observed: list[Event[EffectObserved]],
    failed: list[Event[EffectFailed]],
) -> EffectRow:
    told = (*attempted, *acknowledged, *observed, *failed)
    if not told:
        return EffectRow(effect_key=key, state="planned")
    attempt = max((e.data.attempt for e in attempted), default=0)
    end = max(failed, key=_how_late, default=None)
    said: list[Event[EffectAcknowledged] | Event[EffectFailed]] = [*acknowledged, *failed]
    last = max(said, key=_how_late, default=None)
    state: EffectState
    if observed:
        state = "observed"
    elif last is not None and last.data.attempt >= attempt:
        state = last.data.outcome if isinstance(last.data, EffectFailed) else "acknowledged"
    else:
        state = "attempted"
    references = [(e.data.attempt, e.data.reference) for e in observed]
    references += [(e.data.attempt, e.data.reference) for e in acknowledged]
    first = min(told, key=lambda e: (e.time, e.event_id))
    return EffectRow(
        effect_key=key,
        kind=first.data.kind,
        destination=first.data.destination,
        state=state,
        attempts=max(attempt, len(attempted)),
        public=any(e.data.public for e in attempted) or any(e.data.public for e in observed),
        reference=min(references)[1] if references else None,
        code=end.data.code if end is not None and state not in REACHED else None,
        at=first.time,
    )
