"""What was read of the cases touched last, so that a new event of a case does not cost reading its old ones again."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.reporter.domain.log import Entry, Told, read

BODIES_BYTES_MAX = 16 * 1024 * 1024
"""Read, they take some three times that. Enough for the cases of a few seconds at full speed."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one case."""

    told: tuple[Told, ...] = ()
    bodies_bytes: int = 0

    def and_of(self, entries: Iterable[Entry]) -> "Known":
        """Together with what these entries tell; none of them was known."""
        new = list(entries)
        return Known((*self.told, *map(read, new)), self.bodies_bytes + sum(len(entry.body) for entry in new))


class Memory:
    """Cases as a committed transaction saw them, those touched last.

    It may be behind the log, where another reporter appends too, and never ahead: the log only grows. So a case of
    which as many entries are known here as the log counts is known whole.
    """

    def __init__(self, bodies_bytes_max: int = BODIES_BYTES_MAX) -> None:
        self._bodies_bytes_max = bodies_bytes_max
        self._cases: OrderedDict[str, Known] = OrderedDict()
        self._bodies_bytes = 0

    def of(self, case_id: str) -> Known:
        """What is remembered of the case; nothing is remembered of most."""
        return self._cases.get(case_id, Known())

    def keep(self, cases: Mapping[str, Known]) -> None:
        """Remember these, which are committed, and forget what was not touched for longest."""
        for case_id, known in cases.items():
            self._bodies_bytes += known.bodies_bytes - self.of(case_id).bodies_bytes
            self._cases[case_id] = known
            self._cases.move_to_end(case_id)
        while self._bodies_bytes > self._bodies_bytes_max:
            self._bodies_bytes -= self._cases.popitem(last=False)[1].bodies_bytes
