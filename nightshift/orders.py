"""What a person orders by the shell becomes an event in the outbox of `control`, as the console's orders do.

The reporter relays it; while no stack runs the order waits there, and is carried out at the next start.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID, uuid4

from contracts.envelope import Event
from contracts.events.control import (
    ApprovalAnswered,
    CandidateChanged,
    CauseAcknowledged,
    RedriveRequested,
    RegimeAdmitted,
    SkipRequested,
)
from nightshift import MendableError
from services.reporter.domain.views import ApprovalRow, DeadLetterRow
from services.reporter.outbound import queries
from services.runtime.candidates import Mode
from services.runtime.postgres import Connection

SOURCE = "nightshift/control"
REASON_CHARACTERS_MAX = 500

Id = TypeVar("Id", UUID, str)

_APPEND = """
INSERT INTO control.outbox (event_id, topic, key, headers, body) VALUES ($1, $2, $3, $4::jsonb, $5)
"""


def reason_of(given: str) -> str:
    """What is recorded as the reason. Raises MendableError."""
    reason = given.strip()
    if not reason or len(reason) > REASON_CHARACTERS_MAX:
        raise MendableError(f"say with --reason why, in 1 to {REASON_CHARACTERS_MAX} characters")
    return reason


_WAITING = "SELECT regime FROM control.live_regimes WHERE process = $1 AND admitted_at IS NULL ORDER BY model"
_KNOW = """
INSERT INTO control.regimes (process, model, regime, seen_at) VALUES ($1, $2, $3, 'epoch') ON CONFLICT DO NOTHING
"""
"""A candidate's regime is no live one: whatever waits to be served was seen lately."""
_ADMITTED = "SELECT regime FROM control.regimes WHERE process = $1 AND admitted_at IS NOT NULL"
_ADMIT = """
UPDATE control.regimes SET admitted_at = clock_timestamp(), admitted_by = $3, reason = $4
WHERE process = $1 AND regime = $2 RETURNING model
"""


_CANDIDATE = """
INSERT INTO control.candidates AS c (process, mode, percent, model, regime, reason, changed_by)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (process) DO UPDATE SET mode = excluded.mode, percent = excluded.percent, model = excluded.model,
    regime = excluded.regime, reason = excluded.reason, changed_by = excluded.changed_by,
    generation = c.generation + 1, changed_at = clock_timestamp()
RETURNING generation
"""


class NoSuchIdError(MendableError):
    """Nothing that waits has this id, or several have."""

    def __init__(self, what: str, wanted: str, found: int, command: str) -> None:
        why = "no" if not found else f"{found} different"
        super().__init__(
            f"{why} waiting {what}s begin with {wanted!r}: `nightshift {command}` lists them with their ids"
        )


async def order(
    connection: Connection,
    data: RedriveRequested | SkipRequested | ApprovalAnswered | CauseAcknowledged | RegimeAdmitted | CandidateChanged,
    *,
    process: str,
    case_id: str,
) -> UUID:
    """Write one order down; returns its event's id."""
    event_id = uuid4()
    record = Event(
        event_id=event_id,
        source=SOURCE,
        time=datetime.now(UTC),
        process=process,
        case_id=case_id,
        correlation_id=event_id,
        causation_id=None,
        data=data,
    ).to_record()
    await connection.execute(_APPEND, event_id, record.topic, record.key, json.dumps(record.headers), record.body)
    return event_id


async def dead_letter(connection: Connection, wanted: str) -> DeadLetterRow:
    """The open dead letter whose id is or begins with `wanted`, however many wait. Raises NoSuchIdError."""
    rows = {row.dead_letter_id: row for row in await queries.dead_letters(connection, id_begins=_as_id(wanted))}
    return rows[one_of(list(rows), wanted, what="dead letter", command="dead-letters")]


async def approval(connection: Connection, wanted: str) -> ApprovalRow:
    """As `dead_letter`, for an approval that waits. Raises NoSuchIdError."""
    rows = {row.approval_id: row for row in await queries.approvals(connection, id_begins=_as_id(wanted))}
    return rows[one_of(list(rows), wanted, what="approval", command="approvals")]


async def waiting_regimes(connection: Connection, process: str) -> list[str]:
    """What a classifier would serve now, and may not."""
    return [row["regime"] for row in await connection.fetch(_WAITING, process)]


async def admit(connection: Connection, process: str, regime: str, *, reason: str, by: str) -> RegimeAdmitted:
    """Let one of these be served. What is let through and what is said commit together."""
    async with connection.transaction():
        model = await connection.fetchval(_ADMIT, process, regime, by, reason)
        admitted = RegimeAdmitted(model=model, regime=regime, reason=reason, by=by)
        await order(connection, admitted, process=process, case_id=process)
        return admitted


async def know(connection: Connection, process: str, regimes: Mapping[str, str]) -> None:
    """Let a candidate's regimes, by model, be admitted before any classifier would serve one."""
    for model, regime in regimes.items():
        await connection.execute(_KNOW, process, model, regime)


async def admitted(connection: Connection, process: str) -> frozenset[str]:
    """The regimes that may be served without a passed eval."""
    return frozenset(row["regime"] for row in await connection.fetch(_ADMITTED, process))


async def change_candidate(
    connection: Connection,
    process: str,
    *,
    mode: Mode,
    percent: int,
    model: str,
    regime: str,
    reason: str,
    by: str,
) -> CandidateChanged:
    """Say how far this one regime goes, and no other. What is in force and what is said commit together."""
    async with connection.transaction():
        generation = await connection.fetchval(_CANDIDATE, process, mode, percent, model, regime, reason, by)
        changed = CandidateChanged(
            mode=mode, percent=percent, model=model, regime=regime, generation=generation, reason=reason, by=by
        )
        await order(connection, changed, process=process, case_id=process)
        return changed


def one_of(ids: Sequence[Id], wanted: str, *, what: str, command: str) -> Id:
    """The one id that is or begins with `wanted`, as lists show them. Raises NoSuchIdError."""
    found = [one for one in ids if str(one).startswith(_as_id(wanted))]
    if len(found) != 1:
        raise NoSuchIdError(what, wanted, len(found), command)
    return found[0]


def _as_id(wanted: str) -> str:
    return wanted.strip().lower()
