"""The claim of effects: switch, order, and everything that may have changed since they were planned, looked at again.

One transaction. Its first two statements are the switch's (a lock, then a look); the third takes as many rows as may
be sent at once, one a case. What no longer holds ends here and is said; what holds becomes an intent
(`effect.attempted`) before anything is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import structlog
from pydantic import ValidationError

from contracts.decision import Reason, Request
from contracts.envelope import Event
from contracts.events.effects import EffectAttempted
from contracts.sealed import UnsealableError
from services.actor.domain import effect
from services.actor.handlers import ledger
from services.actor.handlers.effect_ended import die, overtaken, put_back, to_a_person
from services.actor.handlers.say import effects_total, say
from services.runtime import outbox, switches
from services.runtime.cases import StoredCase
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.vault import KEYS_OF_ROW, CaseKeys, keys_of

_DUE = """
SELECT EXISTS (SELECT 1 FROM effects WHERE process = $1 AND destination = $2
               AND state IN ('planned', 'in_flight', 'unknown') AND available_at <= clock_timestamp())
"""
_TAKE = f"""
WITH e AS MATERIALIZED (
    SELECT * FROM effects e
    WHERE process = $1 AND destination = $2 AND state IN ('planned', 'in_flight', 'unknown')
      AND available_at <= clock_timestamp()
      AND NOT EXISTS (SELECT 1 FROM effects b WHERE b.case_id = e.case_id AND b.destination = e.destination
                      AND b.ordinal < e.ordinal AND b.state IN ('planned', 'in_flight', 'unknown'))
    ORDER BY available_at LIMIT $3 FOR UPDATE SKIP LOCKED)
SELECT e.*, c.door, c.object_id AS case_object, c.body, c.basis AS newest, clock_timestamp() AS now,
       k.key_versions, k.keys,
       (SELECT a.state FROM approvals a WHERE a.approval_id = e.approval_id) AS approval_state,
       (SELECT count(*) FROM effects o WHERE o.case_id = e.case_id AND o.effect_key <> e.effect_key
        AND o.kind <> 'notice' AND o.attempted_at > clock_timestamp() - interval '1 hour') AS effects_last_hour,
       EXISTS (SELECT 1 FROM dead_letters d WHERE d.case_id = e.case_id AND d.redriven_at IS NULL) AS buried,
       EXISTS (SELECT 1 FROM holds h WHERE h.case_id = e.case_id AND h.released_at IS NULL) AS held,
       (SELECT jsonb_object_agg(m.action, m.mode) FROM control.modes m WHERE m.process = e.process) AS switched
FROM e JOIN cases c USING (case_id) {KEYS_OF_ROW.format(row="e")}
"""  # noqa: S608  # two texts of ours
_OLD_PLACES = """
UPDATE effects SET available_at = created_at
WHERE process = $1 AND destination = $2 AND state IN ('planned', 'unknown') AND available_at > created_at
  AND attempted_at < clock_timestamp() - $3::interval
"""
_LOST = """
UPDATE effects SET state = 'unknown', code = 'lease_over', stamp_reused = true, token = token + 1,
       available_at = greatest(clock_timestamp(), attempted_at + $2::interval)
WHERE effect_key = $1
"""
_LEASE = """
UPDATE effects SET available_at = clock_timestamp() + $2::interval, token = token + 1
WHERE effect_key = $1 RETURNING *, clock_timestamp() AS now
"""
_INTEND = """
UPDATE effects e SET state = 'in_flight', attempt = attempt + 1, tries = tries + 1, token = token + 1, stamp = w.stamp,
       generation = $3, code = NULL, conflicted = false, attempted_at = clock_timestamp(),
       available_at = clock_timestamp() + $4::interval
FROM unnest($1::text[], $2::text[]) w(effect_key, stamp)
WHERE e.effect_key = w.effect_key RETURNING e.*, attempted_at AS now
"""

log = structlog.get_logger()

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


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one claim took: `taken` rows, of which `claims` have something to do outside; the rest was settled."""

    taken: int
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class _Held:
    """A row that is held in the claim's transaction, with what was made of it."""

    row: ledger.Row
    stored: StoredCase
    keys: CaseKeys
    request: Request


async def any_due(connection: Connection, line: Line) -> bool:
    """Whether a claim may find anything. Most often it would not, and this one statement holds nothing."""
    return bool(await connection.fetchval(_DUE, line.process.name, line.destination))


async def take_old_places(connection: Connection, line: Line) -> None:
    """What was tried in vain while the other side was in trouble is due again, in the order in which it was planned.

    Until then each try puts it last, so that one that fails by itself keeps no others waiting.
    """
    settled = timedelta(seconds=effect.SETTLED_SECONDS)
    await connection.execute(_OLD_PLACES, line.process.name, line.destination, settled)


async def claim(connection: Connection, line: Line, *, limit: int = 1) -> Claimed:
    """Take what is due, of `limit` cases at most, in the caller's transaction. Nothing while the process is paused."""
    generation = await switches.running_generation(connection, line.process.name)
    if generation is None:
        return Claimed(0)
    rows = await connection.fetch(_TAKE, line.process.name, line.destination, limit)
    if not rows:
        return Claimed(0)
    claims: list[Claim] = []
    sending: list[tuple[_Held, str | None]] = []
    for row in rows:
        held = await _held(connection, line, row, keys_of(row["case_id"], row["key_versions"], row["keys"]))
        if held is None:
            continue
        if row["state"] == "unknown":
            claims += await _resolve_unknown(connection, line, held)
            continue
        if (reason := _why_not(line, held)) is not None:
            await overtaken(connection, line.process, row, held.stored, reason)
            continue
        stamp = None
        if row["semantics"] == "conditional":
            stamp = row["stamp"] or line.process.case.stamp(held.stored.case)
            if line.can_read_back and (stamp is None or row["needs_refresh"]):
                claims.append(await _lease(connection, line, "refresh", held))
                continue
        sending.append((held, stamp))
    claims += await _intend(connection, line, sending, generation)
    return Claimed(len(rows), tuple(claims))


async def _held(connection: Connection, line: Line, row: ledger.Row, keys: CaseKeys) -> _Held | None:
    """The row with its case and its request in clear; or none, where it ended or was put off without them."""
    if row["state"] == "in_flight":  # whoever held it is gone, and nobody knows how far it came
        await connection.execute(_LOST, row["effect_key"], timedelta(seconds=effect.SETTLED_SECONDS))
        return None
    if not line.connected:
        await ledger.end(connection, row["effect_key"], state="person", code="not_connected")
        return None
    try:
        request = Request.model_validate_json(keys.unseal(row["request"]))
        case = line.process.case.Case.model_validate(row["body"])
    except UnsealableError:
        await ledger.end(connection, row["effect_key"], state="superseded", code="text_erased")
        return None
    except ValidationError:
        await die(connection, line.process, row, None, "unreadable_case", "the stored case or request cannot be read")
        return None
    stored = StoredCase(row["case_id"], row["process"], row["door"], row["case_object"], case)
    return _Held(row, stored, keys, request)


def _why_not(line: Line, held: _Held) -> Reason | None:
    """Why it may not be sent any more. A rule that raises forbids it."""
    try:
        return effect.why_not(_standing(line, held.row, held.stored))
    except Exception as error:  # noqa: BLE001  # a process's own code; whatever it raises is no permission
        log.warning("a rule raised", process=line.process.name, error=type(error).__name__)
        return Reason(code="rules_failed", text="The rules could not be applied.")


async def _intend(
    connection: Connection, line: Line, sending: Sequence[tuple[_Held, str | None]], generation: int
) -> list[Claim]:
    """The intents, before anything is sent."""
    if not sending:
        return []
    rows = await connection.fetch(
        _INTEND,
        [held.row["effect_key"] for held, _ in sending],
        [stamp for _, stamp in sending],
        generation,
        line.lease,
    )
    after = {row["effect_key"]: row for row in rows}
    await outbox.append(connection, [_attempted(row, generation) for row in rows])
    effects_total.labels(line.process.name, line.destination, "attempted").inc(len(rows))
    return [
        Claim(
            work="send",
            row=after[held.row["effect_key"]],
            stored=held.stored,
            keys=held.keys,
            request=held.request,
            stamp=stamp,
            can_read_back=line.can_read_back,
        )
        for held, stamp in sending
    ]


def _attempted(row: ledger.Row, generation: int) -> Event[EffectAttempted]:
    data = EffectAttempted(
        **ledger.facts_of(row),
        mode=row["mode"],
        public=row["public"],
        request_digest=row["request_digest"],
        switch_generation=generation,
        stamp=row["stamp"],
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


async def _resolve_unknown(connection: Connection, line: Line, held: _Held) -> list[Claim]:
    row = held.row
    match effect.after_unknown(
        semantics=row["semantics"],
        may_repeat=row["may_repeat"],
        setting=line.process.settings.destinations[line.destination].unknown,
        can_read_back=line.can_read_back,
    ):
        case "read_back":
            return [await _lease(connection, line, "read_back", held)]
        case "resend" if row["tries"] < line.process.settings.limits.attempts_max:
            await put_back(connection, row, code="unknown_resent", seconds=0.0)
        case "resend" | "person":
            await ledger.end(connection, row["effect_key"], state="person", code="unknown_outcome")
            reason = Reason(code="unknown_outcome", text="Nobody can tell whether this was carried out: please look.")
            await to_a_person(connection, line.process, row, held.stored, reason)
    return []


async def _lease(connection: Connection, line: Line, work: Work, held: _Held) -> Claim:
    row = await connection.fetchrow(_LEASE, held.row["effect_key"], line.lease)
    assert row is not None, "the row is locked"
    return Claim(
        work=work,
        row=row,
        stored=held.stored,
        keys=held.keys,
        request=held.request,
        stamp=held.row["stamp"],
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
