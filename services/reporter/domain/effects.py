"""How far each effect of a case got. Only an observed one counts in a report."""

from collections import defaultdict
from datetime import datetime

from contracts.events.decisions import ApprovalResolved, DecisionMade
from contracts.events.effects import EffectAcknowledged, EffectAttempted, EffectFailed, EffectObserved
from services.reporter.domain.log import History
from services.reporter.domain.views import EffectRow, EffectState

OPEN: frozenset[EffectState] = frozenset({"planned", "attempted", "retry"})
REACHED: frozenset[EffectState] = frozenset({"acknowledged", "observed"})

_Told = EffectAttempted | EffectAcknowledged | EffectObserved | EffectFailed


def effects_of(history: History) -> tuple[EffectRow, ...]:
    """Every effect that was planned or heard of, by key."""
    told: dict[str, list[tuple[datetime, _Told]]] = defaultdict(list)
    for event in history.events:
        match event.data:
            case DecisionMade(effect_keys=keys) | ApprovalResolved(effect_keys=keys):
                for key in keys:
                    told.setdefault(key, [])
            case EffectAttempted() | EffectAcknowledged() | EffectObserved() | EffectFailed() as data:
                told[data.effect_key].append((event.time, data))
            case _:
                pass
    return tuple(_effect(key, told[key]) for key in sorted(told))


def _how_final(failed: EffectFailed) -> tuple[int, bool]:
    """An attempt may first be put back and then end for good, before another follows."""
    return failed.attempt, failed.outcome != "retry"


def _effect(key: str, told: list[tuple[datetime, _Told]]) -> EffectRow:
    if not told:
        return EffectRow(effect_key=key, state="planned")
    at, first = told[0]
    attempts = [data for _, data in told if isinstance(data, EffectAttempted)]
    observed = [data for _, data in told if isinstance(data, EffectObserved)]
    acknowledged = [data for _, data in told if isinstance(data, EffectAcknowledged)]
    failed = max((data for _, data in told if isinstance(data, EffectFailed)), key=_how_final, default=None)
    attempt = max((data.attempt for data in attempts), default=0)
    state: EffectState
    if observed:
        state = "observed"
    elif acknowledged:
        state = "acknowledged"
    elif failed is not None and failed.attempt >= attempt:
        state = failed.outcome
    else:
        state = "attempted"
    references = [(d.attempt, d.reference) for d in observed] + [(d.attempt, d.reference) for d in acknowledged]
    return EffectRow(
        effect_key=key,
        kind=first.kind,
        destination=first.destination,
        state=state,
        attempts=max(attempt, len(attempts)),
        public=any(data.public for data in attempts) or any(data.public for data in observed),
        reference=min(references)[1] if references else None,
        code=failed.code if failed is not None and state not in REACHED else None,
        at=at,
    )
