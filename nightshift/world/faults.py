"""What may go wrong with the simulated Zendesk, at the word of a test or of a newcomer."""

from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field

Down = Literal["", "503", "cut"]
Fault = Literal["fail", "rate_limited", "no_effect", "effect_then_500", "effect_then_cut", "late"]
"""Of one call that writes: 500 and nothing done; 429; 200 and nothing done; done and 500; done and the connection cut;
done `late_seconds` later and never answered. `fail` and `rate_limited` meet reads too."""

FAULTS: tuple[Fault, ...] = get_args(Fault)
_OF_READS: tuple[Fault, ...] = ("fail", "rate_limited")


@dataclass(kw_only=True)
class Faults:
    """The faults in force. Without any, everything works."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    down: Down = ""
    """Every call answers 503, or its connection is cut."""
    percent: dict[Fault, float] = field(default_factory=dict)
    """The chance of each fault, 0 to 100; at most one strikes a call."""
    upcoming: list[Fault] = field(default_factory=list)
    """Faults that strike the next calls that write, one each, before any chance."""
    late_seconds: float = 60.0
    hold_seconds: float = 30.0
    """How long a late call's connection stays open before it is cut."""
    retry_after_seconds: int = 1
    list_refused: Annotated[int, Field(ge=0, le=599)] = 0
    """The status with which the incremental list is refused: 403 to one who is no admin, 429, 503. 0: it is had."""

    def strike(self, random: Random, *, writes: bool) -> Fault | None:
        """Which fault this call meets."""
        if writes and self.upcoming:
            return self.upcoming.pop(0)
        for fault in FAULTS if writes else _OF_READS:
            if random.random() * 100 < self.percent.get(fault, 0):
                return fault
        return None
