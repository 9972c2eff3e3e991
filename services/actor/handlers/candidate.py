"""A candidate that proposes for a share of the cases is watched, and switched off where it is worse than the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog

from contracts.base import Fact
from contracts.decision import Verdict
from contracts.envelope import Event, follow_up_id
from contracts.events.control import CandidateChanged
from contracts.events.proposals import ProposalFailed
from services.actor.domain.returns import Came, why_return
from services.actor.handlers.say import SOURCE
from services.runtime import candidates, outbox
from services.runtime.postgres import Connection
from services.runtime.process import Process

NOT_WATCHED: Final = "the actor has no candidate to watch: start it anew with the candidate's files and settings"
_NAMES = uuid5(NAMESPACE_URL, "nightshift:candidate")

_ADD = """
INSERT INTO trials (event_id, process, generation, candidate, outcome, cost_usd)
SELECT event_id, $1, $2, candidate, outcome, cost_usd
FROM unnest($3::uuid[], $4::boolean[], $5::text[], $6::numeric[]) t(event_id, candidate, outcome, cost_usd)
ON CONFLICT DO NOTHING
"""
_COUNT = """
SELECT candidate, count(*) AS cases, count(*) FILTER (WHERE outcome = 'hold') AS held,
       count(*) FILTER (WHERE outcome = 'refuse') AS refused, count(*) FILTER (WHERE outcome = 'failed') AS failed,
       sum(cost_usd) AS cost_usd
FROM actor.trials WHERE process = $1 AND generation = $2 GROUP BY candidate  -- named in full: the operator asks as well
"""
_FORGET = "DELETE FROM trials WHERE process = $1 AND generation <> $2"
_END = "SELECT *, clock_timestamp() AS now FROM control.end_candidate($1, $2, $3, $4)"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one proposal."""

    event_id: UUID
    regime: str | None
    candidate: bool
    """It was the candidate's turn."""
    outcome: Verdict | Literal["failed"]
    cost_usd: Decimal


async def add_trials(connection: Connection, process: Process, trials: Sequence[Trial]) -> None:
    """Count what came of these, in the transaction that says it; nothing while no candidate proposes for cases.

    What its fallback or the live regime answered in its turn is left out, for its cost is the candidate's as well; and
    so is what an older candidate proposed before it was changed.
    """
    if process.candidate is None or not trials:
        return
    order = await candidates.order_of(connection, process.name)
    if order is None or order.mode != "canary":
        return
    counted = [t for t in trials if t.outcome != "ignore" and (not t.candidate or t.regime == order.regime)]
    await connection.execute(
        _ADD,
        process.name,
        order.generation,
        [trial.event_id for trial in counted],
        [trial.candidate for trial in counted],
        [trial.outcome for trial in counted],
        [trial.cost_usd for trial in counted],
    )


async def add_failures(connection: Connection, process: Process, events: Sequence[Event[Fact]]) -> None:
    """Count the proposals that failed."""
    trials = [
        Trial(
            event_id=event.event_id,
            regime=event.data.regime,
            candidate=event.data.candidate,
            outcome="failed",
            cost_usd=event.data.cost_usd,
        )
        for event in events
        if isinstance(event.data, ProposalFailed) and event.process == process.name
    ]
    await add_trials(connection, process, trials)


async def came(connection: Connection, process: str, generation: int) -> tuple[Came, Came]:
    """What came of the candidate's cases since that order, and of the others."""
    rows = await connection.fetch(_COUNT, process, generation)
    by = {row["candidate"]: Came(**{name: row[name] for name in Came.__dataclass_fields__}) for row in rows}
    return by.get(True, Came()), by.get(False, Came())


async def return_from_candidate(connection: Connection, process: Process) -> int:
    """Switch a candidate off that is worse, or that this actor cannot watch, and say so. Returns how many events."""
    order = await candidates.order_of(connection, process.name)
    watched = order is not None and order.mode == "canary"
    await connection.execute(_FORGET, process.name, order.generation if order is not None and watched else 0)
    if order is None or not watched:
        return 0
    mine, others = await came(connection, process.name, order.generation)
    worse = why_return(mine, others, process.settings.candidate.returns)
    why = NOT_WATCHED if process.candidate is None else worse
    if why is None:
        return 0
    row = await connection.fetchrow(_END, process.name, order.generation, why, SOURCE)
    if row is None:
        return 0  # somebody ordered otherwise meanwhile
    log.error("a candidate is switched off", process=process.name, regime=order.regime, why=why)
    data = CandidateChanged(
        mode="off",
        percent=row["percent"],
        model=row["model"],
        regime=row["regime"],
        generation=row["generation"],
        reason=why,
        by=SOURCE,
    )
    event_id = follow_up_id(_NAMES, data.TYPE, process.name, row["generation"])
    said = Event(
        event_id=event_id,
        source=SOURCE,
        time=row["now"],
        process=process.name,
        case_id=process.name,
        correlation_id=event_id,
        causation_id=None,
        data=data,
    )
    await outbox.append(connection, [said])
    return 1
