"""One destination of one process: what is due goes out, paced, behind a breaker; what went out is looked for.

turn (two at a time) ─breaker, pace─▶ claim (commit) ─≤ 2 s─▶ call ─▶ outcome (commit)
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import structlog

from connectors.protocol import Acknowledged, PlainChange, Written
from contracts.failures import ConflictError, LaterError, OutcomeUnknownError, PermanentError
from services.actor.domain.pace import Breaker, Pace
from services.actor.handlers import effect_claimed, effect_observed, effect_sent
from services.actor.handlers.effect_claimed import Claim, Line
from services.actor.handlers.say import breaker_open
from services.actor.ports import Outside, carries_stamp
from services.runtime import switches
from services.runtime.health import STALLED_SECONDS
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Connection, Database
from services.runtime.process import Process
from services.runtime.stop import Stop, Wake

IDLE_SECONDS = 1.0
WAIT_SECONDS_MAX = 1.0
CLAIM_TO_CALL_SECONDS = 2.0
"""A claim older than this when its call would begin is not sent: what it checked may no longer hold."""
CONNECTOR_FIRST_SECONDS = 1.0
"""A connector's own timeout ends a call before ours does: it knows whether the request ever left."""
CLAIMING_MAX = 2
"""Claims under way side by side: one waits for its commit while the next is made. More only collide."""
RECORD_TRIES_MAX = 5

_OLDEST = """
SELECT extract(epoch FROM clock_timestamp() - min(e.available_at))::float8 FROM effects e
WHERE process = $1 AND destination = $2 AND state IN ('planned', 'in_flight', 'unknown')
  AND available_at <= clock_timestamp()
  AND NOT EXISTS (SELECT 1 FROM effects b WHERE b.case_id = e.case_id AND b.destination = e.destination
                  AND b.ordinal < e.ordinal AND b.state IN ('planned', 'in_flight', 'unknown'))
"""

log = structlog.get_logger()

T = TypeVar("T")
Record = Callable[[Connection], Awaitable[None]]


class Lane:
    """Sends and looks for one destination. `outside` is none where the settings connect none."""

    def __init__(
        self,
        *,
        database: Database,
        process: Process,
        destination: str,
        outside: Outside | None,
        woken_after: Sequence[Wake] = (),
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock`: seconds that only rise; the event loop's where none is given."""
        settings = process.settings.destinations[destination]
        self._database = database
        self._process = process
        self._name = destination
        self._outside = outside
        self._woken_after = woken_after
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._concurrency = settings.concurrency
        self._timeout_seconds = settings.timeout_seconds
        self._line = Line(
            process=process,
            destination=destination,
            connected=outside is not None,
            can_read_back=outside is not None and outside.reader is not None,
        )
        self.breaker = Breaker(failures_max=settings.breaker_failures, open_seconds=settings.breaker_open_seconds)
        self.pace = Pace(per_second=settings.requests_per_second)
        self.wake = Wake()
        self._turn = asyncio.Semaphore(CLAIMING_MAX)
        self._claimed_at: float | None = None

    @property
    def title(self) -> str:
        return f"{self._process.name} {self._name}"

    async def run(self, stop: Stop) -> None:
        """Work until told to stop; a call in hand is finished and recorded first."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._keep(self._send_next, stop))
                if self._line.can_read_back:
                    group.create_task(self._keep(self._look_next, stop))

    async def step(self) -> bool:
        """One claim and what follows from it, without waiting. False when there was nothing, or it may not be yet."""
        if self._wait_seconds() > 0:
            return False
        claim = await self._claim()
        if isinstance(claim, Claim):
            await self._carry_out(claim)
        return claim is not None

    async def look(self) -> bool:
        """One look at what was written. False when none is due."""
        assert self._outside is not None, "only a connected destination is looked at"
        reader = self._outside.reader
        assert reader is not None, "only a readable destination is looked at"
        async with self._database.transaction() as connection:
            look = await effect_observed.claim_look(connection, self._process.name, self._name, self._line.lease)
        if look is None:
            return False
        self._begin()
        answer = await self._reading(reader.written(look.object_id))
        self._tell(answer)
        async with self._database.transaction() as connection:
            match answer:
                case LaterError() | OutcomeUnknownError():
                    await effect_observed.later(connection, look, seconds=getattr(answer, "seconds", 5.0))
                case Exception() if getattr(answer, "code", None) == "gone":
                    await effect_observed.looked(connection, self._process, look, ())
                case Exception():
                    log.warning("an object cannot be looked at", destination=self._name, error=type(answer).__name__)
                    await effect_observed.later(connection, look, seconds=60.0)
                case _:
                    await effect_observed.looked(connection, self._process, look, answer)
        self._wake_others()
        return True

    async def stalled(self) -> str | None:
        """A health check: effects are due and may go, and none has been claimed for longer than the limit."""
        now = self._clock()
        if self._claimed_at is None:  # it has only just begun
            self._claimed_at = now
        if now - self._claimed_at <= STALLED_SECONDS or self.breaker.state(now) != "closed" or self.pace.paused(now):
            return None
        async with self._database.transaction() as connection:
            if await switches.running_generation(connection, self._process.name) is None:
                return None
            waiting = await connection.fetchval(_OLDEST, self._process.name, self._name) or 0.0
        if waiting <= STALLED_SECONDS:
            return None
        return f"{self._name}: effects wait since {waiting:.0f} s (limit {STALLED_SECONDS:.0f} s) and none is claimed"

    async def _keep(self, part: Callable[[Stop], Awaitable[None]], stop: Stop) -> None:
        while not stop.is_set():
            try:
                await part(stop)
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("effects wait for postgres", destination=self._name, error=type(error).__name__)
                await stop.wait(IDLE_SECONDS)

    async def _send_next(self, stop: Stop) -> None:
        """Take the turn, wait until a request may begin, claim, give the turn back, and call."""
        async with self._turn:
            if stop.is_set():
                return
            if (seconds := self._wait_seconds()) > 0:
                await stop.wait(min(seconds, WAIT_SECONDS_MAX))
                return
            claim = await self._claim()
            if claim is None:
                await self.wake.wait(IDLE_SECONDS, stop)
        if isinstance(claim, Claim):
            await self._carry_out(claim)

    async def _look_next(self, stop: Stop) -> None:
        if (seconds := self._wait_seconds()) > 0:
            await stop.wait(min(seconds, WAIT_SECONDS_MAX))
        elif not await self.look():
            await stop.wait(IDLE_SECONDS)

    def _wait_seconds(self) -> float:
        if not self._line.connected:
            return 0.0
        now = self._clock()
        state = self.breaker.state(now)
        breaker_open.labels(self._process.name, self._name).set({"closed": 0.0, "half_open": 0.5, "open": 1.0}[state])
        return max(self.breaker.wait_seconds(now), self.pace.wait_seconds(now))

    async def _claim(self) -> Claim | Literal["settled"] | None:
        """The request counts as begun before the claim, so that two claims never share one probe."""
        self._begin()
        claim = None
        try:
            async with self._database.transaction() as connection:
                claim = await effect_claimed.claim(connection, self._line)
        finally:
            if not isinstance(claim, Claim):
                self.breaker.gave_up()
                self.pace.give_back()
        if claim is not None:
            self._claimed_at = self._clock()
            for wake in self._woken_after:
                wake.set()
        return claim

    def _begin(self) -> None:
        now = self._clock()
        self.breaker.begin(now)
        self.pace.take(now)

    async def _carry_out(self, claim: Claim) -> None:
        committed_at = self._claimed_at
        assert committed_at is not None, "a claim was made"
        assert self._outside is not None, "an unconnected destination claims nothing"
        match claim.work:
            case "send":
                await self._send(claim, self._outside, committed_at)
            case "read_back":
                await self._read_back(claim, self._outside)
            case "refresh":
                await self._refresh(claim, self._outside)
        self._wake_others()

    async def _send(self, claim: Claim, outside: Outside, committed_at: float) -> None:
        if self._clock() - committed_at > CLAIM_TO_CALL_SECONDS:
            self.breaker.gave_up()
            late = LaterError(effect_sent.NOT_SENT, "the claim was too old", seconds=0.0)
            return await self._record(lambda c: effect_sent.not_done(c, claim, self._process, late))
        stamp = claim.stamp if carries_stamp(claim.request) else None
        answer = await self._calling(outside.sends.send(claim.request, effect_key=claim.key, stamp=stamp))
        self._tell(answer)
        if isinstance(answer, Acknowledged):
            look = self._line.can_read_back
            return await self._record(lambda c: effect_sent.acknowledged(c, claim, answer, look=look))
        failure = answer
        return await self._record(lambda c: effect_sent.not_done(c, claim, self._process, failure))

    async def _read_back(self, claim: Claim, outside: Outside) -> None:
        assert outside.reader is not None, "only what can be read back is"
        answer = await self._reading(outside.reader.written(claim.request.object_id))
        self._tell(answer)
        if isinstance(answer, Exception):
            failure = answer
            return await self._record(lambda c: effect_sent.cannot_read(c, claim, self._process, failure))
        written: Sequence[Written] = answer

        async def record(connection: Connection) -> None:
            case_id = claim.stored.case_id
            await effect_observed.observe(connection, self._process, case_id, written, by="read_back")
            await effect_sent.read_back(connection, claim, self._process, written)

        return await self._record(record)

    async def _refresh(self, claim: Claim, outside: Outside) -> None:
        """The stamp first, then the history: what changes after the stamp makes the call fail with a conflict."""
        assert outside.reader is not None, "only what can be read is"
        object_id = claim.request.object_id
        stamp = await self._reading(outside.reader.current_stamp(object_id))
        self.pace.take(self._clock())
        changes: Sequence[PlainChange] | Exception = ()
        if not isinstance(stamp, Exception):
            changes = await self._reading(outside.reader.read(object_id))
        failure = stamp if isinstance(stamp, Exception) else changes
        self._tell(failure)
        if isinstance(stamp, Exception) or isinstance(changes, Exception):
            assert isinstance(failure, Exception), "one of the two failed"
            wrong = failure
            return await self._record(lambda c: effect_sent.cannot_read(c, claim, self._process, wrong))
        found, told = stamp, changes
        return await self._record(lambda c: effect_sent.refreshed(c, claim, self._process, found, told))

    async def _calling(self, call: Awaitable[Acknowledged]) -> Acknowledged | Exception:
        """A call with a side effect: whatever is not a definite answer leaves its outcome unknown."""
        try:
            async with asyncio.timeout(self._timeout_seconds + CONNECTOR_FIRST_SECONDS):
                return await call
        except (ConflictError, PermanentError, LaterError, OutcomeUnknownError) as failure:
            return failure
        except TimeoutError:
            return OutcomeUnknownError("timeout", "no answer in time")
        except Exception as error:  # noqa: BLE001  # it may have happened after sending
            return self._unforeseen(error)

    async def _reading(self, call: Awaitable[T]) -> T | Exception:
        """A call that only reads: not now is all that can go wrong, unless the other side says never."""
        try:
            async with asyncio.timeout(self._timeout_seconds + CONNECTOR_FIRST_SECONDS):
                return await call
        except (PermanentError, LaterError, OutcomeUnknownError) as failure:
            return failure
        except TimeoutError:
            return OutcomeUnknownError("timeout", "no answer in time")
        except Exception as error:  # noqa: BLE001  # as in _calling
            return self._unforeseen(error)

    def _unforeseen(self, error: Exception) -> OutcomeUnknownError:
        log.error("a connector raised what it should not", destination=self._name, error=type(error).__name__)
        return OutcomeUnknownError("unforeseen", type(error).__name__)

    def _tell(self, answer: object) -> None:
        """Tell breaker and pace what the other side's answer says about the other side."""
        now = self._clock()
        match answer:
            case LaterError(code="rate_limited"):
                self.breaker.succeeded()
                self.pace.pause(now, answer.seconds)
            case LaterError():
                self.breaker.failed(now)
                self.pace.pause(now, answer.seconds)
            case OutcomeUnknownError():
                self.breaker.failed(now)
            case _:
                self.breaker.succeeded()

    async def _record(self, record: Record) -> None:
        """Write the outcome. Two transactions that met are tried again; without Postgres the lease runs out."""
        for attempt in range(RECORD_TRIES_MAX):
            try:
                async with self._database.transaction() as connection:
                    return await record(connection)
            except CONTENDED:
                if attempt == RECORD_TRIES_MAX - 1:
                    raise
        return None

    def _wake_others(self) -> None:
        self.wake.set()
        for wake in self._woken_after:
            wake.set()
