"""One destination of one process: what is due goes out, paced, behind a breaker; what went out is looked for.

breaker, pace ─▶ claim as many as may begin now (commit) ─≤ 2 s─▶ a call each ─▶ outcomes (commit together)
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from connectors.protocol import Acknowledged, PlainChange, Written
from contracts.failures import ConflictError, LaterError, OutcomeUnknownError, PermanentError
from services.actor.handlers import effect_claimed, effect_observed, effect_sent
from services.actor.handlers.effect_claimed import Claim, Claimed, Line
from services.actor.handlers.effect_observed import Found, Look, look_of
from services.actor.handlers.say import breaker_open
from services.actor.ports import Outside, carries_stamp
from services.runtime import switches
from services.runtime.health import STALLED_SECONDS
from services.runtime.pace import PROBE_LOOK_SECONDS, Breaker, Pace, heard
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Connection, Database
from services.runtime.process import Process
from services.runtime.stop import Stop, Wake

IDLE_SECONDS = 1.0
WAIT_SECONDS_MAX = 1.0
CLAIM_TO_CALL_SECONDS = 2.0
"""A claim older than this when its call would begin is not sent: what it checked may no longer hold."""
CONNECTOR_FIRST_SECONDS = 1.0
"""A connector's own timeout ends a call before ours does: it knows whether the request ever left."""
LOOKS_AT_ONCE_MAX = 32
CANNOT_LOOK_SECONDS = 60.0
"""Until an object is looked at again that cannot be looked at, or of which what was found cannot be recorded."""
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


@dataclass(frozen=True, slots=True)
class _Answered:
    """A yes that waits to be recorded."""

    claim: Claim
    answer: Acknowledged
    recorded: asyncio.Future[None]


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
        self._refused = False
        self._troubles = 0
        """Requests in a row of which the other side knew no more than to wait, or nothing at all."""
        self._recovered = False
        self._in_hand = 0
        self._claiming = False
        self.sent_at: float | None = None
        """When the newest effect was put on the wire, by `clock`."""
        self._answered: list[_Answered] = []
        self._recording = False
        self._claimed_at: float | None = None

    @property
    def title(self) -> str:
        return f"{self._process.name} {self._name}"

    @property
    def work(self) -> tuple[str, str]:
        """Process and kind, as figures call it."""
        return self._process.name, f"effect {self._name}"

    @property
    def busy(self) -> bool:
        """Whether something is claimed, or being claimed, that has not come to its end."""
        return self._claiming or self._in_hand > 0

    async def run(self, stop: Stop) -> None:
        """Work until told to stop; a call in hand is finished and recorded first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(partial(self._send_due, group), stop))
            if self._line.can_read_back:
                group.create_task(self._keep(self._look_due, stop))

    async def step(self) -> bool:
        """One claim of one effect and what follows from it, without waiting.

        False when there was nothing, or it may not be yet.
        """
        if self._wait_seconds() > 0:
            return False
        claimed, committed_at = await self._claim(1)
        for claim in claimed.claims:
            await self._carry_out(claim, committed_at)
        return claimed.taken > 0

    async def look(self, limit: int = 1) -> bool:
        """Look at what was written to `limit` objects at most. False when none is due."""
        assert self._outside is not None, "only a connected destination is looked at"
        reader = self._outside.reader
        assert reader is not None, "only a readable destination is looked at"
        looks = await self._claim_looks(limit)
        if not looks:
            return False
        async with asyncio.TaskGroup() as group:
            reading = {look: group.create_task(self._reading(reader.written(look.object_id))) for look in looks}
        found: list[Found] = []
        later: dict[Look, float] = {}
        for look, task in reading.items():
            answer = task.result()
            self._tell(answer)
            match answer:
                case LaterError() | OutcomeUnknownError():
                    later[look] = getattr(answer, "seconds", 5.0)
                case Exception() if getattr(answer, "code", None) == "gone":
                    found.append(Found(look, ()))
                case Exception():
                    log.warning("an object cannot be looked at", destination=self._name, error=type(answer).__name__)
                    later[look] = CANNOT_LOOK_SECONDS
                case _:
                    found.append(Found(look, answer))
        await self._record_looks(found, later)
        self._wake_others()
        return True

    async def _record_looks(self, found: Sequence[Found], later: Mapping[Look, float]) -> None:
        """One transaction; where it fails, one for each. What cannot be recorded is looked at again later."""

        async def record(connection: Connection) -> None:
            await effect_observed.looked(connection, self._process, found)
            await effect_observed.later(connection, later)

        try:
            await self._record(record)
        except (*UNAVAILABLE, *CONTENDED):
            raise
        except Exception as error:
            if not found:
                raise
            if len(found) > 1:
                for one in found:
                    await self._record_looks([one], {})
                return await self._record_looks([], later)
            log.error(  # noqa: TRY400  # a traceback may quote people's text
                "what was found cannot be recorded",
                destination=self._name,
                case_id=found[0].look.case_id,
                error=type(error).__name__,
            )
            await self._record_looks([], {**later, found[0].look: CANNOT_LOOK_SECONDS})

    async def stalled(self) -> str | None:
        """A health check: effects are due and may go, and none has been claimed for longer than the limit."""
        now = self._clock()
        if self._claimed_at is None:  # it has only just begun
            self._claimed_at = now
        if now - self._claimed_at <= STALLED_SECONDS or self.breaker.state(now) != "closed" or self.pace.paused(now):
            return None
        waiting = await self.oldest_due_seconds()
        if waiting <= STALLED_SECONDS:
            return None
        return f"{self._name}: effects wait since {waiting:.0f} s (limit {STALLED_SECONDS:.0f} s) and none is claimed"

    async def oldest_due_seconds(self) -> float:
        """How long the longest waiting effect has been due; 0.0 when none is, or the process is paused."""
        async with self._database.transaction() as connection:
            if await switches.running_generation(connection, self._process.name) is None:
                return 0.0
            return float(await connection.fetchval(_OLDEST, self._process.name, self._name) or 0.0)

    async def _keep(self, part: Callable[[Stop], Awaitable[None]], stop: Stop) -> None:
        while not stop.is_set():
            try:
                await part(stop)
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("effects wait for postgres", destination=self._name, error=type(error).__name__)
                await stop.wait(IDLE_SECONDS)

    async def _send_due(self, group: asyncio.TaskGroup, stop: Stop) -> None:
        """Wait until requests may begin, claim as many as may, and let each take its course."""
        if (seconds := self._wait_seconds()) > 0:
            await stop.wait(min(seconds, WAIT_SECONDS_MAX))
            return
        room = min(self._concurrency - self._in_hand, self._may_begin())
        claimed, committed_at = await self._claim(room) if room > 0 else (Claimed(0), 0.0)
        for claim in claimed.claims:
            self._in_hand += 1
            group.create_task(self._see_through(claim, committed_at))
        if claimed.taken < max(room, 1):
            await self.wake.wait(IDLE_SECONDS, stop)

    async def _see_through(self, claim: Claim, committed_at: float) -> None:
        """A claim to its end. Without Postgres its lease runs out, and its outcome is looked for."""
        try:
            await self._carry_out(claim, committed_at)
        except (*UNAVAILABLE, *CONTENDED) as error:
            log.warning("an outcome waits for postgres", destination=self._name, error=type(error).__name__)
        finally:
            self._in_hand -= 1
            self.wake.set()

    async def _look_due(self, stop: Stop) -> None:
        """Look at what is due. What waits to be sent is the breaker's probe before any look: reading may fail alone."""
        if (seconds := self._wait_seconds()) > 0:
            behind = 0.0 if self.breaker.state(self._clock()) == "closed" else PROBE_LOOK_SECONDS
            await stop.wait(min(seconds, WAIT_SECONDS_MAX) + behind)
        elif not await self.look(min(LOOKS_AT_ONCE_MAX, self._may_begin())):
            await stop.wait(IDLE_SECONDS)

    def _may_begin(self) -> int:
        """How many requests may begin at once; one while it is unsure whether the other side is back."""
        now = self._clock()
        if not self._line.connected:
            return self._concurrency
        return 1 if self.breaker.state(now) != "closed" else max(1, self.pace.ready(now))

    def _wait_seconds(self) -> float:
        if not self._line.connected:
            return 0.0
        now = self._clock()
        state = self.breaker.state(now)
        breaker_open.labels(self._process.name, self._name).set({"closed": 0.0, "half_open": 0.5, "open": 1.0}[state])
        return max(self.breaker.wait_seconds(now), self.pace.wait_seconds(now))

    async def _claim(self, limit: int) -> tuple[Claimed, float]:
        """What was claimed, and when. The requests count as begun before, so that two claims never share one probe."""
        self._begin(limit)
        claimed, self._claiming = Claimed(0), True
        try:
            async with self._database.connection() as connection:
                if self._recovered:
                    await effect_claimed.take_old_places(connection, self._line)
                    self._recovered = False
                if await effect_claimed.any_due(connection, self._line):
                    async with connection.transaction():
                        taken = await effect_claimed.claim(connection, self._line, limit=limit)
                    claimed = taken  # nothing is, before the commit
        finally:
            self._claiming = False
            self.pace.give_back(limit - len(claimed.claims))
            if not claimed.claims:
                self.breaker.gave_up()
        now = self._clock()
        if claimed.taken:
            self._claimed_at = now
            for wake in self._woken_after:
                wake.set()
        return claimed, now

    async def _claim_looks(self, limit: int) -> list[Look]:
        """What is looked at. As in `_claim`, the requests count as begun before."""
        self._begin(limit)
        looks: list[Look] = []
        try:
            async with self._database.transaction() as connection:
                taken = await effect_observed.claim_looks(
                    connection, self._process.name, self._name, self._line.lease, limit=limit
                )
            looks = taken
        finally:
            self.pace.give_back(limit - len(looks))
            if not looks:
                self.breaker.gave_up()
        return looks

    def _begin(self, requests: int) -> None:
        now = self._clock()
        self.breaker.begin(now)
        self.pace.take(now, requests)

    async def _carry_out(self, claim: Claim, committed_at: float) -> None:
        """What cannot be recorded of one effect stops no other: it is looked for, and is a dead letter after that."""
        assert self._outside is not None, "an unconnected destination claims nothing"
        try:
            match claim.work:
                case "send":
                    await self._send(claim, self._outside, committed_at)
                case "read_back":
                    await self._read_back(claim, self._outside)
                case "refresh":
                    await self._refresh(claim, self._outside)
        except (*UNAVAILABLE, *CONTENDED):
            raise
        except Exception as error:  # noqa: BLE001  # as above
            what = type(error).__name__
            log.error("an outcome cannot be recorded", destination=self._name, case_id=claim.stored.case_id, error=what)  # noqa: TRY400  # a traceback may quote people's text
            await self._record(lambda c: effect_sent.not_recorded(c, claim, self._process, what))
        self._wake_others()

    async def _send(self, claim: Claim, outside: Outside, committed_at: float) -> None:
        if self._clock() - committed_at > CLAIM_TO_CALL_SECONDS:
            self.breaker.gave_up()
            late = LaterError(effect_sent.NOT_SENT, "the claim was too old", seconds=0.0)
            return await self._record(lambda c: effect_sent.not_done(c, claim, self._process, late))
        stamp = claim.stamp if carries_stamp(claim.request) else None
        self.sent_at = self._clock()
        answer = await self._calling(outside.sends.send(claim.request, effect_key=claim.key, stamp=stamp))
        self._tell(answer)
        if isinstance(answer, Acknowledged):
            return await self._acknowledge(claim, answer)
        failure = answer
        counted = isinstance(failure, LaterError) and failure.code == "forbidden" and self.breaker.failed_alone
        return await self._record(lambda c: effect_sent.not_done(c, claim, self._process, failure, counted=counted))

    async def _read_back(self, claim: Claim, outside: Outside) -> None:
        assert outside.reader is not None, "only what can be read back is"
        answer = await self._reading(outside.reader.written(claim.request.object_id))
        self._tell(answer)
        if isinstance(answer, Exception):
            failure = answer
            return await self._record(lambda c: effect_sent.cannot_read(c, claim, self._process, failure))
        written: Sequence[Written] = answer

        async def record(connection: Connection) -> None:
            await effect_observed.observe(connection, self._process, [Found(look_of(claim), written)])
            await effect_sent.read_back(connection, claim, self._process, written)

        return await self._record(record)

    async def _refresh(self, claim: Claim, outside: Outside) -> None:
        """The stamp first, then the history: what changes after the stamp makes the call fail with a conflict."""
        assert outside.reader is not None, "only what can be read is"
        object_id = claim.request.object_id
        stamp = await self._reading(outside.reader.current_stamp(object_id))
        self.pace.take(self._clock(), 1)
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
        heard(answer, self.breaker, self.pace, now=now)
        if isinstance(answer, LaterError | OutcomeUnknownError):
            self._troubles += 1
        else:
            self._recovered |= self._troubles >= self.breaker.failures_max
            self._troubles = 0
            self._refused = False
        refused = isinstance(answer, LaterError) and answer.code == "forbidden"
        if refused and self.breaker.state(now) == "open" and not self._refused:
            self._refused = True
            log.error("a destination refuses our credentials, or a right is missing", destination=self._name)

    async def _acknowledge(self, claim: Claim, answer: Acknowledged) -> None:
        """Record a yes, together with those that came meanwhile: whoever finds nobody recording records for all."""
        mine = _Answered(claim, answer, asyncio.get_running_loop().create_future())
        self._answered.append(mine)
        if not self._recording:
            self._recording = True
            try:
                while self._answered:
                    together, self._answered = self._answered, []
                    await self._record_yeses(together)
            finally:
                self._recording = False
        await mine.recorded

    async def _record_yeses(self, together: Sequence["_Answered"]) -> None:
        """One transaction; where it fails, one for each."""
        look = self._line.can_read_back
        try:
            await self._record(
                lambda c: effect_sent.acknowledged(c, [(a.claim, a.answer) for a in together], look=look)
            )
        except Exception as error:  # noqa: BLE001  # told to each that waits for it
            if len(together) > 1:
                for one in together:
                    await self._record_yeses([one])
            else:
                together[0].recorded.set_exception(error)
        else:
            for one in together:
                one.recorded.set_result(None)

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
