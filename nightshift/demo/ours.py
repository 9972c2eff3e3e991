"""Our side of the night, read from the database as the operator: what waits, what was done, what the log holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from services.reporter.domain.views import CaseRow
from services.runtime.migrate import SERVICES
from services.runtime.postgres import Connection

SCHEMAS = ("control", *SERVICES)

_OUTBOXES = " UNION ALL ".join(
    f"SELECT event_id, topic, published_at, refused FROM {schema}.outbox"  # noqa: S608  # our own schemas' names
    for schema in SCHEMAS
)
_WAITING = f"""
SELECT (SELECT count(*) FROM ({_OUTBOXES}) o WHERE published_at IS NULL AND refused IS NULL) AS "events to publish",
       (SELECT count(*) FROM ({_OUTBOXES}) o
        WHERE NOT EXISTS (SELECT FROM reporter.event_log_known l WHERE l.event_id = o.event_id)) AS "events to log",
       (SELECT count(*) FROM ({_OUTBOXES}) o WHERE topic = 'nightshift.cases'
        AND NOT EXISTS (SELECT FROM classifier.inbox i WHERE i.event_id = o.event_id)) AS "changes to fold",
       (SELECT count(*) FROM ({_OUTBOXES}) o WHERE topic = ANY('{{nightshift.cases,nightshift.proposals}}')
        AND NOT EXISTS (SELECT FROM actor.inbox i WHERE i.event_id = o.event_id)) AS "events to hear",
       (SELECT count(*) FROM classifier.tasks WHERE state = 'open') AS "proposals to make",
       (SELECT count(*) FROM actor.tasks WHERE state = 'open') AS "decisions to make",
       (SELECT count(*) FROM actor.effects WHERE state IN ('planned', 'in_flight', 'unknown')) AS "effects to send",
       (SELECT count(*) FROM actor.looks) AS "effects to see"
"""  # noqa: S608  # as above
_PROGRESS = """
SELECT (SELECT coalesce(sum(accepted + duplicate + no_case + unreadable), 0) FROM ingest.tallies) AS deliveries,
       (SELECT count(*) FROM actor.cases) AS cases,
       (SELECT count(*) FROM actor.effects WHERE state IN ('acknowledged', 'observed')) AS effects
"""
_TALLIES = """
SELECT coalesce(sum(accepted), 0) AS accepted, coalesce(sum(duplicate), 0) AS duplicate,
       coalesce(sum(no_case), 0) AS no_case, coalesce(sum(unreadable), 0) AS unreadable FROM ingest.tallies
"""
_MISSING = """
SELECT count(*) FROM (
    SELECT unnest($1::text[]) EXCEPT
    SELECT convert_from(body, 'UTF8')::jsonb ->> 'identity' FROM reporter.event_log
    WHERE topic = 'nightshift.cases') lost
"""
_REPEATED = """
SELECT count(*) FROM (
    SELECT 1 FROM reporter.event_log WHERE topic = 'nightshift.cases'
    GROUP BY case_id, convert_from(body, 'UTF8')::jsonb ->> 'identity' HAVING count(*) > 1) twice
"""
_CASES = "SELECT row::text FROM reporter.projections WHERE kind = 'case' AND process = $1"
_DECISIONS = """
SELECT convert_from(body, 'UTF8')::jsonb ->> 'verdict' AS verdict, count(*) FROM reporter.event_log
WHERE type = 'decision.made.v1' AND process = $1 AND position > $2 GROUP BY 1
"""
_NEWEST = """
SELECT DISTINCT ON (case_id) case_id, d ->> 'verdict' AS verdict, d -> 'reasons' ->> 0 AS reason
FROM (SELECT case_id, time, convert_from(body, 'UTF8')::jsonb AS d FROM reporter.event_log
      WHERE type = 'decision.made.v1' AND process = $1) decided
ORDER BY case_id, d ->> 'basis' DESC, d ->> 'verdict' = 'ignore', time DESC
"""
_OLD_GENERATION = """
WITH switched AS (
    SELECT (headers ->> 'ce_time')::timestamptz AS at,
           (convert_from(body, 'UTF8')::jsonb ->> 'generation')::bigint AS generation
    FROM control.outbox WHERE headers ->> 'ce_type' IN ('process.paused.v1', 'process.resumed.v1')
      AND headers ->> 'ce_process' = $1)
SELECT count(*) FROM reporter.event_log a
WHERE a.type = 'effect.attempted.v1' AND a.process = $1
  AND (convert_from(a.body, 'UTF8')::jsonb ->> 'switch_generation')::bigint
      < (SELECT max(s.generation) FROM switched s WHERE s.at <= a.time)
"""
_ATTEMPTED_BETWEEN = """
SELECT count(*) FROM reporter.event_log
WHERE type = 'effect.attempted.v1' AND process = $1 AND time > $2 AND time < $3
"""
_ATTEMPTED = (
    "SELECT count(*) FROM reporter.event_log WHERE type = 'effect.attempted.v1' AND process = $1 AND position > $2"
)
_DEAD = " UNION ALL ".join(
    f"SELECT '{service} ' || work || ': ' || code FROM {service}.dead_letters WHERE redriven_at IS NULL"  # noqa: S608  # as above
    for service in SERVICES
)
_SWITCH = """
UPDATE control.switches SET paused = $2, reason = $3 WHERE process = $1 RETURNING changed_at
"""


@dataclass(frozen=True, slots=True)
class Before:
    """Where a night began: what was there already is not of this night."""

    position: int
    tallies: dict[str, int]


@dataclass(frozen=True, slots=True)
class Pause:
    """The process was off between these moments, by the database's clock, each after the change was committed."""

    paused_at: datetime
    resumed_at: datetime


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A decision by which nothing was sent by itself."""

    verdict: str
    explained: bool
    """It names a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What our side holds when the night is over."""

    waiting: dict[str, int]
    """What is not done yet, by kind; empty when everything settled."""
    tallies: dict[str, int]
    """Deliveries of this night by outcome: accepted, duplicate, no_case, unreadable."""
    changes_missing: int
    """Changes that the world delivered and the log lacks."""
    changes_twice: int
    """Changes that the log holds more than once, in all."""
    cases: dict[int, CaseRow] = field(default_factory=dict)
    """By ticket, over all nights."""
    unanswered: dict[int, Unanswered] = field(default_factory=dict)
    """By ticket: the decision about what was asked last, where it was not to execute."""
    decisions: dict[str, int] = field(default_factory=dict)
    """Of this night, by verdict."""
    dead_letters: tuple[str, ...] = ()
    """Open ones, over all nights: service, work and code."""
    attempts: int = 0
    """Effects attempted this night."""
    attempts_while_paused: int = 0
    attempts_under_older_generation: int = 0
    """Over all nights."""
    events: int = 0
    """In the log, over all nights."""

    @property
    def cost_usd(self) -> Decimal:
        return sum((row.cost_usd for row in self.cases.values()), Decimal(0))


async def before(connection: Connection) -> Before:
    """Read where the night begins."""
    position = await connection.fetchval("SELECT coalesce(max(position), 0) FROM reporter.event_log")
    return Before(int(position), await _tallies(connection))


async def progress(connection: Connection) -> dict[str, int]:
    """Deliveries, cases and effects so far, over all nights."""
    row = await connection.fetchrow(_PROGRESS)
    assert row is not None, "it is a row of counts"
    return {name: int(value) for name, value in row.items()}


async def waiting(connection: Connection) -> dict[str, int]:
    """What is not done yet, by kind; empty when everything settled."""
    row = await connection.fetchrow(_WAITING)
    assert row is not None, "it is a row of counts"
    return {name: count for name, count in row.items() if count}


async def events_logged(connection: Connection) -> int:
    """How many events the log holds."""
    count: int = await connection.fetchval("SELECT count(*) FROM reporter.event_log")
    return count


async def switch(connection: Connection, process: str, *, paused: bool, reason: str) -> datetime:
    """The kill switch: one UPDATE. Returns when it was changed, by the database's clock."""
    changed_at: datetime = await connection.fetchval(_SWITCH, process, paused, reason)
    return changed_at


async def read(
    connection: Connection, process: str, *, since: Before, delivered: Sequence[str], pause: Pause | None
) -> Ours:
    """Everything that the summary asks of our side. `delivered`: identities of the changes that the world delivered."""
    after = await _tallies(connection)
    rows = [CaseRow.model_validate_json(row[0]) for row in await connection.fetch(_CASES, process)]
    decisions = await connection.fetch(_DECISIONS, process, since.position)
    between = (pause.paused_at, pause.resumed_at) if pause is not None else None
    return Ours(
        waiting=await waiting(connection),
        tallies={name: count - since.tallies[name] for name, count in after.items()},
        changes_missing=await connection.fetchval(_MISSING, delivered),
        changes_twice=await connection.fetchval(_REPEATED),
        cases={int(row.object_id): row for row in rows if row.object_id and row.object_id.isdecimal()},
        unanswered={
            int(ticket_id): Unanswered(row["verdict"], row["reason"] is not None)
            for row in await connection.fetch(_NEWEST, process)
            if row["verdict"] != "execute" and (ticket_id := row["case_id"].rpartition(":")[2]).isdecimal()
        },
        decisions={row["verdict"]: row["count"] for row in decisions},
        dead_letters=tuple(row[0] for row in await connection.fetch(_DEAD)),
        attempts=await connection.fetchval(_ATTEMPTED, process, since.position),
        attempts_while_paused=await connection.fetchval(_ATTEMPTED_BETWEEN, process, *between) if between else 0,
        attempts_under_older_generation=await connection.fetchval(_OLD_GENERATION, process),
        events=await events_logged(connection),
    )


async def _tallies(connection: Connection) -> dict[str, int]:
    row = await connection.fetchrow(_TALLIES)
    assert row is not None, "it is a row of sums"
    return {name: int(value) for name, value in row.items()}
