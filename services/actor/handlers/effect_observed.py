"""What our user wrote outside is read and matched by effect key: an effect is observed once.

What nobody knows of holds the case: somebody used our account.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from connectors.protocol import Written
from contracts.decision import Reason
from contracts.envelope import Event, follow_up_id
from contracts.events.effects import EffectObserved
from services.actor.domain import effect
from services.actor.handlers import ledger
from services.actor.handlers.effect_claimed import Claim
from services.actor.handlers.effect_ended import HOLD, put_back, to_a_person
from services.actor.handlers.hand_over import NO_BASIS, Handover, hand_over_beside
from services.actor.handlers.say import SERVICE, Cause, effects_total, say
from services.runtime import cases, dead_letters, outbox, switches
from services.runtime.postgres import Connection
from services.runtime.process import Process

RESENT_MAX = 1
"""An effect that was acknowledged and was not there is sent again this often, where the process says so."""

_CLAIM = """
UPDATE looks l SET due_at = clock_timestamp() + $3::interval
WHERE l.destination = $2 AND l.case_id = ANY (ARRAY(
    SELECT case_id FROM looks WHERE process = $1 AND destination = $2 AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED))
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
UPDATE effects e SET looks = looks + CASE WHEN attempted_at < clock_timestamp() - $3::interval THEN 1 ELSE 0 END
FROM unnest($1::text[], $2::text[]) l(case_id, destination)
WHERE e.case_id = l.case_id AND e.destination = l.destination AND e.state = 'acknowledged'
RETURNING e.*, clock_timestamp() AS now
"""
_SEND_AGAIN = """
UPDATE effects SET stamp_reused = stamp IS NOT NULL, looks = 0, not_there = not_there + 1 WHERE effect_key = $1
"""
_FINISHED = """
DELETE FROM looks l USING unnest($1::text[], $2::text[], $3::bigint[]) f(case_id, destination, wished)
WHERE l.case_id = f.case_id AND l.destination = f.destination AND l.wished = f.wished
"""
_LATER = """
UPDATE looks l SET due_at = clock_timestamp()
                            + CASE WHEN l.wished = w.wished THEN make_interval(secs => w.seconds) ELSE interval '0' END
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::float8[]) w(case_id, destination, wished, seconds)
WHERE l.case_id = w.case_id AND l.destination = w.destination
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


def look_of(claim: Claim) -> Look:
    """The reading back of an unknown attempt, as a look that nobody wished."""
    row = claim.row
    return Look(row["case_id"], row["destination"], row["process"], row["object_id"], wished=-1, echo=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What a look found written by our user."""

    look: Look
    written: Sequence[Written]


async def claim_looks(
    connection: Connection, process: str, destination: str, lease: timedelta, *, limit: int
) -> list[Look]:
    """Take what is due. Reading changes nothing outside, but a paused process is left in peace altogether."""
    if await switches.running_generation(connection, process) is None:
        return []
    rows = await connection.fetch(_CLAIM, process, destination, lease, limit)
    return [
        Look(row["case_id"], row["destination"], row["process"], row["object_id"], row["wished"], row["echo"])
        for row in rows
    ]


async def looked(connection: Connection, process: Process, found: Sequence[Found]) -> None:
    """Record what was found, and what was expected and was not. One look a case."""
    if not found:
        return
    await observe(connection, process, found)
    settled = timedelta(seconds=effect.SETTLED_SECONDS)
    looks = [one.look for one in found]
    rows = await connection.fetch(_UNSEEN, [k.case_id for k in looks], [k.destination for k in looks], settled)
    unseen: dict[str, list[ledger.Row]] = {}
    for row in rows:
        unseen.setdefault(row["case_id"], []).append(row)
    waits: dict[str, float] = {}
    for case_id, missing in unseen.items():
        for one in missing:
            seconds = effect.look_again_seconds(
                one["looks"],
                waited_seconds=(one["now"] - (one["answered_at"] or one["now"])).total_seconds(),
                seen_within_seconds=process.settings.destinations[one["destination"]].seen_within_seconds,
            )
            if seconds is None:
                await _not_there(connection, process, one)
            else:
                waits[case_id] = min(seconds, waits.get(case_id, seconds))
    await later(connection, {look: waits[look.case_id] for look in looks if look.case_id in waits})
    finished = [look for look in looks if look.case_id not in waits]
    await connection.execute(
        _FINISHED, [k.case_id for k in finished], [k.destination for k in finished], [k.wished for k in finished]
    )
    await later(connection, dict.fromkeys(finished, 0.0))


async def later(connection: Connection, seconds: Mapping[Look, float]) -> None:
    """Look again after so many seconds, unless it was wished again meanwhile: then at once."""
    if seconds:
        await connection.execute(
            _LATER,
            [look.case_id for look in seconds],
            [look.destination for look in seconds],
            [look.wished for look in seconds],
            list(seconds.values()),
        )


async def observe(connection: Connection, process: Process, found: Sequence[Found]) -> None:
    """Confirm the effects whose keys were found, each once; hold a case where somebody used our account."""
    keyed = {w.effect_key: (w, one.look.echo) for one in found for w in one.written if w.effect_key is not None}
    rows = await connection.fetch(_OBSERVE, list(keyed), [w.reference for w, _ in keyed.values()])
    events = [_observed(row, *keyed[row["effect_key"]]) for row in rows]
    await outbox.append(connection, events)
    for row, event in zip(rows, events, strict=True):
        if row["dead_letter_id"] is not None:
            await dead_letters.resolve(
                connection, row["dead_letter_id"], service=SERVICE, reason="It was found done outside.", cause=event
            )
        effects_total.labels(row["process"], row["destination"], "observed").inc()
        ledger.count_answer(row)
    known = {row["effect_key"] for row in await connection.fetch(_KNOWN, list(keyed))}
    for one in found:
        strange = [w for w in one.written if w.effect_key is None or w.effect_key not in known]
        if strange:
            await _hold(connection, process, one.look.case_id, strange)


def _observed(row: ledger.Row, found: Written, echo: bool) -> Event[EffectObserved]:  # noqa: FBT001  # a pair's half
    data = EffectObserved(
        **ledger.facts_of(row),
        reference=found.reference,
        by="echo" if echo else "read_back",
        public=found.public,
        observed_at=found.at,
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
    start_at = process.starts_at(stored.door)
    for found in strange:
        if found.at < start_at:
            continue
        if await connection.fetchval(HOLD, case_id, found.reference, "account_used", found.at) is None:
            continue
        cause_id = follow_up_id(UUID(int=0), "hold", case_id, found.reference)
        handover = Handover(
            stored=stored,
            basis=process.case.basis(stored.case) or NO_BASIS,
            reasons=(Reason(code="account_used", text="Somebody wrote with the account that only software uses."),),
            cause=Cause(cause_id, cause_id),
        )
        await hand_over_beside(connection, processes, [handover])


async def _not_there(connection: Connection, process: Process, row: ledger.Row) -> None:
    """Acknowledged, and not there: sent once more under the same stamp, or a person's at once, as the process says."""
    setting = process.settings.destinations[row["destination"]].not_there
    if setting == "resend" and row["not_there"] < RESENT_MAX and row["semantics"] != "blind":
        await connection.execute(_SEND_AGAIN, row["effect_key"])
        await put_back(connection, row, code="not_there", seconds=0.0)
        return
    await ledger.end(connection, row["effect_key"], state="person", code="not_there")
    stored = (await cases.read(connection, {process.name: process}, [row["case_id"]]))[row["case_id"]]
    reason = Reason(code="not_there", text="It was acknowledged and cannot be found outside: please look.")
    await to_a_person(connection, process, row, stored, reason)
