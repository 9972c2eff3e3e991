"""How far each effect of a case got. Only an observed one counts in a report."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from contracts.envelope import Event
from contracts.events.decisions import ApprovalResolved, DecisionMade
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
    keys.update(*(e.data.effect_keys for e in history.of(ApprovalResolved)))
    return tuple(_effect(key, attempted[key], acknowledged[key], observed[key], failed[key]) for key in sorted(keys))


def _by_key(events: Sequence[Event[E]]) -> defaultdict[str, list[Event[E]]]:
    by_key = defaultdict[str, list[Event[E]]](list)
    for event in events:
        by_key[event.data.effect_key].append(event)
    return by_key


def _how_final(failed: Event[EffectFailed]) -> tuple[int, bool]:
    """An attempt may first be put back and then end for good, before another follows."""
    return failed.data.attempt, failed.data.outcome != "retry"


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
    end = max(failed, key=_how_final, default=None)
    state: EffectState
    if observed:
        state = "observed"
    elif acknowledged:
        state = "acknowledged"
    elif end is not None and end.data.attempt >= attempt:
        state = end.data.outcome
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
