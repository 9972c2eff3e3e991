"""What our user wrote outside is read and matched by effect key: an effect is observed once.

What nobody knows of holds the case: somebody used our account.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from connectors.protocol import Written
from contracts.decision import Reason
from contracts.envelope import Event, follow_up_id
from contracts.events.effects import EffectObserved
from services.actor.domain import effect
from services.actor.handlers import ledger
from services.actor.handlers.effect_claimed import HOLD, put_back
from services.actor.handlers.hand_over import NO_BASIS, Handover, hand_over
from services.actor.handlers.say import Cause, effects_total, say
from services.runtime import cases, outbox, switches
from services.runtime.postgres import Connection
from services.runtime.process import Process

LOOKS_MAX = 5
"""An acknowledged effect that was not found this often was not carried out, whatever was answered."""
RESENT_AFTER_ACKNOWLEDGED_MAX = 1

_CLAIM = """
WITH next AS (
    SELECT case_id, destination FROM looks WHERE process = $1 AND destination = $2 AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
UPDATE looks l SET due_at = clock_timestamp() + $3::interval FROM next n
WHERE l.case_id = n.case_id AND l.destination = n.destination
RETURNING l.case_id, l.destination, l.process, l.wished, l.echo,
          (SELECT c.object_id FROM cases c WHERE c.case_id = l.case_id) AS object_id
"""
_OBSERVE = """
UPDATE effects SET state = 'observed', token = token + 1, code = NULL, stamp_reused = false,
       reference = coalesce(effects.reference, w.reference)
FROM (SELECT DISTINCT ON (effect_key) * FROM unnest($1::text[], $2::text[]) w(effect_key, reference)) w
WHERE effects.effect_key = w.effect_key AND effects.state <> 'observed'
RETURNING effects.*, clock_timestamp() AS now
"""
_KNOWN = "SELECT effect_key FROM effects WHERE effect_key = ANY($1)"
_UNSEEN = """
UPDATE effects SET looks = looks + CASE WHEN attempted_at < clock_timestamp() - $3::interval THEN 1 ELSE 0 END
WHERE case_id = $1 AND destination = $2 AND state = 'acknowledged'
RETURNING *, clock_timestamp() AS now
"""
_SEND_AGAIN = "UPDATE effects SET stamp_reused = stamp IS NOT NULL, looks = 0 WHERE effect_key = $1"
_FINISHED = "DELETE FROM looks WHERE case_id = $1 AND destination = $2 AND wished = $3"
_LATER = """
UPDATE looks SET due_at = CASE WHEN wished = $3 THEN clock_timestamp() + $4::interval ELSE clock_timestamp() END
WHERE case_id = $1 AND destination = $2
"""


@dataclass(frozen=True, slots=True)
class Look:
    """One object to look at."""

    case_id: str
    destination: str
    process: str
    object_id: str
    wished: int
    echo: bool


async def claim_look(connection: Connection, process: str, destination: str, lease: timedelta) -> Look | None:
    """Take one that is due. Reading changes nothing outside, but a paused process is left in peace altogether."""
    if await switches.running_generation(connection, process) is None:
        return None
    row = await connection.fetchrow(_CLAIM, process, destination, lease)
    if row is None:
        return None
    return Look(row["case_id"], row["destination"], row["process"], row["object_id"], row["wished"], row["echo"])


async def looked(connection: Connection, process: Process, look: Look, written: Sequence[Written]) -> None:
    """Record what was found, and what was expected and was not."""
    await observe(connection, process, look.case_id, written, by="echo" if look.echo else "read_back")
    settled = timedelta(seconds=effect.SETTLED_SECONDS)
    unseen = await connection.fetch(_UNSEEN, look.case_id, look.destination, settled)
    for row in unseen:
        if row["looks"] >= LOOKS_MAX:
            await _never_there(connection, process, row)
    waiting = [row["looks"] for row in unseen if row["looks"] < LOOKS_MAX]
    if waiting:
        await later(connection, look, seconds=effect.SETTLED_SECONDS * 2.0 ** (min(waiting) - 1))
    else:
        await connection.execute(_FINISHED, look.case_id, look.destination, look.wished)
        await later(connection, look, seconds=0.0)


async def later(connection: Connection, look: Look, *, seconds: float) -> None:
    """Look again, unless it was wished again meanwhile: then at once."""
    await connection.execute(_LATER, look.case_id, look.destination, look.wished, timedelta(seconds=seconds))


async def observe(
    connection: Connection,
    process: Process,
    case_id: str,
    written: Sequence[Written],
    *,
    by: Literal["echo", "read_back"],
) -> None:
    """Confirm the effects whose keys were found, each once; hold the case where somebody used our account."""
    keyed = {w.effect_key: w for w in written if w.effect_key is not None}
    rows = await connection.fetch(_OBSERVE, list(keyed), [w.reference for w in keyed.values()])
    await outbox.append(connection, [_observed(row, keyed[row["effect_key"]], by) for row in rows])
    for row in rows:
        effects_total.labels(row["process"], row["destination"], "observed").inc()
    known = {row["effect_key"] for row in await connection.fetch(_KNOWN, list(keyed))}
    strange = [w for w in written if w.effect_key is None or w.effect_key not in known]
    if strange:
        await _hold(connection, process, case_id, strange)


def _observed(row: ledger.Row, found: Written, by: Literal["echo", "read_back"]) -> Event[EffectObserved]:
    data = EffectObserved(
        **ledger.facts_of(row), reference=found.reference, by=by, public=found.public, observed_at=found.at
    )
    return say(
        data,
        row["effect_key"],
        cause=ledger.cause_of(row),
        case_id=row["case_id"],
        process=row["process"],
        time=row["now"],
    )


async def _hold(connection: Connection, process: Process, case_id: str, strange: Sequence[Written]) -> None:
    """Somebody wrote with our account: until staff answer in public the case is a person's."""
    processes: Mapping[str, Process] = {process.name: process}
    stored = (await cases.read(connection, processes, [case_id]))[case_id]
    start_at: datetime = process.settings.doors[stored.door].start_at
    for found in strange:
        if found.at < start_at:
            continue
        if await connection.fetchval(HOLD, case_id, found.reference, "account_used") is None:
            continue
        cause_id = follow_up_id(UUID(int=0), "hold", case_id, found.reference)
        handover = Handover(
            stored=stored,
            basis=process.case.basis(stored.case) or NO_BASIS,
            reasons=(Reason(code="account_used", text="Somebody wrote with the account that only software uses."),),
            cause=Cause(cause_id, cause_id),
        )
        await hand_over(connection, processes, [handover])


async def _never_there(connection: Connection, process: Process, row: ledger.Row) -> None:
    """Acknowledged, and not there. Once it is sent again under the same stamp; then a person must look."""
    if row["attempt"] <= RESENT_AFTER_ACKNOWLEDGED_MAX and row["semantics"] != "blind":
        await connection.execute(_SEND_AGAIN, row["effect_key"])
        await put_back(connection, row, code="not_there", seconds=0.0)
        return
    await ledger.end(connection, row["effect_key"], state="person", code="not_there")
    processes: Mapping[str, Process] = {process.name: process}
    stored = (await cases.read(connection, processes, [row["case_id"]]))[row["case_id"]]
    reason = Reason(code="not_there", text="It was acknowledged and cannot be found outside: please look.")
    handover = Handover(stored=stored, basis=row["basis"], reasons=(reason,), cause=ledger.cause_of(row))
    await hand_over(connection, processes, [handover])
