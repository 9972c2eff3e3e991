"""What people and programs ask the reporter.

Each function needs a connection with rights on schema reporter (`timeline` reads vault.case_keys, `status` reads
control); every read is by index or from running sums, whatever the number of cases.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar, get_args

from contracts.base import Contract
from contracts.decision import Difference
from contracts.envelope import UnknownTypeError, UnreadableError, decode
from contracts.sealed import UnsealableError
from services.reporter.domain.latency import percentile
from services.reporter.domain.log import Entry
from services.reporter.domain.projection import ALL_DAYS
from services.reporter.domain.sentences import ORDER, sealed_of, tell
from services.reporter.domain.views import (
    ApprovalRow,
    CandidateRow,
    CasePage,
    CaseRow,
    CauseRow,
    Day,
    DeadLetterRow,
    ErrorRow,
    IntakeRow,
    Latency,
    Line,
    RegimeRow,
    RunRow,
    ShadowCount,
    ShadowRow,
    SlaStatus,
    Status,
    Switch,
    Text,
    Timeline,
)
from services.reporter.outbound.event_log import read_entries
from services.runtime import vault
from services.runtime.postgres import Connection, Database

ERRORS_SHOWN = 10
HOURS_SHOWN = 10
DAYS_SHOWN = 7
RUNS_SHOWN = 20
CASES_PER_PAGE = 50
WAITING_SHOWN = 200
SHADOWS_SHOWN = 20
LINES_MAX = 500
DUE_SOON = timedelta(minutes=15)
DIFFERENT = tuple(difference for difference in get_args(Difference) if difference != "same")
UNENDED = ("open", "redrive_requested", "skip_requested")
"""States of dead letters that nothing has ended yet."""

_SUMS = """
SELECT period, name, sum(amount) AS amount FROM reporter.totals
WHERE period = ANY($1) AND ($2::text IS NULL OR process = $2) GROUP BY period, name
"""
_NEWEST = """
SELECT row::text FROM reporter.projections
WHERE kind = $1 AND ($2::text IS NULL OR process = $2) ORDER BY at DESC, case_id DESC LIMIT $3
"""
_DUE = """
SELECT count(*) FILTER (WHERE at < $1) AS overdue, count(*) FILTER (WHERE at >= $1) AS soon FROM reporter.projections
WHERE kind = 'sla' AND state = 'waiting' AND at < $2 AND ($3::text IS NULL OR process = $3)
"""
_OLDEST_OPEN = """
SELECT at FROM reporter.projections
WHERE kind = 'run' AND state = 'open' AND ($1::text IS NULL OR process = $1) ORDER BY at LIMIT 1
"""
_INTAKE = """
SELECT state, count(*) AS hours FROM reporter.projections
WHERE kind = 'intake' AND at >= $1 AND ($2::text IS NULL OR process = $2) GROUP BY state ORDER BY state
"""
_INTAKE_MARKED = """
SELECT row::text FROM reporter.projections
WHERE kind = 'intake' AND state <> 'complete' AND at >= $1 AND ($2::text IS NULL OR process = $2)
ORDER BY at DESC, case_id LIMIT $3
"""
_SWITCHES = """
SELECT process, paused, reason, generation, changed_by, changed_at FROM control.switches
WHERE $1::text IS NULL OR process = $1 ORDER BY process
"""
_REGIMES = """
SELECT process, model, regime, since, admitted_at, admitted_by, reason FROM control.live_regimes
WHERE $1::text IS NULL OR process = $1 ORDER BY process, model, regime
"""
_CANDIDATES = """
SELECT process, mode, percent, model, regime, generation, reason, changed_by, changed_at FROM control.candidates
WHERE mode <> 'off' AND ($1::text IS NULL OR process = $1) ORDER BY process
"""
_SHADOW_COUNTS = """
SELECT state, row ->> 'code' AS code, row -> 'live' ->> 'verdict' AS live, row -> 'shadow' ->> 'verdict' AS shadow,
       count(*) AS count, sum((row ->> 'cost_usd')::numeric) AS cost_usd
FROM reporter.projections
WHERE kind = 'shadow' AND process = $1 AND row ->> 'regime' = $2
GROUP BY 1, 2, 3, 4 ORDER BY count DESC, 1, 2, 3, 4
"""
_SHADOWS = """
SELECT row::text FROM reporter.projections
WHERE kind = 'shadow' AND process = $1 AND row ->> 'regime' = $2 AND state = ANY($3)
ORDER BY at DESC, case_id LIMIT $4
"""
_CASES = """
SELECT row::text, at, case_id FROM reporter.projections
WHERE kind = 'case' AND ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR process = $2)
  AND ($3::timestamptz IS NULL OR (at, case_id) < ($3, $4::text)) ORDER BY at DESC, case_id DESC LIMIT $5
"""
_CASE = "SELECT row::text FROM reporter.projections WHERE case_id = $1 AND kind = 'case'"
_RUNS = """
SELECT row::text FROM reporter.projections WHERE case_id = $1 AND kind = 'run' ORDER BY at DESC, key LIMIT $2
"""
_WAITING = """
SELECT row::text FROM reporter.projections
WHERE kind = $1 AND state = ANY($2) AND ($3::text IS NULL OR process = $3) AND starts_with(key, $4)
ORDER BY at, case_id LIMIT $5
"""
_OF_CAUSE = """
SELECT row::text FROM reporter.projections
WHERE kind = 'dead_letter' AND state = 'open' AND row ->> 'cause' = $1 ORDER BY at, case_id
"""
_CAUSES = """
SELECT cause, process, kind, service, work, code, count, ordered, detail, since, due_at, told_at, told_count,
       asked_since, escalated_at, acknowledged_at, acknowledged_by, failed, tries
FROM reporter.causes WHERE count > 0 ORDER BY due_at NULLS LAST, since, cause
"""

V = TypeVar("V", bound=Contract)
Sums = Mapping[str, Mapping[str, Decimal]]
"""By period and name."""


async def status(connection: Connection, *, process: str | None = None, at: datetime | None = None) -> Status:
    """How things stand, for one process or for all; `at` is the moment that decides what is today and overdue."""
    now = at or await _now(connection)
    days = [f"{now - timedelta(days=back):%Y-%m-%d}" for back in range(DAYS_SHOWN)]
    sums: dict[str, dict[str, Decimal]] = {period: {} for period in (*days, ALL_DAYS)}
    for row in await connection.fetch(_SUMS, list(sums), process):
        sums[row["period"]][row["name"]] = row["amount"]
    errors = await connection.fetch(_NEWEST, "error", process, ERRORS_SHOWN)
    oldest: datetime | None = await connection.fetchval(_OLDEST_OPEN, process)
    today, ever = sums[days[0]], sums[ALL_DAYS]
    runs, cost = int(today.get("runs", 0)), today.get("cost_usd", Decimal(0))
    due = await connection.fetchrow(_DUE, now, now + DUE_SOON, process)
    assert due is not None, "it is a row of counts"
    since = now - timedelta(days=DAYS_SHOWN)
    intake = {row["state"]: row["hours"] for row in await connection.fetch(_INTAKE, since, process)}
    marked = await connection.fetch(_INTAKE_MARKED, since, process, HOURS_SHOWN)
    return Status(
        at=now,
        day=days[0],
        runs_today=runs,
        failures_today=int(today.get("failures", 0)),
        latency=_latency(today),
        cost_usd_today=cost,
        cost_per_run_usd=cost / runs if runs else None,
        tokens_today=int(today.get("tokens", 0)),
        errors=tuple(ErrorRow.model_validate_json(row[0]) for row in errors),
        cases=_named(ever, "case."),
        decisions=_named(ever, "decision."),
        decisions_today=_named(today, "decision."),
        effects=_named(ever, "effect."),
        effects_today=_named(today, "effect."),
        dead_letters_open=int(sum(ever.get(f"dead_letter.{state}", Decimal(0)) for state in UNENDED)),
        approvals_open=int(ever.get("approval.waiting", 0)),
        oldest_waiting_seconds=None if oldest is None else max(0.0, (now - oldest).total_seconds()),
        sla=_sla(ever, overdue=due["overdue"], due_soon=due["soon"]),
        switches=tuple(Switch(**row) for row in await connection.fetch(_SWITCHES, process)),
        regimes=tuple(RegimeRow(**row) for row in await connection.fetch(_REGIMES, process)),
        candidates=tuple(CandidateRow(**row) for row in await connection.fetch(_CANDIDATES, process)),
        intake=intake,
        intake_marked=tuple(IntakeRow.model_validate_json(row[0]) for row in marked),
        days=tuple(_day(day, sums[day]) for day in days),
        events=int(ever.get("events", 0)),
        unread=int(ever.get("unread", 0)),
    )


async def cases(
    connection: Connection, *, process: str | None = None, state: str | None = None, page: str | None = None
) -> CasePage:
    """A page of cases, the last changed first. `page` is a `next_page`; one that is none starts at the front."""
    at, case_id = _read_page(page)
    rows = await connection.fetch(_CASES, state, process, at, case_id, CASES_PER_PAGE + 1)
    shown = rows[:CASES_PER_PAGE]
    more = len(rows) > CASES_PER_PAGE
    return CasePage(
        at=await _now(connection),
        cases=tuple(CaseRow.model_validate_json(row[0]) for row in shown),
        next_page=f"{shown[-1]['at'].isoformat()}~{shown[-1]['case_id']}" if more else None,
    )


async def case_timeline(connection: Connection, case_id: str, *, reveal: bool = True) -> Timeline:
    """One case and its newest events, told in order of time, with people's texts where their key still is."""
    found = await read_entries(connection, [case_id], limit=LINES_MAX + 1)
    entries = sorted(found.get(case_id, []), key=lambda e: (e.time, ORDER.get(e.type, len(ORDER)), e.event_id))
    row = await connection.fetchval(_CASE, case_id)
    runs = await connection.fetch(_RUNS, case_id, RUNS_SHOWN)
    unseal = None
    if reveal and entries:
        unseal = (await vault.read(connection, [case_id]))[case_id].unseal
    return Timeline(
        at=await _now(connection),
        row=None if row is None else CaseRow.model_validate_json(row),
        runs=tuple(RunRow.model_validate_json(text) for (text,) in runs),
        lines=tuple(_line(entry, unseal) for entry in entries[-LINES_MAX:]),
        cut=len(entries) > LINES_MAX,
    )


async def dead_letters(
    connection: Connection, *, process: str | None = None, id_begins: str = ""
) -> list[DeadLetterRow]:
    """Open dead letters, the oldest first, at most 200."""
    return await _waiting(connection, DeadLetterRow, "dead_letter", UNENDED, process, id_begins)


async def dead_letters_of(connection: Connection, cause: str) -> list[DeadLetterRow]:
    """All open dead letters of one cause, the oldest first; those are left out of which something is ordered."""
    return [DeadLetterRow.model_validate_json(text) for (text,) in await connection.fetch(_OF_CAUSE, cause)]


async def causes(connection: Connection) -> list[CauseRow]:
    """What needs a person now, by cause: the first reply that is late soonest comes first."""
    now = await _now(connection)
    found = []
    for row in await connection.fetch(_CAUSES):
        left = None if row["due_at"] is None else (row["due_at"] - now).total_seconds() / 60
        found.append(CauseRow(**row, minutes_to_breach=left))
    return found


async def approvals(connection: Connection, *, process: str | None = None, id_begins: str = "") -> list[ApprovalRow]:
    """Approvals that wait for an answer, the oldest first, at most 200."""
    return await _waiting(connection, ApprovalRow, "approval", ["waiting"], process, id_begins)


async def shadow_counts(connection: Connection, process: str, regime: str) -> list[ShadowCount]:
    """What came of all that one candidate made in shadow, the most frequent first."""
    return [ShadowCount(**row) for row in await connection.fetch(_SHADOW_COUNTS, process, regime)]


async def shadows_that_differ(connection: Connection, process: str, regime: str) -> list[ShadowRow]:
    """The newest cases that would have been decided otherwise, at most 20."""
    rows = await connection.fetch(_SHADOWS, process, regime, DIFFERENT, SHADOWS_SHOWN)
    return [ShadowRow.model_validate_json(text) for (text,) in rows]


class Queries:
    """ports.Reads: each question on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def status(self, *, process: str | None = None) -> Status:
        async with self._database.connection() as connection:
            return await status(connection, process=process)

    async def cases(self, *, state: str | None, page: str | None) -> CasePage:
        async with self._database.connection() as connection:
            return await cases(connection, state=state, page=page)

    async def timeline(self, case_id: str) -> Timeline:
        async with self._database.connection() as connection:
            return await case_timeline(connection, case_id)

    async def dead_letters(self) -> Sequence[DeadLetterRow]:
        async with self._database.connection() as connection:
            return await dead_letters(connection)

    async def approvals(self) -> Sequence[ApprovalRow]:
        async with self._database.connection() as connection:
            return await approvals(connection)

    async def causes(self) -> Sequence[CauseRow]:
        async with self._database.connection() as connection:
            return await causes(connection)


async def _waiting(
    connection: Connection, view: type[V], kind: str, states: Sequence[str], process: str | None, id_begins: str
) -> list[V]:
    now = await _now(connection)
    found = []
    for (text,) in await connection.fetch(_WAITING, kind, states, process, id_begins, WAITING_SHOWN):
        row = view.model_validate_json(text)
        due_at: datetime | None = getattr(row, "due_at", None)
        left = None if due_at is None else (due_at - now).total_seconds() / 60
        found.append(row.model_copy(update={"minutes_to_breach": left}))
    return found


async def _now(connection: Connection) -> datetime:
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now


def _line(entry: Entry, unseal: Callable[[str], str] | None) -> Line:
    try:
        event = decode(entry.headers, entry.body)
    except (UnknownTypeError, UnreadableError):
        said = "An event that this version cannot read; it is in the log as it came."
        who = entry.headers.get("ce_source", "unknown")
        return _told(entry, who, said, ())
    told = tell(event)
    texts = () if unseal is None else tuple(_open(name, text, unseal) for name, text in sealed_of(event.data).items())
    return _told(entry, told.who, told.sentence, texts)


def _told(entry: Entry, who: str, sentence: str, texts: tuple[Text, ...]) -> Line:
    return Line(
        event_id=entry.event_id,
        time=entry.time,
        type=entry.type,
        who=who,
        sentence=sentence,
        correlation_id=entry.correlation_id,
        texts=texts,
    )


def _open(name: str, text: str, unseal: Callable[[str], str]) -> Text:
    try:
        return Text(name=name, text=unseal(text))
    except UnsealableError:
        return Text(name=name, text=None)


def _read_page(page: str | None) -> tuple[datetime | None, str]:
    at, _, case_id = (page or "").partition("~")
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC), case_id.replace("\0", "")
    return None, ""


def _named(sums: Mapping[str, Decimal], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): int(sums[name]) for name in sorted(sums) if name.startswith(prefix)}


def _latency(sums: Mapping[str, Decimal]) -> Latency:
    counts = {int(upper): count for upper, count in _named(sums, "latency.").items()}
    total = sum(counts.values())
    return Latency(
        count=total,
        average_ms=float(sums.get("latency_ms", Decimal(0))) / total if total else None,
        p50_ms=percentile(counts, 0.50),
        p99_ms=percentile(counts, 0.99),
    )


def _sla(sums: Mapping[str, Decimal], *, overdue: int, due_soon: int) -> SlaStatus:
    met, breached, waiting, none = (
        int(sums.get(f"sla.{state}", 0)) for state in ("met", "breached", "waiting", "not_applicable")
    )
    decided = met + breached + overdue
    return SlaStatus(
        met=met,
        breached=breached,
        overdue=overdue,
        waiting=max(0, waiting - overdue),
        due_soon=due_soon,
        not_applicable=none,
        percent=100 * met / decided if decided else None,
    )


def _day(day: str, sums: Mapping[str, Decimal]) -> Day:
    return Day(
        day=day,
        runs=int(sums.get("runs", 0)),
        failures=int(sums.get("failures", 0)),
        executed=int(sums.get("decision.executed", 0)),
        held=int(sums.get("decision.held", 0)),
        cost_usd=sums.get("cost_usd", Decimal(0)),
    )
