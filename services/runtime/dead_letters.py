"""Work that needs a person. Later work of the same case waits behind it; other cases flow."""

import base64
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID, uuid5

from prometheus_client import Counter

from contracts.base import Fact
from contracts.envelope import Event, Record, follow_up_id, named
from contracts.events.control import RedriveRequested, SkipRequested
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterRedriven, DeadLetterResolved, DeadLetterSkipped
from services.runtime import outbox
from services.runtime.failures import Again, Later, Never, tell
from services.runtime.postgres import Connection

_Said = DeadLetterRaised | DeadLetterRedriven | DeadLetterResolved | DeadLetterSkipped
raised_total = Counter("nightshift_dead_letters_raised_total", "Dead letters raised", ["service", "code"])

_INSERT = """
INSERT INTO dead_letters (dead_letter_id, case_id, process, work, basis, code, message, attempts, record)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING raised_at
"""
_BLOCK = "UPDATE tasks SET state = 'blocked', token = token + 1 WHERE case_id = $1 AND state = 'open'"
_HOLD = """
SELECT pg_advisory_xact_lock(hashtextextended('nightshift.dead_letters:' || current_schema() || ':' || case_id, 0))
FROM dead_letters WHERE dead_letter_id = $1
"""
"""Two that end dead letters of one case at the same moment would each leave the case blocked for the other's sake."""
_REDRIVE = """
WITH ordered AS (
    INSERT INTO redrives (nonce, dead_letter_id, by)
    SELECT $2, dead_letter_id, $3 FROM dead_letters WHERE dead_letter_id = $1
    ON CONFLICT DO NOTHING RETURNING dead_letter_id)
UPDATE dead_letters d SET redriven_at = clock_timestamp() FROM ordered o
WHERE d.dead_letter_id = o.dead_letter_id AND d.redriven_at IS NULL
RETURNING d.case_id, d.process, d.work, d.basis, d.record, d.redriven_at
"""
_UNBLOCK = """
UPDATE tasks t SET state = 'open', attempts = 0, redrives = redrives + 1, token = token + 1,
                   available_at = clock_timestamp()
WHERE case_id = $1 AND state = 'blocked'
  AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.case_id = t.case_id AND d.redriven_at IS NULL)
"""

_WAS_REDRIVEN = """
SELECT 1 FROM dead_letters WHERE dead_letter_id = $1 AND redriven_at IS NOT NULL AND skipped_by IS NULL
"""
_OWE_AGAIN = "UPDATE outbox SET refused = NULL WHERE event_id = $1 AND refused IS NOT NULL RETURNING 1"
_HEAR_AGAIN = "DELETE FROM inbox WHERE event_id = $1"
_FAILED_AGAIN = """
WITH ordered AS (
    INSERT INTO redrives (nonce, dead_letter_id, by) VALUES ($2, $1, $3) ON CONFLICT DO NOTHING RETURNING 1)
UPDATE dead_letters SET attempts = attempts + 1, code = $4, message = $5
WHERE dead_letter_id = $1 AND EXISTS (SELECT FROM ordered)
RETURNING case_id, process, work, basis, attempts, clock_timestamp() AS now
"""
_SKIP = """
UPDATE dead_letters SET redriven_at = clock_timestamp(), skipped_by = $2, skip_reason = $3
WHERE dead_letter_id = $1 AND redriven_at IS NULL
RETURNING case_id, process, work, basis, redriven_at
"""
_RESOLVE = """
UPDATE dead_letters SET redriven_at = clock_timestamp() WHERE dead_letter_id = $1 AND redriven_at IS NULL
RETURNING case_id, process, redriven_at
"""
_GIVE_UP = """
UPDATE tasks SET state = 'done', last_code = 'skipped', token = token + 1
WHERE case_id = $1 AND kind = $2 AND basis = $3 AND state = 'blocked'
"""
"""What is newer than the work that died is work of its own, and goes on."""


async def raise_for_task(
    connection: Connection,
    *,
    service: str,
    dead_letter_id: UUID,
    case_id: str,
    process: str,
    correlation_id: UUID,
    causation_id: UUID,
    work: str,
    basis: str | None,
    code: str,
    message: str,
    attempts: int,
    record: Record | None = None,
) -> None:
    """Put work aside in the caller's transaction, and say so."""
    kept = (
        None
        if record is None
        else {"topic": record.topic, "headers": record.headers, "body": base64.b64encode(record.body).decode()}
    )
    raised_at = await connection.fetchval(
        _INSERT, dead_letter_id, case_id, process, work, basis, code, message, attempts, kept
    )
    if raised_at is None:
        return
    await connection.execute(_BLOCK, case_id)
    raised_total.labels(service, code).inc()
    data = DeadLetterRaised(
        dead_letter_id=dead_letter_id,
        service=service,
        work=work,
        basis=basis,
        code=code,
        message=message,
        attempts=attempts,
    )
    await outbox.append(connection, [_event(service, data, raised_at, case_id, process, correlation_id, causation_id)])


async def raise_for_event(
    connection: Connection, *, service: str, record: Record, event_id: UUID, code: str, message: str
) -> None:
    """Put an event aside that could not be handled, read or published.

    Once more where it was redriven since; never again once it was skipped, however often it is heard.
    """
    headers = record.headers
    dead_letter_id = uuid5(event_id, f"dead_letter|{service}")
    while await connection.fetchval(_WAS_REDRIVEN, dead_letter_id):  # as often as it was redriven
        dead_letter_id = uuid5(dead_letter_id, "again")
    await raise_for_task(
        connection,
        service=service,
        dead_letter_id=dead_letter_id,
        case_id=named(headers, "ce_subject"),
        process=named(headers, "ce_process"),
        correlation_id=_uuid_or(headers.get("ce_correlationid"), event_id),
        causation_id=event_id,
        work=headers.get("ce_type", "unknown"),
        basis=None,
        code=code,
        message=message,
        attempts=1,
        record=record,
    )


async def redrive(
    connection: Connection,
    order: Event[Fact],
    *,
    service: str,
    handle_again: Callable[[Connection, Record], Awaitable[None]],
) -> bool:
    """Carry out one order, once per nonce. False when it is for another service, known, or already carried out."""
    data = order.data
    assert isinstance(data, RedriveRequested), "subscribed for this type alone"
    if data.service != service:
        return False
    await connection.execute(_HOLD, data.dead_letter_id)
    try:
        async with connection.transaction():  # a savepoint: an event that fails again leaves its dead letter as it was
            return await _carry_out(connection, order, data, service, handle_again)
    except Exception as error:
        if isinstance(failure := tell(error), Later):
            raise
        await _say_failed_again(connection, order, data, failure)
        return False


async def skip(connection: Connection, order: Event[Fact], *, service: str) -> bool:
    """End a dead letter without its work. False when it is for another service, or ended already."""
    data = order.data
    assert isinstance(data, SkipRequested), "subscribed for this type alone"
    if data.service != service:
        return False
    await connection.execute(_HOLD, data.dead_letter_id)
    row = await connection.fetchrow(_SKIP, data.dead_letter_id, data.by, data.reason)
    if row is None:
        return False
    await connection.execute(_GIVE_UP, row["case_id"], row["work"], row["basis"])
    await connection.execute(_UNBLOCK, row["case_id"])
    done = DeadLetterSkipped(dead_letter_id=data.dead_letter_id, service=service, reason=data.reason, by=data.by)
    said = _event(
        service, done, row["redriven_at"], row["case_id"], row["process"], order.correlation_id, order.event_id
    )
    await outbox.append(connection, [said])
    return True


async def resolve(
    connection: Connection, dead_letter_id: UUID, *, service: str, reason: str, cause: Event[Fact]
) -> None:
    """End a dead letter whose work is done after all. Nothing is said of one that ended already."""
    await connection.execute(_HOLD, dead_letter_id)
    row = await connection.fetchrow(_RESOLVE, dead_letter_id)
    if row is None:
        return
    await connection.execute(_UNBLOCK, row["case_id"])
    done = DeadLetterResolved(dead_letter_id=dead_letter_id, service=service, reason=reason)
    said = _event(
        service, done, row["redriven_at"], row["case_id"], row["process"], cause.correlation_id, cause.event_id
    )
    await outbox.append(connection, [said])


async def _say_failed_again(
    connection: Connection, order: Event[Fact], data: RedriveRequested, failure: Never | Again
) -> None:
    """Who ordered the redrive learns that it came to nothing."""
    row = await connection.fetchrow(
        _FAILED_AGAIN, data.dead_letter_id, data.nonce, data.by, failure.code, failure.message
    )
    if row is None:
        return
    raised = DeadLetterRaised(
        dead_letter_id=data.dead_letter_id,
        service=data.service,
        work=row["work"],
        basis=row["basis"],
        code=failure.code,
        message=failure.message,
        attempts=row["attempts"],
    )
    said = _event(
        data.service, raised, row["now"], row["case_id"], row["process"], order.correlation_id, order.event_id
    )
    await outbox.append(connection, [said])


async def _carry_out(
    connection: Connection,
    order: Event[Fact],
    data: RedriveRequested,
    service: str,
    handle_again: Callable[[Connection, Record], Awaitable[None]],
) -> bool:
    row = await connection.fetchrow(_REDRIVE, data.dead_letter_id, data.nonce, data.by)
    if row is None:
        return False
    if (kept := row["record"]) is not None:
        record = Record(kept["topic"], row["case_id"], kept["headers"], base64.b64decode(kept["body"]))
        event_id = _uuid_or(record.headers.get("ce_id"), data.dead_letter_id)
        if await connection.fetchval(_OWE_AGAIN, event_id) is None:  # else the broker refused it: the relay tries again
            await connection.execute(_HEAR_AGAIN, event_id)
            await handle_again(connection, record)
    await connection.execute(_UNBLOCK, row["case_id"])
    done = DeadLetterRedriven(dead_letter_id=data.dead_letter_id, service=service, nonce=data.nonce, by=data.by)
    said = _event(
        service, done, row["redriven_at"], row["case_id"], row["process"], order.correlation_id, order.event_id
    )
    await outbox.append(connection, [said])
    return True


def _event(
    service: str,
    data: _Said,
    time: datetime,
    case_id: str,
    process: str,
    correlation_id: UUID,
    causation_id: UUID,
) -> Event[_Said]:
    return Event(
        event_id=follow_up_id(causation_id, data.TYPE, service, data.dead_letter_id),
        source=f"nightshift/{service}",
        time=time,
        process=process,
        case_id=case_id,
        correlation_id=correlation_id,
        causation_id=causation_id,
        data=data,
    )


def _uuid_or(text: str | None, other: UUID) -> UUID:
    try:
        return UUID(text) if text else other
    except ValueError:
        return other
