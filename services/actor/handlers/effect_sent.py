"""What came of a claim, in a transaction of its own: acknowledged, again, unknown, dead, or found outside."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from connectors.protocol import Acknowledged, PlainChange, Written
from contracts.envelope import Event
from contracts.events.effects import EffectAcknowledged
from contracts.failures import ConflictError, LaterError, OutcomeUnknownError, PermanentError
from contracts.sealed import UnsealableError
from services.actor.domain import effect
from services.actor.handlers import ledger
from services.actor.handlers.case_changed import after_folding
from services.actor.handlers.effect_claimed import Claim
from services.actor.handlers.effect_ended import die, put_back
from services.actor.handlers.say import effects_total, say
from services.runtime import cases, outbox, vault
from services.runtime.changes import seal_change
from services.runtime.failures import backoff_seconds, jitter
from services.runtime.postgres import Connection
from services.runtime.process import Process

NOT_SENT = "claimed_too_long_ago"
"""Between the claim's commit and the sending too much time passed: not sent, claimed again."""
REFUSED_LOOKS = 7
"""So often in vain, in some 50 seconds, an earlier attempt is looked for before a refusal of a later one counts."""
GONE_LOOKS = 1
"""What is closed or deleted changes no more: what landed before can be seen at once."""

_ACKNOWLEDGE = """
UPDATE effects e SET state = CASE e.state WHEN 'observed' THEN 'observed' ELSE 'acknowledged' END, code = NULL,
       reference = a.reference, acknowledged_at = a.at, answered_at = clock_timestamp(), token = token + 1, looks = 0,
       stamp_reused = false, conflicted = false
FROM unnest($1::text[], $2::integer[], $3::text[], $4::timestamptz[]) a(effect_key, attempt, reference, at)
WHERE e.effect_key = a.effect_key AND e.attempt = a.attempt
  AND e.state IN ('in_flight', 'unknown', 'observed', 'planned')
RETURNING e.*, clock_timestamp() AS now
"""
_OURS = "SELECT *, clock_timestamp() AS now FROM effects WHERE effect_key = $1 AND token = $2 FOR UPDATE"
_UNCERTAIN = """
UPDATE effects SET state = 'unknown', code = $2, token = token + 1, stamp_reused = true,
       available_at = greatest(clock_timestamp(), attempted_at + $3::interval)
WHERE effect_key = $1
"""
_REFUSED = """
UPDATE effects SET state = 'unknown', code = $2, token = token + 1, conflicted = $3, available_at = clock_timestamp()
WHERE effect_key = $1
"""
_CONFLICT = "UPDATE effects SET stamp = NULL, needs_refresh = true, looks = 0 WHERE effect_key = $1"
_UNCOUNTED = """
UPDATE effects SET stamp = CASE WHEN stamp_reused THEN stamp END, tries = tries - 1, looks = 0 WHERE effect_key = $1
"""
_NOT_THERE = """
UPDATE effects SET stamp = CASE WHEN conflicted THEN NULL ELSE stamp END, needs_refresh = conflicted,
       stamp_reused = NOT conflicted, tries = tries - 1, looks = looks + 1
WHERE effect_key = $1
"""
_REFRESHED = """
UPDATE effects SET stamp = $2, needs_refresh = false, token = token + 1, available_at = clock_timestamp()
WHERE effect_key = $1 AND state = 'planned' AND token = $3
"""


async def acknowledged(connection: Connection, answers: Sequence[tuple[Claim, Acknowledged]], *, look: bool) -> None:
    """Definite yeses. One stands even when the lease was lost meanwhile: the attempt's number says whose it is."""
    rows = await connection.fetch(
        _ACKNOWLEDGE,
        [claim.key for claim, _ in answers],
        [claim.row["attempt"] for claim, _ in answers],
        [answer.reference for _, answer in answers],
        [answer.at for _, answer in answers],
    )
    await outbox.append(connection, [_said(row) for row in rows])
    for row in rows:
        effects_total.labels(row["process"], row["destination"], "acknowledged").inc()
        if not look:  # a yes is all that will ever be known of it
            ledger.count_answer(row)
    if look:
        unseen = [row for row in rows if row["state"] == "acknowledged"]
        await ledger.wish_looks(connection, [(row["case_id"], row["destination"], row["process"]) for row in unseen])


def _said(row: ledger.Row) -> Event[EffectAcknowledged]:
    data = EffectAcknowledged(
        **ledger.facts_of(row), reference=row["reference"], acknowledged_at=row["acknowledged_at"]
    )
    return say(
        data,
        row["effect_key"],
        row["attempt"],
        cause=ledger.cause_of(row),
        case_id=row["case_id"],
        process=row["process"],
        time=row["now"],
    )


async def not_done(
    connection: Connection, claim: Claim, process: Process, failure: Exception, *, counted: bool = False
) -> None:
    """No yes came. Whoever lost the lease says nothing: somebody else goes on from there.

    `counted`: a wait that is this effect's own, for others fare better, and that must not last for ever.
    """
    row = await connection.fetchrow(_OURS, claim.key, claim.row["token"])
    if row is None:
        return
    spent = row["tries"] >= process.settings.limits.attempts_max
    match failure:
        case ConflictError() | PermanentError() if row["stamp_reused"] and row["looks"] < _looks_before(failure):
            # This attempt was refused, but an earlier one under the same stamp may be the reason: look first. Only a
            # conflict says that the earlier one cannot land any more; after any other refusal it still may.
            await connection.execute(_REFUSED, claim.key, failure.code, isinstance(failure, ConflictError))
        case ConflictError() if spent:
            await die(connection, process, row, claim.stored, failure.code, str(failure))
        case ConflictError():
            await connection.execute(_CONFLICT, claim.key)
            await put_back(connection, row, code=failure.code, seconds=0.0)
        case LaterError() if counted and spent:
            await die(connection, process, row, claim.stored, failure.code, str(failure))
        case LaterError():
            if not counted:
                await connection.execute(_UNCOUNTED, claim.key)
            await put_back(connection, row, code=failure.code, seconds=failure.seconds)
        case PermanentError() if failure.code in effect.GONE_CODES:
            await ledger.end(connection, claim.key, state="superseded", code=failure.code)
        case PermanentError():
            await die(connection, process, row, claim.stored, failure.code, str(failure))
        case _:
            code = failure.code if isinstance(failure, OutcomeUnknownError) else "unforeseen"
            wait = timedelta(seconds=effect.SETTLED_SECONDS)
            await connection.execute(_UNCERTAIN, claim.key, code, wait)


def _looks_before(refusal: ConflictError | PermanentError) -> float:
    """After how many looks in vain a refusal counts. A conflict never does: the next attempt has a fresh stamp."""
    if isinstance(refusal, ConflictError):
        return math.inf
    return GONE_LOOKS if refusal.code in effect.GONE_CODES else REFUSED_LOOKS


async def read_back(connection: Connection, claim: Claim, process: Process, written: Sequence[Written]) -> None:
    """An unknown attempt was looked for and not found (found ones end in effect_observed): it is sent again.

    Under the same stamp, so that a first call landing late makes one of the two fail; a fresh stamp only after a 409,
    for then no earlier attempt can land any more. The wait grows with the looks in vain since the last answer of the
    other side, not with all attempts: patience that it asked for earlier says nothing about this one.
    """
    row = await connection.fetchrow(_OURS, claim.key, claim.row["token"])
    if row is None or any(w.effect_key == claim.key for w in written):
        return
    if _waited_out(process, claim, row):
        await die(connection, process, row, claim.stored, "unknown_outcome", "sent several times and never found")
        return
    wait = backoff_seconds(row["looks"] + 1, chance=jitter()) if row["looks"] else 0.0
    await connection.execute(_NOT_THERE, claim.key)
    await put_back(connection, row, code="not_found", seconds=wait)


def _waited_out(process: Process, claim: Claim, row: ledger.Row) -> bool:
    """Whether even an outage is no excuse any more.

    What was looked for and not found may be sent again safely, so such attempts are not counted: calls that a long
    outage cut, or that died with their sender, say nothing about the effect.
    """
    waited: timedelta = row["now"] - row["created_at"]
    return waited > process.max_age(claim.stored.door)


async def cannot_read(connection: Connection, claim: Claim, process: Process, failure: Exception) -> None:
    """Reading back, or before sending, failed: the row keeps its state and is taken up again later."""
    row = await connection.fetchrow(_OURS, claim.key, claim.row["token"])
    if row is None:
        return
    if isinstance(failure, PermanentError):
        if failure.code in effect.GONE_CODES:
            await ledger.end(connection, claim.key, state="superseded", code=failure.code)
        else:
            await die(connection, process, row, claim.stored, failure.code, str(failure))
        return
    seconds = failure.seconds if isinstance(failure, LaterError) else backoff_seconds(4, chance=jitter())
    await connection.execute(
        "UPDATE effects SET available_at = clock_timestamp() + $2::interval, token = token + 1 WHERE effect_key = $1",
        claim.key,
        timedelta(seconds=seconds),
    )


async def not_recorded(connection: Connection, claim: Claim, process: Process, error: str) -> None:
    """What came of a claim could not be recorded, for a fault of ours. What was sent may have been carried out."""
    if claim.work == "send":
        await not_done(connection, claim, process, OutcomeUnknownError("unforeseen", error))
    else:
        await cannot_read(connection, claim, process, PermanentError("unforeseen", error))


async def refreshed(
    connection: Connection, claim: Claim, process: Process, stamp: str, changes: Sequence[PlainChange]
) -> None:
    """The object was read after `stamp` was taken: what is new is folded, and the next claim decides on it.

    The news counts whoever brings it; the stamp only while the lease is held. It is dated by the claim: what came in
    while the object was read may not be in it.
    """
    stored = claim.stored
    now: datetime = claim.row["now"]
    keys = (await vault.read(connection, [stored.case_id]))[stored.case_id]
    try:
        sealed = [seal_change(change, door=stored.door, keys=keys, received_at=now) for change in changes]
    except UnsealableError:
        if await connection.fetchrow(_OURS, claim.key, claim.row["token"]) is not None:
            await ledger.end(connection, claim.key, state="superseded", code="text_erased")
        return
    if sealed:
        change = cases.Change(stored.process, stored.door, stored.object_id, [cases.folding(c) for c in sealed])
        processes: Mapping[str, Process] = {process.name: process}
        after = await cases.update(connection, processes, {stored.case_id: change})
        await after_folding(connection, processes, after, [], [])
    await connection.execute(_REFRESHED, claim.key, stamp, claim.row["token"])
