"""Group commit: a writer takes whatever waits and commits it as one; nobody waits for a window to close.

A group that fails for a reason of its own is written one by one: a poison delivery fails alone, and becomes a dead
letter. When Postgres is away, everybody who waits is told so at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import Gauge, Histogram

from services.ingest.domain.delivery import Delivery, Outcome, Unreadable
from services.ingest.ports import IntakeUnavailableError, Store, Told, Wake
from services.runtime.failures import Never, tell
from services.runtime.health import STALLED_SECONDS
from services.runtime.postgres import CONTENDED, UNAVAILABLE

GROUP_ROWS_MAX = 500
GROUP_BYTES_MAX = 8 * 1024 * 1024
WAITING_BYTES_MAX = 64 * 1024 * 1024
WRITE_SECONDS_MAX = 4.0
"""Senders give up after some 10 s; who waits behind a group that hangs hears before that."""
RETRY_AFTER_SECONDS = 5
CONTENDED_TRIES_MAX = 3

log = structlog.get_logger()
waiting_rows = Gauge("nightshift_intake_waiting", "Deliveries that wait for a commit")
group_rows = Histogram(
    "nightshift_intake_group_rows", "Deliveries in one commit", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 500)
)

_Reply = Callable[[Told], None]
_Waiting = tuple[Delivery, _Reply]


class Writers:
    """See ports.Intake. Several writers, so that one group is read and answered while another is committed.

    A case has one of them: groups side by side never wait for each other's new key, nor for copies of one change.
    """

    def __init__(self, writers: Sequence["Writer"]) -> None:
        self._writers = writers
        waiting_rows.set_function(lambda: sum(writer.waiting for writer in writers))

    async def store(self, delivery: Delivery) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def reply(outcome: Told) -> None:
            if future.done():  # the sender has left
                return
            if isinstance(outcome, IntakeUnavailableError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.submit(delivery, reply)
        return await future

    def submit(self, delivery: Delivery, reply: _Reply) -> None:
        self._writers[hash(delivery.case_ids[0]) % len(self._writers)].submit(delivery, reply)

    async def run(self) -> None:
        """Write until closed and nothing waits."""
        async with asyncio.TaskGroup() as group:
            for writer in self._writers:
                group.create_task(writer.run())

    async def stalled(self) -> str | None:
        """A health check: deliveries wait, and their writer has taken none for longer than the limit."""
        still = max((writer.still_seconds for writer in self._writers if writer.waiting), default=0.0)
        if still <= STALLED_SECONDS:
            return None
        return f"deliveries wait, and none was taken since {still:.0f} s (limit {STALLED_SECONDS:.0f} s)"

    def close(self) -> None:
        """Let `run` end once everything that waits is written."""
        for writer in self._writers:
            writer.close()


class Writer:
    """One of them, with its own queue and its own connection."""

    def __init__(
        self,
        store: Store,
        *,
        shard: int,
        committed: Wake,
        set_aside: Callable[[Delivery, Unreadable], Delivery],
        waiting_max: int,
        write_seconds_max: float = WRITE_SECONDS_MAX,
    ) -> None:
        """`committed` is called after each commit that may have made events."""
        self._store = store
        self._shard = shard
        self._committed = committed
        self._set_aside = set_aside
        self._waiting_max = waiting_max
        self._write_seconds_max = write_seconds_max
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._something = asyncio.Event()
        self._closed = False
        self._taken_at = 0.0
        """Or when the queue ceased to be empty, by the event loop."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def still_seconds(self) -> float:
        """Since it took something from a queue that is not empty."""
        return asyncio.get_running_loop().time() - self._taken_at

    def submit(self, delivery: Delivery, reply: _Reply) -> None:
        """See ports.Intake."""
        if len(self._waiting) >= self._waiting_max or self._waiting_bytes >= WAITING_BYTES_MAX:
            raise IntakeUnavailableError("busy", "deliver again later", retry_after_seconds=RETRY_AFTER_SECONDS)
        if not self._waiting:
            self._taken_at = asyncio.get_running_loop().time()
        self._waiting.append((delivery, reply))
        self._waiting_bytes += len(delivery.body)
        self._something.set()

    async def run(self) -> None:
        """Write until closed and nothing waits."""
        while True:
            while self._waiting:
                await self._commit(self._take())
            if self._closed:
                return
            self._something.clear()
            await self._something.wait()

    def close(self) -> None:
        """Let `run` end once everything that waits is written."""
        self._closed = True
        self._something.set()

    def _take(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        self._taken_at = asyncio.get_running_loop().time()
        while self._waiting and len(group) < GROUP_ROWS_MAX and size < GROUP_BYTES_MAX:
            one = self._waiting.popleft()
            size += len(one[0].body)
            group.append(one)
        self._waiting_bytes -= size
        group_rows.observe(len(group))
        return group

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            outcomes = await self._write([delivery for delivery, _ in group])
        except UNAVAILABLE as error:
            self._nobody_is_served(group, error)
        except Exception as error:  # noqa: BLE001  # whatever one of them caused, the others shall not suffer
            log.warning("a group failed; its deliveries are tried singly", size=len(group), error=type(error).__name__)
            for one in group:
                await self._commit_alone(one)
        else:
            for (_, reply), outcome in zip(group, outcomes, strict=True):
                reply(outcome)
        self._committed()

    async def _commit_alone(self, one: _Waiting) -> None:
        """Write one of a group that failed; what fails again is put aside for a person."""
        delivery, reply = one
        for _ in range(CONTENDED_TRIES_MAX):
            try:
                outcomes = await self._write([delivery])
            except UNAVAILABLE as error:
                return self._nobody_is_served([one], error)
            except CONTENDED:
                continue
            except Exception as error:  # noqa: BLE001  # what it is, `tell` knows
                return await self._put_aside(one, error)
            return reply(outcomes[0])
        return self._nobody_is_served([one], None)

    async def _put_aside(self, one: _Waiting, error: Exception) -> None:
        delivery, reply = one
        failure = tell(error)
        why = Unreadable(
            failure.code, failure.message if isinstance(failure, Never) else f"cannot be stored: {type(error).__name__}"
        )
        log.error("a delivery cannot be stored", source=delivery.source, error=type(error).__name__)
        try:
            outcomes = await self._write([self._set_aside(delivery, why)])
        except Exception as again:  # noqa: BLE001  # not even as a dead letter: the sender keeps it, and is told so
            return self._nobody_is_served([one], again)
        return reply(outcomes[0])

    async def _write(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        async with asyncio.timeout(self._write_seconds_max):
            return await self._store.write(deliveries, self._shard)

    def _nobody_is_served(self, group: Sequence[_Waiting], error: Exception | None) -> None:
        """The group's outcome is not known or nothing was done: senders try again, deduplication does the rest."""
        log.error("deliveries cannot be stored now", size=len(group), error=type(error).__name__)
        waiting = [*group, *self._waiting] if isinstance(error, UNAVAILABLE) else group
        if isinstance(error, UNAVAILABLE):
            self._waiting.clear()
            self._waiting_bytes = 0
        for _, reply in waiting:
            reply(
                IntakeUnavailableError(
                    "storage_unavailable", "deliver again later", retry_after_seconds=RETRY_AFTER_SECONDS
                )
            )
