"""When a candidate that proposes for a share of the cases is worse than what is live. Pure."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

CHANCE_MAX: Final = 0.01
"""A difference that chance would make so often, or more, is none (Fisher's exact test, one-sided).

Who looks again and again meets such a chance more often: a candidate goes back too early rather than too late.
"""


class Limits(Protocol):
    """[candidate.returns] of process.toml."""

    @property
    def min_cases(self) -> int: ...
    @property
    def worse_by(self) -> float: ...
    @property
    def cost_factor(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """What came of so many cases: each was let out, held, refused, or had no proposal."""

    cases: int = 0
    held: int = 0
    refused: int = 0
    failed: int = 0
    cost_usd: Decimal = Decimal(0)


def why_return(candidate: Came, others: Came, limits: Limits) -> str | None:
    """Which figure speaks against the candidate, or none. Nothing is concluded from few cases, or without others.

    A rate speaks against it that is above the others' by more than a margin, and not by chance. Its cost does where the
    others cost something, and it costs so many times that; then the others must be as many as are asked of it.
    """
    if candidate.cases < limits.min_cases or not others.cases:
        return None
    for name, one, other in (
        ("held", candidate.held, others.held),
        ("refused", candidate.refused, others.refused),
        ("failed", candidate.failed, others.failed),
    ):
        if one / candidate.cases - other / others.cases <= limits.worse_by:
            continue
        if (chance := chance_of(one, candidate.cases, other, others.cases)) < CHANCE_MAX:
            return (
                f"{name}: {one} of {candidate.cases} ({one / candidate.cases:.1%}), and of the other cases {other} of "
                f"{others.cases} ({other / others.cases:.1%}); chance makes such a difference with p = {chance:.2g}"
            )
    mine, theirs = candidate.cost_usd / candidate.cases, others.cost_usd / others.cases
    if others.cases >= limits.min_cases and theirs and mine > theirs * Decimal(limits.cost_factor):
        return f"cost: ${mine:.4f} a case, and of the other cases ${theirs:.4f}"
    return None


def chance_of(one: int, of_one: int, other: int, of_other: int) -> float:
    """How likely so many, or more, of these would fall to the first were there no difference (Fisher, one-sided)."""
    both, everything = one + other, of_one + of_other
    whole = _log_choose(everything, both)
    return math.fsum(
        math.exp(_log_choose(of_one, k) + _log_choose(of_other, both - k) - whole)
        for k in range(max(one, both - of_other), min(of_one, both) + 1)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
