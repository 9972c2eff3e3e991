"""The ledger of effects: planning them, ending them, and wishing that somebody looks for them outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from contracts.decision import Mode, Request
from contracts.events.effects import EffectFailed
from services.actor.domain import effect
from services.actor.handlers.say import Cause, answered_seconds, effects_total, say
from services.runtime import outbox
from services.runtime.postgres import Connection
from services.runtime.telemetry import exemplar

_PLAN = """
INSERT INTO effects (effect_key, case_id, process, basis, kind, destination, object_id, semantics, may_repeat, bound,
                     request, request_digest, mode, granted, public, approval_id, asked_at, cause, correlation_id,
                     traceparent)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::boolean[], $10::boolean[], $11::text[], $12::text[], $13::text[], $14::jsonb[],
                     $15::boolean[], $16::uuid[], $17::timestamptz[], $18::uuid[], $19::uuid[], $20::text[])
ON CONFLICT (effect_key) DO NOTHING RETURNING effect_key
"""
_END = """
UPDATE effects SET state = $2, code = $3, token = token + 1 WHERE effect_key = $1
RETURNING *, clock_timestamp() AS now
"""
_WISH = """
INSERT INTO looks AS l (case_id, destination, process, due_at, echo)
SELECT w.case_id, w.destination, w.process, clock_timestamp() + $4::interval, $5
FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[]) w(case_id, destination, process)) w
ORDER BY w.case_id, w.destination
ON CONFLICT (case_id, destination) DO UPDATE
SET due_at = least(l.due_at, excluded.due_at), wished = l.wished + 1, echo = l.echo OR excluded.echo
"""


class Row(Protocol):
    """A row of a table: of `effects`, or another that the caller names."""

    def __getitem__(self, column: str, /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """An effect to be: one request under one key."""

    case_id: str
    process: str
    basis: str
    request: Request
    sealed: str
    """The request as JSON, sealed under the case's key."""
    granted: Mapping[str, Mode]
    cause: Cause
    asked_at: datetime | None
    approval_id: object | None = None

    @property
    def key(self) -> str:
        return effect.key_of(self.case_id, self.request.kind, self.basis)

    @property
    def mode(self) -> Mode:
        return effect.mode_of(self.request, self.granted)


async def plan(connection: Connection, planned: Sequence[Planned]) -> set[str]:
    """Write effects that are not there yet; returns the keys that are new. A known key is left as it is."""
    if not planned:
        return set()
    rows = await connection.fetch(
        _PLAN,
        [p.key for p in planned],
        [p.case_id for p in planned],
        [p.process for p in planned],
        [p.basis for p in planned],
        [p.request.kind for p in planned],
        [p.request.connector for p in planned],
        [p.request.object_id for p in planned],
        [p.request.semantics for p in planned],
        [p.request.may_repeat for p in planned],
        [p.request.kind not in effect.UNBOUND_KINDS for p in planned],
        [p.sealed for p in planned],
        [effect.digest_of(p.request) for p in planned],
        [p.mode for p in planned],
        [dict(p.granted) for p in planned],
        [effect.is_public(p.request) for p in planned],
        [p.approval_id for p in planned],
        [p.asked_at for p in planned],
        [p.cause.event_id for p in planned],
        [p.cause.correlation_id for p in planned],
        [p.cause.traceparent for p in planned],
    )
    fresh = {row["effect_key"] for row in rows}
    for p in planned:
        if p.key in fresh:
            effects_total.labels(p.process, p.request.connector, "planned").inc()
    return fresh


async def end(connection: Connection, effect_key: str, *, state: str, code: str) -> None:
    """An effect ends as `superseded`, `dead` or `person`, and says so. What may yet land is looked for."""
    row = await connection.fetchrow(_END, effect_key, state, code)
    assert row is not None, "the caller holds the effect"
    await say_failed(connection, [row], code=code, outcome=state, now=row["now"])
    await look_for_what_may_land(connection, [row])


async def say_failed(connection: Connection, rows: Sequence[Row], *, code: str, outcome: Any, now: datetime) -> None:
    """Record that attempts ended without their effect."""
    events = [
        say(
            EffectFailed(**facts_of(row), code=code, outcome=outcome),
            row["effect_key"],
            row["attempt"],
            outcome,
            row["redrives"],
            cause=cause_of(row),
            case_id=row["case_id"],
            process=row["process"],
            time=now,
        )
        for row in rows
    ]
    await outbox.append(connection, events)
    for row in rows:
        effects_total.labels(row["process"], row["destination"], outcome).inc()


async def look_for_what_may_land(connection: Connection, rows: Sequence[Row]) -> None:
    """Effects that ended while an attempt of theirs was of unknown outcome: somebody should look."""
    for row in rows:
        if row["stamp_reused"]:
            await wish_looks(connection, [(row["case_id"], row["destination"], row["process"])])


async def wish_looks(
    connection: Connection,
    objects: Sequence[tuple[str, str, str]],
    *,
    seconds: float = effect.SETTLED_SECONDS,
    echo: bool = False,
) -> None:
    """Want (case_id, destination, process) looked at in `seconds`; `echo`: news of ours came from there."""
    if objects:
        await connection.execute(
            _WISH, [o[0] for o in objects], [o[1] for o in objects], [o[2] for o in objects],
            timedelta(seconds=seconds), echo,
        )  # fmt: skip


def count_answer(row: Row) -> None:
    """An answer was seen outside: how long the customer waited until it was acknowledged."""
    if row["public"] and row["asked_at"] is not None:
        answered_at: datetime = row["answered_at"] or row["now"]
        seconds = max(0.0, (answered_at - row["asked_at"]).total_seconds())
        answered_seconds.labels(row["process"]).observe(seconds, exemplar(row["traceparent"]))


def facts_of(row: Row) -> dict[str, Any]:
    """What every event of an effect holds."""
    return {
        "effect_key": row["effect_key"],
        "kind": row["kind"],
        "destination": row["destination"],
        "object_id": row["object_id"],
        "basis": row["basis"],
        "attempt": row["attempt"],
    }


def cause_of(row: Row) -> Cause:
    """What planned it, and the run."""
    return Cause(row["cause"], row["correlation_id"], row["traceparent"])
