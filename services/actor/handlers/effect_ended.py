"""How an attempt, or an effect, ends without its effect: put back, overtaken, or dead."""

from uuid import uuid5

from contracts.decision import Reason
from services.actor.domain import effect
from services.actor.handlers import ledger
from services.actor.handlers.hand_over import Handover, hand_over_beside
from services.actor.handlers.say import SERVICE
from services.runtime import dead_letters
from services.runtime.cases import StoredCase
from services.runtime.postgres import Connection
from services.runtime.process import Process

HOLD = """
INSERT INTO holds (case_id, reference, code, held_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING held_at
"""
"""As of what it is about, by the clock outside: an answer of the staff that came before that, and is told late, ends
nothing."""
_PUT_BACK = """
UPDATE effects SET state = 'planned', code = $2, token = token + 1,
       available_at = CASE WHEN $3 = 0 THEN created_at ELSE clock_timestamp() + make_interval(secs => $3) END
WHERE effect_key = $1 RETURNING *, clock_timestamp() AS now
"""
_DEAD = "UPDATE effects SET dead_letter_id = $2 WHERE effect_key = $1"


async def put_back(connection: Connection, row: ledger.Row, *, code: str, seconds: float) -> None:
    """The attempt ended without the effect: another one follows in `seconds`; at once in its old place among others."""
    after = await connection.fetchrow(_PUT_BACK, row["effect_key"], code, seconds)
    assert after is not None, "the caller holds the effect"
    await ledger.say_failed(connection, [after], code=code, outcome="retry", now=after["now"])


async def overtaken(
    connection: Connection, process: Process, row: ledger.Row, stored: StoredCase, reason: Reason
) -> None:
    """It no longer holds: superseded. Where the customer still waits and nothing newer will answer, a person does."""
    await ledger.end(connection, row["effect_key"], state="superseded", code=reason.code)
    if reason.code == "effects_per_hour":
        asked_at = process.case.asked_at(stored.case)
        await connection.execute(HOLD, row["case_id"], f"limit:{row['basis']}", reason.code, asked_at)
    if reason.code != "newer_basis" and process.case.awaits_answer(stored.case):
        await to_a_person(connection, process, row, stored, reason)


async def to_a_person(
    connection: Connection, process: Process, row: ledger.Row, stored: StoredCase, reason: Reason
) -> None:
    """The case is handed over, with this reason."""
    handover = Handover(stored=stored, basis=row["basis"], reasons=(reason,), cause=ledger.cause_of(row))
    await hand_over_beside(connection, {process.name: process}, [handover])


async def die(
    connection: Connection, process: Process, row: ledger.Row, stored: StoredCase | None, code: str, message: str
) -> None:
    """A dead letter; and a person is told, where the dead effect was not itself what tells them.

    `stored` is none where the case itself cannot be read.
    """
    cause = ledger.cause_of(row)
    dead_letter_id = uuid5(cause.event_id, f"dead_letter|{SERVICE}|{row['effect_key']}|{row['redrives']}")
    await ledger.end(connection, row["effect_key"], state="dead", code=code)
    await connection.execute(_DEAD, row["effect_key"], dead_letter_id)
    await dead_letters.raise_for_task(
        connection,
        service=SERVICE,
        dead_letter_id=dead_letter_id,
        case_id=row["case_id"],
        process=row["process"],
        correlation_id=cause.correlation_id,
        causation_id=cause.event_id,
        work=f"effect.{row['kind']}",
        basis=row["basis"],
        code=code,
        message=message,
        attempts=row["attempt"],
    )
    if row["kind"] == effect.HANDOVER or stored is None:
        return
    reason = Reason(code="effect_failed", text=f"What was decided could not be carried out: {code}.")
    await to_a_person(connection, process, row, stored, reason)
