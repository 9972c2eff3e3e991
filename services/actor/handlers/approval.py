"""`approval.answered`, and answers that never came: exactly what was approved is planned, once, and only in time."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import structlog
from pydantic import TypeAdapter

from contracts.base import Fact
from contracts.decision import Action, Reason, Request
from contracts.envelope import Event
from contracts.events.control import ApprovalAnswered
from contracts.events.decisions import ApprovalResolved
from contracts.sealed import UnsealableError
from services.actor.domain import effect
from services.actor.handlers import ledger
from services.actor.handlers.hand_over import Handover, hand_over_beside
from services.actor.handlers.say import SOURCE, Cause, approvals_put_off_total, say
from services.runtime import cases, outbox, vault
from services.runtime.failures import Later, tell
from services.runtime.postgres import Connection
from services.runtime.process import Process

EXPIRED_ROWS_MAX = 200
PUT_OFF_SECONDS = 300.0
"""Until an approval whose case could not be read is looked at again: a newer build may read it."""
_REQUESTS = TypeAdapter(list[Request])

_WAITING = """
SELECT a.*, c.basis AS newest, clock_timestamp() AS now FROM approvals a JOIN cases c USING (case_id)
WHERE a.approval_id = $1 AND a.state = 'waiting' FOR UPDATE OF a
"""
_OVERDUE = """
SELECT a.*, c.basis AS newest, clock_timestamp() AS now FROM approvals a JOIN cases c USING (case_id)
WHERE a.process = $1 AND a.state = 'waiting' AND a.expires_at <= clock_timestamp()
  AND (a.put_off_until IS NULL OR a.put_off_until <= clock_timestamp())
ORDER BY a.expires_at LIMIT $2 FOR UPDATE OF a SKIP LOCKED
"""
_PUT_OFF = """
UPDATE approvals SET put_off_until = clock_timestamp() + make_interval(secs => $2) WHERE approval_id = $1
"""
_RESOLVE = "UPDATE approvals SET state = $2, resolved_by = $3, resolved_at = $4 WHERE approval_id = $1"

log = structlog.get_logger()

Answer = Literal["approved", "denied", "expired", "superseded"]


async def approval_answered(
    connection: Connection, events: Sequence[Event[Fact]], *, processes: Mapping[str, Process]
) -> None:
    """Carry out what people answered. An answer to something else than what was shown changes nothing."""
    for event in events:
        assert isinstance(event.data, ApprovalAnswered)
        row = await connection.fetchrow(_WAITING, event.data.approval_id)
        if row is None or row["digest"] != event.data.digest:
            continue
        await _answer(connection, event, event.data, row, processes[row["process"]])


async def _answer(
    connection: Connection, event: Event[Fact], data: ApprovalAnswered, row: ledger.Row, process: Process
) -> None:
    cause = Cause(event.event_id, row["correlation_id"], row["traceparent"])
    if row["expires_at"] <= row["now"]:
        await _expire(connection, row, process)
    elif row["basis"] != row["newest"]:
        await _resolve(connection, row, "superseded", by=SOURCE, reason="newer_basis")
    elif data.answer == "denied":
        await _resolve(connection, row, "denied", by=data.by, reason=data.reason)
        await _to_a_person(connection, row, process, "approval_denied", "A person denied what was proposed.", cause)
    else:
        await _approve(connection, data, row, process, cause)


async def _approve(
    connection: Connection, data: ApprovalAnswered, row: ledger.Row, process: Process, cause: Cause
) -> None:
    keys = (await vault.read(connection, [row["case_id"]]))[row["case_id"]]
    try:
        requests = _REQUESTS.validate_json(keys.unseal(row["requests"]))
    except UnsealableError:
        await _resolve(connection, row, "superseded", by=SOURCE, reason="text_erased")
        return
    assert effect.approval_digest(row["basis"], requests) == row["digest"], "the stored requests are those approved"
    actions = [Action(name=name) for name in row["granted"]]
    planned = [
        ledger.Planned(
            case_id=row["case_id"],
            process=process.name,
            basis=row["basis"],
            request=request,
            sealed=keys.seal(request.model_dump_json()),
            granted=effect.granted_modes(actions, row["granted"]),
            cause=cause,
            asked_at=row["asked_at"],
            approval_id=row["approval_id"],
        )
        for request in requests
    ]
    fresh = await ledger.plan(connection, planned)
    keys_planned = tuple(p.key for p in planned if p.key in fresh)
    await _resolve(connection, row, "approved", by=data.by, reason=data.reason, effect_keys=keys_planned)


async def expire_approvals(connection: Connection, process: Process) -> int:
    """What nobody answered in time, by the database's clock, is a no. Returns how many there were.

    One whose case cannot be read (damaged, or written by a newer build) stays open for later and stops no other.
    """
    rows = await connection.fetch(_OVERDUE, process.name, EXPIRED_ROWS_MAX)
    expired = 0
    for row in rows:
        try:
            async with connection.transaction():  # a savepoint
                await _expire(connection, row, process)
            expired += 1
        except Exception as error:
            if isinstance(failure := tell(error), Later):
                raise
            await connection.execute(_PUT_OFF, row["approval_id"], PUT_OFF_SECONDS)
            approvals_put_off_total.labels(process.name).inc()
            log.error(  # noqa: TRY400  # a traceback may quote people's text
                "an overdue approval waits: its case cannot be read",
                process=process.name,
                case_id=row["case_id"],
                error=type(error).__name__,
                code=failure.code,
            )
    return expired


async def _expire(connection: Connection, row: ledger.Row, process: Process) -> None:
    await _resolve(connection, row, "expired", by=SOURCE)
    cause = Cause(row["approval_id"], row["correlation_id"], row["traceparent"])
    await _to_a_person(connection, row, process, "approval_expired", "Nobody answered in time.", cause)


async def _to_a_person(
    connection: Connection, row: ledger.Row, process: Process, code: str, text: str, cause: Cause
) -> None:
    stored = (await cases.read(connection, {process.name: process}, [row["case_id"]]))[row["case_id"]]
    if row["basis"] != row["newest"]:
        return
    reasons = (Reason(code=code, text=text),)
    handover = Handover(stored=stored, basis=row["basis"], reasons=reasons, cause=cause)
    await hand_over_beside(connection, {process.name: process}, [handover])


async def _resolve(
    connection: Connection,
    row: ledger.Row,
    answer: Answer,
    *,
    by: str,
    reason: str = "",
    effect_keys: tuple[str, ...] = (),
) -> None:
    """An approval ends once: its id alone names the event."""
    now: datetime = row["now"]
    await connection.execute(_RESOLVE, row["approval_id"], answer, by, now)
    data = ApprovalResolved(
        approval_id=row["approval_id"],
        basis=row["basis"],
        answer=answer,
        by=by,
        reason=reason,
        effect_keys=effect_keys,
    )
    cause = Cause(row["approval_id"], row["correlation_id"], row["traceparent"])
    said = say(data, cause=cause, case_id=row["case_id"], process=row["process"], time=now)
    await outbox.append(connection, [said])
