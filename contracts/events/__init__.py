"""The events, one module per topic; `REGISTRY` knows every type and version there is."""

from collections.abc import Callable

from contracts.base import Fact, Json
from contracts.events import cases, control, dead_letters, decisions, effects, proposals

NEWEST: tuple[type[Fact], ...] = (
    cases.CaseOpened,
    cases.CaseChanged,
    cases.IntakeReconciled,
    proposals.FactsRead,
    proposals.ProposalMade,
    proposals.ProposalFailed,
    proposals.ProposalShadowed,
    proposals.ProposalDropped,
    proposals.BudgetExhausted,
    decisions.DecisionMade,
    decisions.DecisionShadowed,
    decisions.HandoverPlanned,
    decisions.ApprovalRequested,
    decisions.ApprovalResolved,
    effects.EffectAttempted,
    effects.EffectAcknowledged,
    effects.EffectObserved,
    effects.EffectFailed,
    dead_letters.DeadLetterRaised,
    dead_letters.DeadLetterRedriven,
    dead_letters.DeadLetterSkipped,
    dead_letters.DeadLetterResolved,
    control.ProcessPaused,
    control.ProcessResumed,
    control.ApprovalAnswered,
    control.RedriveRequested,
    control.SkipRequested,
    control.CauseAcknowledged,
    control.RegimeAdmitted,
    control.CandidateChanged,
)
"""The newest version of every event, in travel order."""

REGISTRY: dict[str, type[Fact]] = {fact.TYPE: fact for fact in NEWEST}

UPCASTS: dict[str, tuple[str, Callable[[Json], Json]]] = {}
"""Older types: type → (the next version's type, a pure function from the old payload to the new one). None yet."""
