"""What a run of the suite measured: a row a scenario, printed as one table and written as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

_COLUMNS = (
    "scenario",
    "stack",
    "cases",
    "webhooks",
    "kills",
    "bounces",
    "lost",
    "twice",
    "recovery p99 s",
    "recovery max s",
    "drain s",
    "took s",
    "broken",
)
_CELLS = (
    *("scenario", "stack", "cases", "webhooks", "kills", "bounces", "lost", "twice"),
    *("recovery_seconds_p99", "recovery_seconds_max", "drain_seconds", "seconds"),
)


@dataclass(kw_only=True)
class Figures:
    """One scenario on one stack."""

    scenario: str
    stack: str
    seed: int
    cases: int = 0
    webhooks: int = 0
    """Deliveries that intake took, each copy counted."""
    kills: int = 0
    """Of services, by `kill -9`."""
    bounces: int = 0
    """Outages of a server: killed, stopped, cut, filled up."""
    lost: int | None = None
    """None where the scenario was not judged."""
    twice: int | None = None
    recovery_seconds: list[float] = field(default_factory=list)
    """From a kill until that service is ready again; from the end of an outage until work gets through again."""
    drain_seconds: float = 0.0
    """From the end of the night until nothing waits any more."""
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)
    """Invariants that did not hold."""
    notes: dict[str, float] = field(default_factory=dict)
    """What only this scenario measures, by name and unit."""

    def json(self) -> dict[str, object]:
        """For machines."""
        return {
            "scenario": self.scenario,
            "stack": self.stack,
            "seed": self.seed,
            "cases": self.cases,
            "webhooks": self.webhooks,
            "kills": self.kills,
            "bounces": self.bounces,
            "lost": self.lost,
            "twice": self.twice,
            "recoveries": len(self.recovery_seconds),
            "recovery_seconds_p99": rank(self.recovery_seconds, 99) if self.recovery_seconds else None,
            "recovery_seconds_max": rank(self.recovery_seconds, 100) if self.recovery_seconds else None,
            "drain_seconds": round(self.drain_seconds, 2),
            "seconds": round(self.seconds, 1),
            "broken": self.broken,
            "notes": self.notes,
        }

    def row(self) -> tuple[str, ...]:
        """For people, by `_COLUMNS`."""
        found = self.json()
        cells = [_cell(found[name]) for name in _CELLS]
        return (*cells, ", ".join(self.broken) if self.lost is not None else "not judged")


def table(measured: Sequence[Figures]) -> list[str]:
    """One line a scenario, below a line of names; and below each what it alone measured."""
    rows = [_COLUMNS, *(one.row() for one in measured)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [(one.scenario, ", ".join(f"{name} {value:,g}" for name, value in one.notes.items())) for one in measured]
    return lines + [f"{scenario}: {told}" for scenario, told in notes if told]


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.1f}"
        case _:
            return str(value)


def rank(values: Sequence[float], percent: int) -> float:
    """Nearest rank, of at least one value."""
    return round(sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)], 2)
