"""What the actor needs of the outside."""

from dataclasses import dataclass
from typing import Protocol

from connectors.protocol import Reads, ReadsBack, Sends
from contracts.decision import Request


class ReadableDestination(Sends, ReadsBack, Reads, Protocol):
    """Where writes can be found again and objects read."""


@dataclass(frozen=True, slots=True)
class Outside:
    """A connected destination. `reader` is none where nothing can be read back (mail, a chat webhook)."""

    sends: Sends
    reader: ReadableDestination | None = None


def carries_stamp(request: Request) -> bool:
    """Only a conditional request carries a stamp."""
    return request.semantics == "conditional"
