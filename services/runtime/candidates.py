"""How far a process's candidate goes: what a person ordered for one regime, on a share of the cases."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.runtime.postgres import Connection

Mode = Literal["off", "shadow", "canary"]

_ORDER = """
SELECT mode, percent, model, regime, generation, reason, changed_by, changed_at FROM control.candidates
WHERE process = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A row of control.candidates."""

    mode: Mode
    percent: int
    model: str
    regime: str
    generation: int
    reason: str
    changed_by: str
    changed_at: datetime

    def takes(self, mode: Mode, case_id: str) -> bool:
        """Whether this case is of the share that the order puts into this mode."""
        return self.mode == mode and place_of(case_id) < self.percent


def place_of(case_id: str) -> int:
    """0 to 99, for ever the same: a share of so many percent is those below, so a larger share only adds cases."""
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8]) % 100


async def order_of(connection: Connection, process: str) -> Order | None:
    """What was ordered last; none where nobody ever did."""
    row = await connection.fetchrow(_ORDER, process)
    return None if row is None else Order(**row)
