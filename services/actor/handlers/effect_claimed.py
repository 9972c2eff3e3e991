"""The claim of one effect: switch, order, and everything that may have changed since it was planned, looked at again.

One transaction. Its first two statements are the switch's (a lock, then a look); the third takes one row. What no
longer holds ends here and is said; what holds becomes an intent (`effect.attempted`) before anything is sent.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from contracts.decision import Reason, Request
from contracts.events.effects import EffectAttempted
from contracts.sealed import UnsealableError
from services.actor.domain import effect
from services.actor.handlers import ledger
from services.actor.handlers.hand_over import Handover, hand_over
from services.actor.handlers.say import effects_total, say
from services.runtime import outbox, switches, vault
from services.runtime.cases import StoredCase
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.vault import CaseKeys

_TAKE = """
WITH e AS MATERIALIZED (
    SELECT * FROM effects e
    WHERE process = $1 AND destination = $2 AND state IN ('planned', 'in_flight', 'unknown')
      AND available_at <= clock_timestamp()
      AND NOT EXISTS (SELECT 1 FROM effects b WHERE b.case_id = e.case_id AND b.destination = e.destination
                      AND b.ordinal < e.ordinal AND b.state IN ('planned', 'in_flight', 'unknown'))
    ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED)
SELECT e.*, c.door, c.object_id AS case_object, c.body, c.basis AS newest, clock_timestamp() AS now,
       (SELECT a.state FROM approvals a WHERE a.approval_id = e.approval_id) AS approval_state,
       (SELECT count(*) FROM effects o WHERE o.case_id = e.case_id AND o.effect_key <> e.effect_key
        AND o.attempted_at > clock_timestamp() - interval '1 hour') AS effects_last_hour,
       EXISTS (SELECT 1 FROM dead_letters d WHERE d.case_id = e.case_id AND d.redriven_at IS NULL) AS buried,
       EXISTS (SELECT 1 FROM holds h WHERE h.case_id = e.case_id AND h.released_at IS NULL) AS held,
       (SELECT jsonb_object_agg(m.action, m.mode) FROM control.modes m WHERE m.process = e.process) AS switched
FROM e JOIN cases c USING (case_id)
"""
_LOST = """
UPDATE effects SET state = 'unknown', code = 'lease_over', stamp_reused = true, token = token + 1,
       available_at = greatest(clock_timestamp(), attempted_at + $2::interval)
WHERE effect_key = $1
"""
_LEASE = """
UPDATE effects SET available_at = clock_timestamp() + $2::interval, token = token + 1
WHERE effect_key = $1 RETURNING *
"""
_INTEND = """
UPDATE effects SET state = 'in_flight', attempt = attempt + 1, tries = tries + 1, token = token + 1, stamp = $2,
       generation = $3, code = NULL, conflicted = false, attempted_at = clock_timestamp(),
       available_at = clock_timestamp() + $4::interval
WHERE effect_key = $1 RETURNING *, attempted_at AS now
"""

Work = Literal["send", "read_back", "refresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One effect in hand, under a lease."""

    work: Work
    row: ledger.Row
    """As it is after the claim; `token` fences."""
    stored: StoredCase
    keys: CaseKeys
    request: Request
    stamp: str | None
    can_read_back: bool

    @property
    def key(self) -> str:
        return str(self.row["effect_key"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Where a claim is made: one destination of one process."""

    process: Process
    destination: str
    connected: bool
    can_read_back: bool

    @property
    def lease(self) -> timedelta:
        """Longer than the slowest call."""
        return timedelta(seconds=2 * self.process.settings.destinations[self.destination].timeout_seconds + 5)


async def claim(connection: Connection, line: Line) -> Claim | Literal["settled"] | None:
    """Take what is due, in the caller's transaction. None: nothing is due, or the process is paused.

    "settled": a row was taken and ended, or put off, without anything to do outside.
    """
    generation = await switches.running_generation(connection, line.process.name)
    if generation is None:
        return None
    row = await connection.fetchrow(_TAKE, line.process.name, line.destination)
    if row is None:
        return None
    if row["state"] == "in_flight":  # whoever held it is gone, and nobody knows how far it came
        await connection.execute(_LOST, row["effect_key"], timedelta(seconds=effect.SETTLED_SECONDS))
        return "settled"
    if not line.connected:
        await ledger.end(connection, row["effect_key"], state="person", code="not_connected")
        return "settled"
    keys = (await vault.read(connection, [row["case_id"]]))[row["case_id"]]
    try:
        request = Request.model_validate_json(keys.unseal(row["request"]))
    except UnsealableError:
        await ledger.end(connection, row["effect_key"], state="superseded", code="text_erased")
        return "settled"
    case = line.process.case.Case.model_validate(row["body"])
    stored = StoredCase(row["case_id"], row["process"], row["door"], row["case_object"], case)
    if row["state"] == "unknown":
        return await _resolve_unknown(connection, line, row, stored, keys, request)
    reason = effect.why_not(_standing(line, row, stored))
    if reason is not None:
        await overtaken(connection, line.process, row, stored, reason)
        return "settled"
    return await _intend(connection, line, row, stored, keys, request, generation)


async def _intend(
    connection: Connection,
    line: Line,
    row: ledger.Row,
    stored: StoredCase,
    keys: CaseKeys,
    request: Request,
    generation: int,
) -> Claim:
    """The intent; or, where a conditional request has no stamp to stand on, a reading of the object first."""
    stamp = None
    if row["semantics"] == "conditional":
        stamp = row["stamp"] or line.process.case.stamp(stored.case)
        if line.can_read_back and (stamp is None or row["needs_refresh"]):
            return await _lease(connection, line, "refresh", row, stored, keys, request)
    after = await connection.fetchrow(_INTEND, row["effect_key"], stamp, generation, line.lease)
    assert after is not None, "the row is locked"
    data = EffectAttempted(
        **ledger.facts_of(after),
        mode=after["mode"],
        public=after["public"],
        request_digest=after["request_digest"],
        switch_generation=generation,
        stamp=stamp,
    )
    said = say(
        data,
        after["effect_key"],
        after["attempt"],
        cause=ledger.cause_of(after),
        case_id=after["case_id"],
        process=after["process"],
        time=after["now"],
    )
    await outbox.append(connection, [said])
    effects_total.labels(line.process.name, line.destination, "attempted").inc()
    return Claim(
        work="send",
        row=after,
        stored=stored,
        keys=keys,
        request=request,
        stamp=stamp,
        can_read_back=line.can_read_back,
    )


async def _resolve_unknown(
    connection: Connection, line: Line, row: ledger.Row, stored: StoredCase, keys: CaseKeys, request: Request
) -> Claim | Literal["settled"]:
    setting = line.process.settings.destinations[line.destination].unknown
    spent = row["tries"] >= line.process.settings.limits.attempts_max
    match effect.after_unknown(
        semantics=row["semantics"],
        may_repeat=row["may_repeat"],
        setting=setting,
        can_read_back=line.can_read_back,
    ):
        case "read_back":
            return await _lease(connection, line, "read_back", row, stored, keys, request)
        case "resend" if not spent:
            await put_back(connection, row, code="unknown_resent", seconds=0.0)
        case "resend" | "person":
            await ledger.end(connection, row["effect_key"], state="person", code="unknown_outcome")
            reason = Reason(code="unknown_outcome", text="Nobody can tell whether this was carried out: please look.")
            await _hand_over(connection, line.process, row, stored, reason)
    return "settled"


async def _lease(
    connection: Connection,
    line: Line,
    work: Work,
    row: ledger.Row,
    stored: StoredCase,
    keys: CaseKeys,
    request: Request,
) -> Claim:
    held = await connection.fetchrow(_LEASE, row["effect_key"], line.lease)
    assert held is not None, "the row is locked"
    return Claim(
        work=work,
        row=held,
        stored=stored,
        keys=keys,
        request=request,
        stamp=row["stamp"],
        can_read_back=line.can_read_back,
    )


def _standing(line: Line, row: ledger.Row, stored: StoredCase) -> effect.Standing:
    process = line.process
    return effect.Standing(
        kind=row["kind"],
        basis=row["basis"],
        newest_basis=row["newest"],
        now=row["now"],
        asked_at=row["asked_at"],
        max_age=process.max_age(stored.door),
        approval_state=row["approval_state"] if row["approval_id"] is not None else None,
        granted=row["granted"],
        modes={name: s.mode for name, s in process.settings.actions.items()} | (row["switched"] or {}),
        effects_last_hour=row["effects_last_hour"],
        effects_max=process.settings.limits.effects_per_case_hour,
        dead_letter_open=row["buried"],
        held=row["held"],
        refusal=process.rules.still_allowed(stored.case, process.policy) if row["bound"] else None,
    )


async def overtaken(
    connection: Connection, process: Process, row: ledger.Row, stored: StoredCase, reason: Reason
) -> None:
    """It no longer holds: superseded. Where the customer still waits and nothing newer will answer, a person does."""
    await ledger.end(connection, row["effect_key"], state="superseded", code=reason.code)
    if reason.code == "effects_per_hour":
        await connection.execute(HOLD, row["case_id"], f"limit:{row['basis']}", reason.code)
    if reason.code != "newer_basis" and process.case.awaits_answer(stored.case):
        await _hand_over(connection, process, row, stored, reason)


HOLD = "INSERT INTO holds (case_id, reference, code) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING held_at"
_PUT_BACK = """
UPDATE effects SET state = 'planned', code = $2, token = token + 1,
       available_at = clock_timestamp() + make_interval(secs => $3)
WHERE effect_key = $1 RETURNING *, clock_timestamp() AS now
"""


async def put_back(connection: Connection, row: ledger.Row, *, code: str, seconds: float) -> None:
    """The attempt ended without the effect: another one follows in `seconds`."""
    after = await connection.fetchrow(_PUT_BACK, row["effect_key"], code, seconds)
    assert after is not None, "the caller holds the effect"
    await ledger.say_failed(connection, [after], code=code, outcome="retry", now=after["now"])


async def _hand_over(
    connection: Connection, process: Process, row: ledger.Row, stored: StoredCase, reason: Reason
) -> None:
    handover = Handover(stored=stored, basis=row["basis"], reasons=(reason,), cause=ledger.cause_of(row))
    await hand_over(connection, {process.name: process}, [handover])
