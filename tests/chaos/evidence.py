"""What both sides hold when a scenario is over: the outside's own books, and the event log."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, get_args

import orjson

from nightshift.demo.ours import Ours
from nightshift.demo.outside import Books
from services.runtime.postgres import Connection
from services.runtime.process import Ceilings, Unit

_EVENTS = """
SELECT type, case_id, time, body FROM reporter.event_log WHERE type = ANY($1) ORDER BY position
"""
_TYPES = (
    "case.opened.v1",
    "case.changed.v1",
    "decision.made.v1",
    "handover.planned.v1",
    "approval.resolved.v1",
    "effect.attempted.v1",
    "process.paused.v1",
    "process.resumed.v1",
)
_ROWS_AT_ONCE = 2000
_SPENT = """
SELECT 'run' AS period, sum(tokens_in + tokens_out) AS tokens, sum(cost_usd) AS usd
FROM classifier.model_calls WHERE process = $1 GROUP BY run
UNION ALL SELECT 'day', sum(tokens_in + tokens_out), sum(cost_usd)
FROM classifier.model_calls WHERE process = $1 GROUP BY day
UNION ALL SELECT 'total', sum(tokens_in + tokens_out), sum(cost_usd)
FROM classifier.model_calls WHERE process = $1 HAVING count(*) > 0
"""


@dataclass(frozen=True, slots=True)
class Write:
    """One change of a ticket by our user, as the outside keeps it."""

    ticket_id: int
    audit_id: int
    effect_key: str | None
    """What we wrote beside it; no count is made by it."""
    public: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """One outside change in the log. The identity is the sender's."""

    case_id: str
    identity: str


@dataclass(frozen=True, slots=True)
class Planned:
    """What allowed effects: a decision, a handover beside it, or a person's answer."""

    by: str
    """A verdict, `handover`, or `approved`."""
    effect_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """An effect's call, committed before it was made."""

    case_id: str
    effect_key: str
    basis: str
    public: bool
    generation: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Switched:
    """The switch was thrown, by the database's clock."""

    generation: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The event log, as far as the invariants ask; in the order in which it grew."""

    changes: Sequence[Changed] = ()
    planned: Sequence[Planned] = ()
    attempts: Sequence[Attempt] = ()
    switched: Sequence[Switched] = ()


@dataclass(frozen=True, slots=True)
class Spent:
    """What models took in one period that has a ceiling, reserved calls counted."""

    process: str
    period: str
    unit: Unit
    used: Decimal
    ceiling: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that the invariants are judged by."""

    accepted: Counter[str]
    """Events that intake said it took, and how often: counted at the door."""
    webhooks_pending: int
    """Deliveries that the outside still tries."""
    books: Books
    writes: Sequence[Write]
    log: Log
    ours: Ours
    """What our side says of its cases, and what is not done yet."""
    older: frozenset[int]
    """Tickets from before the door's start."""
    replies_per_ticket_max: int
    live: str
    """Digest of the projections as they were."""
    rebuilt: str
    """Digest of the projections, rebuilt from the log."""
    spent: Sequence[Spent] = ()


async def read_spent(connection: Connection, process: str, ceilings: Ceilings) -> list[Spent]:
    """By the calls themselves, not by the sums that the ceilings are held with."""
    return [
        Spent(process, row["period"], unit, row[unit], ceiling)
        for row in await connection.fetch(_SPENT, process)
        for unit in get_args(Unit)
        if (ceiling := ceilings.of(row["period"], unit)) is not None
    ]


async def read_log(connection: Connection) -> Log:
    """Read the log, a part at a time: the bodies of a large night do not fit into memory together."""
    changes: list[Changed] = []
    planned: list[Planned] = []
    attempts: list[Attempt] = []
    switched: list[Switched] = []
    async with connection.transaction(readonly=True):
        async for row in connection.cursor(_EVENTS, _TYPES, prefetch=_ROWS_AT_ONCE):
            data: dict[str, Any] = orjson.loads(row["body"])
            match row["type"]:
                case "decision.made.v1":
                    planned.append(Planned(data["verdict"], tuple(data["effect_keys"])))
                case "handover.planned.v1":
                    planned.append(Planned("handover", tuple(data["effect_keys"])))
                case "approval.resolved.v1":
                    planned.append(Planned(data["answer"], tuple(data["effect_keys"])))
                case "effect.attempted.v1":
                    attempts.append(
                        Attempt(
                            row["case_id"],
                            data["effect_key"],
                            data["basis"],
                            data["public"],
                            data["switch_generation"],
                            row["time"],
                        )
                    )
                case "process.paused.v1" | "process.resumed.v1":
                    switched.append(Switched(data["generation"], row["time"]))
                case _:
                    changes.append(Changed(row["case_id"], data["identity"]))
    return Log(changes=changes, planned=planned, attempts=attempts, switched=switched)
