"""Work, sequenced by case: claimed in batches under a lease, fenced by a token, finished by set-based statements.

    want ─▶ open ─claim─▶ leased ─finish─▶ done
                 ◀─again/later/lease expired─┘   └─never─▶ blocked (dead letter) ─redrive─▶ open, ─skip─▶ done

The lease is `available_at` moved into the future: what a dead worker held becomes claimable by itself. Each claim and
each newer basis raises `token`; whoever finishes with an older token changes nothing and says nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import structlog
from prometheus_client import Counter, Histogram

from contracts.base import Fact
from contracts.envelope import Event
from services.runtime import dead_letters, outbox, switches
from services.runtime.failures import Again, Failure, Later, Never, backoff_seconds, jitter, tell
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Connection, Database
from services.runtime.stop import Stop, Wake
from services.runtime.telemetry import exemplar

IDLE_SECONDS = 1.0
"""A worker looks this often even when nobody wakes it."""
STORE_TRIES_MAX = 5
"""Of one transaction that met another."""

log = structlog.get_logger()
finished_total = Counter("nightshift_tasks_finished_total", "Tasks by how they ended", ["service", "kind", "outcome"])
waited_seconds = Histogram("nightshift_task_age_seconds", "From wanted to finished", ["service", "kind"])

_WANT = """
INSERT INTO tasks AS t (case_id, kind, process, basis, cause, correlation_id, traceparent, available_at)
SELECT w.case_id, w.kind, w.process, w.basis, w.cause, w.correlation_id, w.traceparent,
       greatest(clock_timestamp(), least(w.not_before, clock_timestamp() + w.waits_at_most))
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::text[], $8::timestamptz[],
            $9::interval[])
    w(case_id, kind, process, basis, cause, correlation_id, traceparent, not_before, waits_at_most)
ORDER BY w.case_id, w.kind
ON CONFLICT (case_id, kind) DO UPDATE SET
    basis = excluded.basis, cause = excluded.cause, correlation_id = excluded.correlation_id,
    traceparent = excluded.traceparent, available_at = excluded.available_at, attempts = 0, token = t.token + 1,
    opened_at = clock_timestamp(), state = CASE t.state WHEN 'blocked' THEN 'blocked' ELSE 'open' END
WHERE excluded.basis > t.basis
"""
_CLAIM = "SELECT * FROM claim_tasks($1, $2, $3, $4, $5)"
_RENEW = """
UPDATE tasks t SET available_at = clock_timestamp() + $4::interval
FROM unnest($1::text[], $2::text[], $3::bigint[]) r(case_id, kind, token)
WHERE t.case_id = r.case_id AND t.kind = r.kind AND t.token = r.token AND t.state = 'open'
"""
_DONE = """
UPDATE tasks t SET state = 'done', last_code = NULL
FROM unnest($1::text[], $2::text[], $3::bigint[]) d(case_id, kind, token)
WHERE t.case_id = d.case_id AND t.kind = d.kind AND t.token = d.token AND t.state = 'open'
RETURNING t.case_id, t.token, extract(epoch FROM clock_timestamp() - t.opened_at)::float8 AS age
"""
_POSTPONE = """
UPDATE tasks t SET available_at = clock_timestamp() + make_interval(secs => p.seconds), last_code = p.code,
       token = t.token + 1, attempts = t.attempts - CASE WHEN p.counts THEN 0 ELSE 1 END
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::float8[], $5::text[], $6::boolean[])
    p(case_id, kind, token, seconds, code, counts)
WHERE t.case_id = p.case_id AND t.kind = p.kind AND t.token = p.token AND t.state = 'open'
"""
_STILL_OURS = "SELECT 1 FROM tasks WHERE case_id = $1 AND kind = $2 AND token = $3 AND state = 'open' FOR UPDATE"
_OLDEST = """
SELECT extract(epoch FROM clock_timestamp() - min(t.available_at))::float8 FROM tasks t
WHERE t.process = $1 AND t.kind = $2 AND t.state = 'open' AND t.available_at <= clock_timestamp()
  AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.case_id = t.case_id AND d.redriven_at IS NULL)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A piece of work for the newest basis of a case. An older or equal basis than the one known changes nothing."""

    case_id: str
    process: str
    kind: str
    basis: str
    cause: UUID
    correlation_id: UUID
    traceparent: str | None = None
    not_before: datetime | None = None
    waits_at_most: timedelta = timedelta()
    """`not_before` is told by another's clock: however far ahead that is, it is no further than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Work held under a lease."""

    case_id: str
    process: str
    kind: str
    basis: str
    cause: UUID
    correlation_id: UUID
    traceparent: str | None
    token: int
    attempts: int
    redrives: int
    generation: int
    """Of the switch, when it was claimed; 0 for work that the switch does not stop."""


@dataclass(frozen=True, slots=True)
class Done:
    """The work's result: what to say, and what `store` needs to keep it."""

    events: tuple[Event[Fact], ...] = ()
    result: Any = None


Outcome = Done | Failure
Perform = Callable[[Sequence[Claim]], Awaitable[Sequence[Outcome | Exception]]]
Store = Callable[[Connection, Sequence[tuple[Claim, Done]]], Awaitable[None]]
"""Stores results in the transaction that finishes the tasks; only those still held are passed."""


async def want(connection: Connection, wanted: Sequence[Wanted]) -> None:
    """Open work in the caller's transaction. The newest basis of each (case, kind) wins."""
    newest: dict[tuple[str, str], Wanted] = {}
    for work in wanted:
        known = newest.get((work.case_id, work.kind))
        if known is None or work.basis > known.basis:
            newest[work.case_id, work.kind] = work
    rows = list(newest.values())
    if rows:
        await connection.execute(
            _WANT,
            [w.case_id for w in rows],
            [w.kind for w in rows],
            [w.process for w in rows],
            [w.basis for w in rows],
            [w.cause for w in rows],
            [w.correlation_id for w in rows],
            [w.traceparent for w in rows],
            [w.not_before for w in rows],
            [None if w.not_before is None else w.waits_at_most for w in rows],
        )


@dataclass(kw_only=True)
class Worker:
    """Claims one kind of work for one process and sees it to its end."""

    database: Database
    service: str
    process: str
    kind: str
    perform: Perform
    """Does the work outside any transaction; answers for each claim, in order."""
    store: Store
    attempts_max: int
    lease_seconds: float
    batch_max: int = 64
    obeys_switch: bool = True
    may_claim: Callable[[], bool] = lambda: True
    """Asked before each claim. Where it says no, work waits, and that is no fault of the worker's."""
    wake: Wake = field(default_factory=Wake)
    woken_after: Sequence[Wake] = ()
    """Who is told when results were committed: the relay, for one."""
    clock: Callable[[], float] = time.monotonic
    in_hand: bool = field(default=False, init=False)
    """Whether it has claimed something and not finished it yet."""
    _moved_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._moved_at = self.clock()

    @property
    def still_seconds(self) -> float:
        """How long it has neither claimed anything nor finished what it had claimed; at first, since it began."""
        return self.clock() - self._moved_at

    async def run(self, stop: Stop) -> None:
        """Work until told to stop; what is in hand is finished first."""
        while not stop.is_set():
            try:
                claimed = await self.step()
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("worker waits for postgres", kind=self.kind, error=type(error).__name__)
                await stop.wait(IDLE_SECONDS)
                continue
            if claimed < self.batch_max:
                await self.wake.wait(IDLE_SECONDS, stop)

    async def step(self) -> int:
        """Claim once, perform and finish. Returns how many pieces were claimed."""
        claims = await self.claim()
        if len(claims) == self.batch_max:
            self.wake.set()  # there may be more, for another that waits
        if claims:
            self._moved_at, self.in_hand = self.clock(), True
            try:
                await self.finish(claims, await self._perform(claims))
            finally:
                self._moved_at, self.in_hand = self.clock(), False
        return len(claims)

    async def _perform(self, claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        """Perform together, or, when that raises, each alone: what one piece raises is its own outcome.

        Raises what says that Postgres is away: the leases expire, and the work is done again.
        """
        performed = await self._perform_and_renew(claims)
        if not isinstance(performed, Exception):
            return performed
        if isinstance(performed, (*UNAVAILABLE, *CONTENDED)):
            raise performed
        log.warning("work raised", kind=self.kind, size=len(claims), error=type(performed).__name__)
        if len(claims) == 1:
            return [performed]
        return [outcome for claim in claims for outcome in await self._perform([claim])]

    async def _perform_and_renew(self, claims: Sequence[Claim]) -> Sequence[Outcome | Exception] | Exception:
        """Perform, and keep the lease meanwhile: it is short, so that a dead worker's work is soon another's."""

        async def perform() -> Sequence[Outcome | Exception] | Exception:
            try:
                return await self.perform(claims)
            except Exception as error:  # noqa: BLE001  # a group of tasks would wrap it
                return error

        async with asyncio.TaskGroup() as group:
            performing = group.create_task(perform())
            while not (await asyncio.wait([performing], timeout=self.lease_seconds / 3))[0]:
                await self._renew(claims)
        return performing.result()

    async def _renew(self, claims: Sequence[Claim]) -> None:
        try:
            async with self.database.connection() as connection:
                await connection.execute(
                    _RENEW,
                    [claim.case_id for claim in claims],
                    [claim.kind for claim in claims],
                    [claim.token for claim in claims],
                    timedelta(seconds=self.lease_seconds),
                )
        except (*UNAVAILABLE, *CONTENDED) as error:
            log.warning("a lease cannot be kept", kind=self.kind, error=type(error).__name__)

    async def claim(self) -> list[Claim]:
        """Take what is due, up to `batch_max`; nothing while the process is paused or `may_claim` says no."""
        if not self.may_claim():
            return []
        lease = timedelta(seconds=self.lease_seconds)
        async with self.database.connection() as connection:
            rows = await connection.fetch(_CLAIM, self.process, self.kind, self.batch_max, lease, self.obeys_switch)
        return [
            Claim(
                case_id=row["case_id"],
                process=row["process"],
                kind=row["kind"],
                basis=row["basis"],
                cause=row["cause"],
                correlation_id=row["correlation_id"],
                traceparent=row["traceparent"],
                token=row["token"],
                attempts=row["attempts"],
                redrives=row["redrives"],
                generation=row["generation"],
            )
            for row in rows
        ]

    async def finish(self, claims: Sequence[Claim], outcomes: Sequence[Outcome | Exception]) -> None:
        """Write what came of the claims: one transaction, or, when that fails, one for each."""
        told = [(claim, tell(o) if isinstance(o, Exception) else o) for claim, o in zip(claims, outcomes, strict=True)]
        done = [(claim, outcome) for claim, outcome in told if isinstance(outcome, Done)]
        failed = [(claim, outcome) for claim, outcome in told if not isinstance(outcome, Done)]
        try:
            await self._complete(done)
        except Exception as error:
            if isinstance(tell(error), Later):
                raise  # Postgres is away: the leases expire, the work is done again
            log.warning(
                "a shared commit failed; results are written singly", kind=self.kind, error=type(error).__name__
            )
            for claim, outcome in done:
                try:
                    await self._complete([(claim, outcome)])
                except Exception as alone:  # noqa: BLE001  # whatever it is, it is this task's failure
                    failed.append((claim, tell(alone)))
        await self._fail(failed)
        for wake in self.woken_after:
            wake.set()

    async def _complete(self, done: Sequence[tuple[Claim, Done]]) -> None:
        """Write results in one transaction. Two that met are tried again at once: to do the work anew is dear."""
        if not done:
            return None
        for _ in range(STORE_TRIES_MAX - 1):
            try:
                return await self._complete_once(done)
            except CONTENDED:
                continue
        return await self._complete_once(done)

    async def _complete_once(self, done: Sequence[tuple[Claim, Done]]) -> None:
        async with self.database.transaction() as connection:
            rows = await connection.fetch(
                _DONE, [c.case_id for c, _ in done], [c.kind for c, _ in done], [c.token for c, _ in done]
            )
            ours = {(row["case_id"], row["token"]) for row in rows}
            kept = [(claim, outcome) for claim, outcome in done if (claim.case_id, claim.token) in ours]
            await self.store(connection, kept)
            await outbox.append(connection, [event for _, outcome in kept for event in outcome.events])
        finished_total.labels(self.service, self.kind, "done").inc(len(kept))
        finished_total.labels(self.service, self.kind, "fenced").inc(len(done) - len(kept))
        traces = {claim.case_id: claim.traceparent for claim, _ in done}
        for row in rows:
            waited_seconds.labels(self.service, self.kind).observe(row["age"], exemplar(traces[row["case_id"]]))

    async def _fail(self, failed: Sequence[tuple[Claim, Failure]]) -> None:
        postponed: list[tuple[Claim, float, str, bool]] = []
        for claim, failure in failed:
            match failure:
                case Never(code, message, events):
                    await self._bury(claim, code, message, events)
                case Again(code, message) if claim.attempts >= self.attempts_max:
                    await self._bury(claim, code, message)
                case Again(code, _):
                    postponed.append((claim, backoff_seconds(claim.attempts, chance=jitter()), code, True))
                case Later(code, seconds):
                    postponed.append((claim, seconds, code, False))
        if not postponed:
            return
        finished_total.labels(self.service, self.kind, "postponed").inc(len(postponed))
        async with self.database.connection() as connection:
            await connection.execute(
                _POSTPONE,
                [claim.case_id for claim, _, _, _ in postponed],
                [claim.kind for claim, _, _, _ in postponed],
                [claim.token for claim, _, _, _ in postponed],
                [seconds for _, seconds, _, _ in postponed],
                [code for _, _, code, _ in postponed],
                [counts for _, _, _, counts in postponed],
            )

    async def _bury(self, claim: Claim, code: str, message: str, events: Sequence[Event[Fact]] = ()) -> None:
        finished_total.labels(self.service, self.kind, "dead").inc()
        async with self.database.transaction() as connection:
            if await connection.fetchval(_STILL_OURS, claim.case_id, claim.kind, claim.token) is None:
                return
            await dead_letters.raise_for_task(
                connection,
                service=self.service,
                dead_letter_id=uuid5(claim.cause, f"dead_letter|{self.service}|{claim.kind}|{claim.redrives}"),
                case_id=claim.case_id,
                process=claim.process,
                correlation_id=claim.correlation_id,
                causation_id=claim.cause,
                work=claim.kind,
                basis=claim.basis,
                code=code,
                message=message,
                attempts=claim.attempts,
            )
            await outbox.append(connection, events)

    async def oldest_claimable_seconds(self) -> float:
        """How long the longest waiting piece of work has been claimable; 0.0 when none is, or nobody may claim it."""
        if not self.may_claim():
            return 0.0
        async with self.database.transaction() as connection:
            if self.obeys_switch and await switches.running_generation(connection, self.process) is None:
                return 0.0
            return float(await connection.fetchval(_OLDEST, self.process, self.kind) or 0.0)
