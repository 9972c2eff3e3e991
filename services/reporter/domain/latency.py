"""A histogram whose running sums give percentiles: bounds grow by a tenth, so an answer is off by less than that."""

from bisect import bisect_left
from collections.abc import Mapping

_BOUNDS_MAX = 260


def _bounds() -> tuple[int, ...]:
    bounds = [1]
    while len(bounds) < _BOUNDS_MAX:
        bounds.append(max(bounds[-1] + 1, bounds[-1] * 11 // 10))
    return tuple(bounds)


BOUNDS_MS = _bounds()
"""Upper bounds in milliseconds, inclusive, from 1 ms to several years."""


def bucket_of(milliseconds: int) -> int:
    """The upper bound of the bucket that holds this latency."""
    return BOUNDS_MS[min(bisect_left(BOUNDS_MS, milliseconds), _BOUNDS_MAX - 1)]


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """The latency in milliseconds that `share` (0 to 1) of the counted stay within; none when nothing was counted."""
    total = sum(counts.values())
    if total <= 0:
        return None
    rank, seen = share * total, 0
    for upper in sorted(counts):
        if seen + counts[upper] >= rank:
            place = BOUNDS_MS.index(upper)
            lower = BOUNDS_MS[place - 1] if place else 0
            return lower + (upper - lower) * max(0.0, rank - seen) / counts[upper]
        seen += counts[upper]
    return float(max(counts))
