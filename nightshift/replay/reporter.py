"""The reporter made anew from the topics alone, beside the live one; compared with it; and put in its place."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import structlog

from contracts import topics
from nightshift import MendableError
from nightshift.progress import Progress, silent
from nightshift.replay.history import SCAN_SECONDS_MAX, Copy, Topics, entry_from, everything, reading, replaying
from services.reporter.app import policies_of, version_of
from services.reporter.config import RebuildSettings
from services.reporter.domain.log import read
from services.reporter.handlers.append import Projector
from services.reporter.outbound.event_log import ENTRIES_OF_CASE_MAX, digest
from services.reporter.outbound.rebuilding import RebuildRunsError, rebuilding
from services.runtime.config import KafkaSettings
from services.runtime.failures import Later, tell
from services.runtime.postgres import Connection, Database, connect

RUN = "topics"
CASES_PER_BATCH_MAX = 200
IN_FLIGHT_SECONDS = 8.0
"""An event that lies on a topic and not yet in the log, or the other way round, is on its way for so long."""
LOOK_SECONDS = 1.0
SWITCH_SECONDS_MAX = 10.0
"""So long may the appender wait; it gives a statement up after 30 s, and takes it again."""

What = Literal["not in the log", "not on the topics", "other bytes", "other rows", "cannot be projected"]

_LIKE_LIVE = """
CREATE TABLE IF NOT EXISTS replay.projections (LIKE reporter.projections INCLUDING ALL);
CREATE TABLE IF NOT EXISTS replay.totals (LIKE reporter.totals INCLUDING ALL)
"""
_DROP = "DROP TABLE IF EXISTS replay.projections, replay.totals; TRUNCATE replay.waiting"
_WAIT = "INSERT INTO replay.waiting SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_WAITING = "SELECT case_id FROM replay.waiting WHERE case_id > $1 ORDER BY case_id LIMIT $2"
_COUNT_WAITING = "SELECT count(*) FROM replay.waiting"
_READ = f"""
SELECT e.* FROM unnest($1::text[]) c(case_id) CROSS JOIN LATERAL (
    SELECT * FROM replay.entries e WHERE e.run = '{RUN}' AND e.case_id = c.case_id
    ORDER BY time DESC, event_id DESC LIMIT $2) e
"""  # noqa: S608  # a constant of ours
_FORGET_ROWS = "DELETE FROM replay.projections WHERE case_id = ANY($1)"
_KEEP_ROWS = """
INSERT INTO replay.projections (case_id, kind, key, process, state, at, row)
SELECT n.case_id, n.kind, n.key, n.process, n.state, n.at, n.body::json
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[])
    n(case_id, kind, key, process, state, at, body)
"""
_DONE = "DELETE FROM replay.waiting WHERE case_id = ANY($1)"
_SUMS = """
SELECT process, split_part(name, '|', 1) AS period, split_part(name, '|', 2) AS name,
       trim_scale(sum(v::numeric)) AS amount
FROM {}.projections, json_each_text(row) AS s(name, v) WHERE kind = 'sums'
GROUP BY 1, 2, 3 HAVING sum(v::numeric) <> 0
"""
_TOTAL = f"TRUNCATE replay.totals; INSERT INTO replay.totals (process, period, name, amount) {_SUMS.format('replay')}"
_LAST = "SELECT coalesce(max(ordinal), 0) FROM replay.entries WHERE run = $1"
_LAST_LIVE = "SELECT coalesce(max(position), 0) FROM reporter.event_log"

_EVENTS_DIFFER = f"""
SELECT event_id, coalesce(l.case_id, e.case_id) AS case_id,
       CASE WHEN l.type IS NULL THEN 'not in the log' WHEN e.type IS NULL THEN 'not on the topics'
            ELSE 'other bytes' END
FROM reporter.event_log l FULL JOIN (SELECT * FROM replay.entries WHERE run = '{RUN}') e USING (event_id)
WHERE (l.topic, l.type, l.process, l.case_id, l.time, l.correlation_id, l.headers, l.body)
      IS DISTINCT FROM (e.topic, e.type, e.process, e.case_id, e.time, e.correlation_id, e.headers::jsonb, e.body)
AND NOT (l.type IS NULL AND EXISTS (SELECT FROM reporter.event_log_known k WHERE k.event_id = e.event_id))
"""  # noqa: S608  # a constant of ours
_ELSEWHERE = "SELECT (SELECT count(*) FROM reporter.event_log_known) - (SELECT count(*) FROM reporter.event_log)"
"""Months that were put elsewhere as a whole: what is known to the log and does not lie in it."""
_ROWS_DIFFER = """
SELECT DISTINCT case_id FROM reporter.projections l FULL JOIN replay.projections r USING (case_id, kind, key)
WHERE (l.process, l.state, l.at, l.row::text) IS DISTINCT FROM (r.process, r.state, r.at, r.row::text)
"""
_TOTALS_DIFFER = f"""
SELECT count(*) FROM reporter.totals t FULL JOIN ({_SUMS.format("reporter")}) s USING (process, period, name)
WHERE t.amount IS DISTINCT FROM s.amount
"""  # noqa: S608  # a constant of ours

_NOBODY_APPENDS = "SELECT pg_advisory_xact_lock(hashtextextended('nightshift.reporter.projections', 0))"
_UNKNOWN = f"""
SELECT count(*) FROM (SELECT event_id FROM reporter.event_log WHERE position > $1 UNION SELECT unnest($2::uuid[])) l
WHERE NOT EXISTS (SELECT FROM replay.entries e WHERE e.run = '{RUN}' AND e.event_id = l.event_id)
"""  # noqa: S608  # a constant of ours
_ADD = f"""
WITH lacking AS (
    INSERT INTO reporter.event_log_known (event_id)
    SELECT event_id FROM replay.entries WHERE run = '{RUN}' AND (ordinal > $1 OR event_id = ANY($2))
    ON CONFLICT DO NOTHING RETURNING event_id)
INSERT INTO reporter.event_log (event_id, topic, type, process, case_id, time, correlation_id, headers, body)
SELECT event_id, topic, type, process, case_id, time, correlation_id, headers::jsonb, body
FROM replay.entries JOIN lacking USING (event_id) WHERE run = '{RUN}' ORDER BY ordinal
"""  # noqa: S608  # a constant of ours
_SWAP = """
LOCK TABLE reporter.totals, reporter.projections IN ACCESS EXCLUSIVE MODE;
DROP TABLE reporter.totals, reporter.projections;
ALTER TABLE replay.totals SET SCHEMA reporter;
ALTER TABLE replay.projections SET SCHEMA reporter;
ALTER TABLE reporter.totals OWNER TO nightshift_reporter;
ALTER TABLE reporter.projections OWNER TO nightshift_reporter;
GRANT SELECT ON reporter.totals, reporter.projections TO nightshift_replay
"""
_SAY = """
INSERT INTO reporter.projected_by (version) VALUES ($1) ON CONFLICT (one) DO UPDATE SET version = excluded.version
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Where the live reporter is not what the topics say."""

    cases: Mapping[str, Sequence[What]]
    """By case: what differs, each once."""
    totals: int = 0
    """Live totals that are not the sums of their own rows."""
    in_flight: frozenset[UUID] = frozenset()
    """Events that were on their way when it was compared."""
    missing: frozenset[UUID] = frozenset()
    """Events that the log lacks."""
    elsewhere: int = 0
    """Events in months of the log that were put elsewhere: no difference."""

    @property
    def irreparable(self) -> dict[str, Sequence[What]]:
        """Cases that a switch cannot mend: the log only grows, and it must lose nothing."""
        final = {"not on the topics", "other bytes"}
        return {case_id: whats for case_id, whats in self.cases.items() if final & {*whats}}

    def __bool__(self) -> bool:
        return bool(self.cases or self.totals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of it."""

    events: int
    cases: int
    resumed: bool
    differences: Differences
    switched: bool
    digest: str
    """Of the live projections, at the end."""


class NotSwitchedError(MendableError):
    """A switch would lose something, or keep the log from working for too long: nothing was changed."""


async def replay_topics(
    admin_url: str,
    bootstrap: str,
    *,
    switch: bool = False,
    overrides: str | None = None,
    in_flight_seconds: float = IN_FLIGHT_SECONDS,
    progress: Progress = silent,
) -> Replayed:
    """Read every topic from its beginning, project, compare; the services run meanwhile. Raises MendableError.

    `overrides` as in NIGHTSHIFT_PROCESS_OVERRIDES; none takes those of the environment.
    """
    settings = (
        RebuildSettings(database_url=admin_url)
        if overrides is None
        else RebuildSettings(database_url=admin_url, process_overrides=overrides)
    )
    policies = policies_of(settings)
    async with replaying(admin_url) as database, reading(KafkaSettings(kafka_bootstrap=bootstrap)) as history:
        reporter = _Reporter(database, history, Projector(policies), progress)
        resumed = await reporter.begin(version_of(policies))
        await reporter.catch_up()
        async with connect(admin_url, schema="reporter", connections_max=2) as live:
            position = await _last_position(live)
            ordinal = await reporter.last()
            differences = await reporter.compare(in_flight_seconds)
            if switch:
                await reporter.switch(live, differences, position, ordinal, version_of(policies))
            events, cases = await reporter.size(switched=switch)
            async with live.connection() as connection:
                told = await digest(connection)
        await reporter.end()
    return Replayed(events=events, cases=cases, resumed=resumed, differences=differences, switched=switch, digest=told)


async def _last_position(live: Database) -> int:
    """Read while nobody appends: whatever appears later has a higher one."""
    async with live.transaction() as connection:
        await connection.execute(_NOBODY_APPENDS)
        return int(await connection.fetchval(_LAST_LIVE))


class _Reporter:
    """A reporter in the schema `replay`, fed by hand."""

    def __init__(self, database: Database, history: Topics, project: Projector, progress: Progress) -> None:
        self._database = database
        self._copy = Copy(database, history, RUN)
        self._project = project
        self._progress = progress

    async def begin(self, version: str) -> bool:
        goes_on = await self._copy.begin(version)
        async with self._database.transaction() as connection:
            if not goes_on:
                await connection.execute(_DROP)
            await connection.execute(_LIKE_LIVE)
        return goes_on

    async def end(self) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_DROP)
            await self._copy.forget(connection)

    async def last(self) -> int:
        async with self._database.connection() as connection:
            return int(await connection.fetchval(_LAST, RUN))

    async def size(self, *, switched: bool) -> tuple[int, int]:
        projections = "reporter.projections" if switched else "replay.projections"
        async with self._database.connection() as connection:
            events = await connection.fetchval("SELECT count(*) FROM replay.entries WHERE run = $1", RUN)
            cases = await connection.fetchval(f"SELECT count(*) FROM {projections} WHERE kind = 'sums'")  # noqa: S608  # ours
        return int(events), int(cases)

    async def catch_up(self) -> None:
        """Copy what lies on the topics now, and project the cases that it is about."""
        await self._copy.take(topics.ALL, wanted=everything, progress=self._progress, further=True, waiting=_WAIT)
        async with self._database.connection() as connection:
            left = total = await connection.fetchval(_COUNT_WAITING)
            last = ""
            while case_ids := [row[0] for row in await connection.fetch(_WAITING, last, CASES_PER_BATCH_MAX)]:
                await self._fill(connection, case_ids)
                left, last = left - len(case_ids), case_ids[-1]
                self._progress("projecting cases", total - left, total)

    async def _fill(self, connection: Connection, case_ids: Sequence[str]) -> None:
        """Together, or singly when that fails: one that cannot be projected spoils no other, and stays waiting."""
        try:
            async with connection.transaction():
                await self._fill_in(connection, case_ids)
        except Exception as error:
            if isinstance(tell(error), Later):
                raise
            if len(case_ids) > 1:
                for case_id in case_ids:
                    await self._fill(connection, [case_id])
                return
            log.error("a case cannot be projected", error=type(error).__name__)  # noqa: TRY400  # may quote people

    async def _fill_in(self, connection: Connection, case_ids: Sequence[str]) -> None:
        told: dict[str, list[object]] = {}
        for row in await connection.fetch(_READ, case_ids, ENTRIES_OF_CASE_MAX):
            told.setdefault(row["case_id"], []).append(read(entry_from(row)))
        rows = [
            (case.case_id, row.kind, row.key, case.process, row.state, row.at, row.body)
            for case in self._project(told)  # type: ignore[arg-type]  # `read` tells
            for row in case.rows
        ]
        await connection.execute(_FORGET_ROWS, case_ids)
        if rows:
            await connection.execute(_KEEP_ROWS, *(list(column) for column in zip(*rows, strict=True)))
        await connection.execute(_DONE, case_ids)

    async def compare(self, in_flight_seconds: float) -> Differences:
        """Byte for byte. What is on its way gets its time to arrive; under load something always is."""
        clock = asyncio.get_running_loop().time
        first: dict[UUID, float] = {}
        began: float | None = None
        while True:
            look, events = await self._look()
            now = clock()
            began = now if began is None else began
            first = {event_id: first.get(event_id, now) for event_id in events}
            young = {
                event_id
                for event_id, (_, what) in events.items()
                if what != "other bytes" and now < first[event_id] + in_flight_seconds
            }
            self._progress("comparing", round(now - began), max(round(now - began), round(in_flight_seconds)))
            if not young or now >= began + in_flight_seconds:
                break
            await asyncio.sleep(min(LOOK_SECONDS, in_flight_seconds))
            await self.catch_up()
        cases = {case_id: [*whats] for case_id, whats in look.cases.items()}
        for event_id, (case_id, what) in events.items():
            if event_id not in young and what not in cases.setdefault(case_id, []):
                cases[case_id].append(what)
        missing = {e for e, (_, what) in events.items() if what == "not in the log"}
        return Differences(
            cases=dict(sorted(cases.items())),
            totals=look.totals,
            in_flight=frozenset(young),
            missing=frozenset(missing),
            elsewhere=look.elsewhere,
        )

    async def _look(self) -> tuple["_Look", dict[UUID, tuple[str, What]]]:
        """One moment of both: events that differ, then rows of the cases whose events are the same."""
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            events = {
                row[0]: (row[1], row[2]) for row in await connection.fetch(_EVENTS_DIFFER, timeout=SCAN_SECONDS_MAX)
            }
            of_events = {case_id for case_id, _ in events.values()}
            waiting = {row[0] for row in await connection.fetch("SELECT case_id FROM replay.waiting")}
            rows = {row[0] for row in await connection.fetch(_ROWS_DIFFER, timeout=SCAN_SECONDS_MAX)}
            totals = await connection.fetchval(_TOTALS_DIFFER, timeout=SCAN_SECONDS_MAX)
            elsewhere = await connection.fetchval(_ELSEWHERE, timeout=SCAN_SECONDS_MAX)
        cases: dict[str, list[What]] = {case_id: ["cannot be projected"] for case_id in waiting}
        cases |= {case_id: ["other rows"] for case_id in rows - of_events - waiting}
        return _Look(cases=cases, totals=int(totals), elsewhere=int(elsewhere)), events

    async def switch(self, live: Database, differences: Differences, position: int, ordinal: int, version: str) -> None:
        """Make these projections the live ones. The log keeps what it has, and gets what it lacks.

        Up to `position` and `ordinal` both sides were compared; the rest is caught up with while nobody appends.
        """
        if lost := differences.irreparable:
            raise NotSwitchedError(
                f"not switched: the log only grows and must lose nothing, and {len(lost)} cases have events in it that "
                f"are not on the topics, or not as the same bytes: {', '.join(list(lost)[:5])}"
            )
        if stuck := [c for c, whats in differences.cases.items() if "cannot be projected" in whats]:
            raise NotSwitchedError(f"not switched: this build cannot project {', '.join(stuck[:5])}")
        clock = asyncio.get_running_loop().time
        try:
            async with rebuilding(live):
                await self.catch_up()
                async with live.transaction() as connection:
                    await connection.execute(_NOBODY_APPENDS)
                    began = clock()
                    while True:
                        await self.catch_up()
                        if not await connection.fetchval(_UNKNOWN, position, [*differences.in_flight]):
                            break
                        if clock() > began + SWITCH_SECONDS_MAX:
                            raise NotSwitchedError("not switched: the log has news that the topics do not have")
                    async with self._database.transaction() as mine:
                        await mine.execute(_TOTAL, timeout=SCAN_SECONDS_MAX)
                    await connection.execute(_ADD, ordinal, [*differences.missing], timeout=SCAN_SECONDS_MAX)
                    await connection.execute(_SWAP)
                    await connection.execute(_SAY, version)
        except RebuildRunsError as error:
            raise MendableError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Look:
    cases: dict[str, list[What]] = field(default_factory=dict)
    totals: int = 0
    elsewhere: int = 0
