"""What candidates made of a case in shadow: told beside it, and in none of its own figures."""

from collections.abc import Sequence
from dataclasses import replace

from contracts.envelope import Event
from contracts.events.decisions import DecisionShadowed
from contracts.events.proposals import ProposalShadowed
from services.reporter.domain.log import History
from services.reporter.domain.views import ShadowRow

SHADOWED = (ProposalShadowed, DecisionShadowed)


def without(history: History) -> History:
    """The same as if there had been no shadow."""
    if not any(history.of(contract) for contract in SHADOWED):
        return history
    return replace(history, events=tuple(e for e in history.events if not isinstance(e.data, SHADOWED)))


def shadows_of(history: History) -> Sequence[ShadowRow]:
    """One row a basis: what the candidate that was asked last made of it."""
    judged = {(e.data.basis, e.data.regime): e for e in history.of(DecisionShadowed)}
    proposed = {e.data.basis: e for e in history.of(ProposalShadowed)}
    return [_row(event, judged.get((basis, event.data.regime))) for basis, event in sorted(proposed.items())]


def _row(proposed: Event[ProposalShadowed], judged: Event[DecisionShadowed] | None) -> ShadowRow:
    data = proposed.data
    return ShadowRow(
        case_id=proposed.case_id,
        process=proposed.process,
        basis=data.basis,
        at=proposed.time,
        regime=data.regime,
        state="failed" if data.output is None else "not compared" if judged is None else judged.data.difference,
        code=data.code,
        live=None if judged is None else judged.data.live,
        shadow=None if judged is None else judged.data.shadow,
        cost_usd=data.cost_usd,
        latency_ms=data.latency_ms,
    )
