"""Webhooks over HTTP, as a bare ASGI callable: every answer that there is. quick.py spares the usual ones the detour.

| status | reason | when |
|---|---|---|
| 202 | | committed, or committed before (`duplicate`) |
| 400 | no_json | signed, but no JSON |
| 401 | a reason of connectors.signatures | unsigned, wrongly signed, stale |
| 404, 405 | no_such_door, method | |
| 408, 413, 415 | slow, too_large, content_type | read no further than that |
| 503 | storage_unavailable, busy | with Retry-After; nothing is half done |

Everything but 202 and 503 costs no look at the database.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram

from connectors.protocol import RejectedDeliveryError
from services.ingest.domain.delivery import Delivery, Outcome
from services.ingest.handlers.webhook import OpenDoor, read_delivery
from services.ingest.ports import Clock, Intake, IntakeUnavailableError, Told, Trace
from services.runtime.health import HealthApp, Receive, Scope, Send, respond
from services.runtime.telemetry import exemplar

PREFIX = "/webhooks/"
BODY_SECONDS_MAX = 10.0
HANDS_MAX = 4000
"""Requests in hand; each may hold a body of its door's limit."""
DISCARDED_BYTES_MAX = 16 * 1024 * 1024
"""A declared body up to this is read past, so that its sender sees the answer; a larger one is cut off."""
_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1, 2, 5, 10)

log = structlog.get_logger()
webhooks_total = Counter("nightshift_webhooks_total", "Webhooks by how they were answered", ["source", "outcome"])
last_webhook = Gauge(
    "nightshift_webhook_last_timestamp_seconds", "When the last delivery that was taken came, in Unix time", ["source"]
)
webhook_seconds = Histogram("nightshift_webhook_seconds", "From a webhook's headers to its answer", buckets=_BUCKETS)


class Answer(NamedTuple):
    """An HTTP answer; the body is JSON."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class _SenderLeftError(Exception):
    """Nobody is there to be answered."""


class _Reading:
    """Bodies that are being read: one that takes too long is interrupted, by a single timer for all of them.

    A timer for each cost as much as parsing the body.
    """

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
        self._since: dict[asyncio.Task[object], float] = {}
        """In the order in which they began."""
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Task[object]:
        """Watch the current task; until `end` it may be cancelled."""
        task = asyncio.current_task()
        assert task is not None, "a server runs each request as a task"
        self._since[task] = time.monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds_max, self._interrupt)
        return task

    def end(self, task: asyncio.Task[object]) -> bool:
        """Whether the task was interrupted."""
        self._since.pop(task, None)
        if task not in self._late:
            return False
        self._late.discard(task)
        task.uncancel()
        return True

    def _interrupt(self) -> None:
        now = time.monotonic()
        self._timer = None
        for task, since in list(self._since.items()):
            remaining = since + self._seconds_max - now
            if remaining > 0:
                self._timer = asyncio.get_running_loop().call_later(remaining, self._interrupt)
                return
            del self._since[task]
            self._late.add(task)
            task.cancel()


class WebhookApp:
    """`POST /webhooks/{process}/{source}`; any other path is `other`'s."""

    def __init__(
        self,
        doors: Sequence[OpenDoor],
        *,
        intake: Intake,
        clock: Clock,
        trace: Trace,
        other: HealthApp,
        body_seconds_max: float = BODY_SECONDS_MAX,
        hands_max: int = HANDS_MAX,
    ) -> None:
        self._doors = {door.path: door for door in doors}
        self._intake = intake
        self._clock = clock
        self._trace = trace
        self._other = other
        self._body_seconds_max = body_seconds_max
        self._reading = _Reading(body_seconds_max)
        self._hands_max = hands_max
        self._hands = 0
        outcomes: Sequence[Outcome] = ("accepted", "duplicate", "no_case", "unreadable")
        self._last = {door.path: last_webhook.labels(f"{door.process}/{door.name}") for door in doors}
        self._counters = {
            (door.path, outcome): webhooks_total.labels(f"{door.process}/{door.name}", outcome)
            for door in doors
            for outcome in outcomes
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            return await self._other(scope, receive, send)
        started = time.perf_counter()
        self._hands += 1
        try:
            answer = await self._webhook(scope, receive)
        except RejectedDeliveryError as error:
            answer = self._refusal(scope, error)
        except IntakeUnavailableError as error:
            answer = self._unavailable(scope["path"], error)
        except _SenderLeftError:
            self._count(scope["path"], "left")
            return None
        finally:
            self._hands -= 1
            webhook_seconds.observe(time.perf_counter() - started)
        return await respond(send, answer.status, answer.body, headers=answer.headers)

    def take(self, path: str, headers: Mapping[str, str], body: bytes, tell: Callable[[Answer], None]) -> bool:
        """Take a whole POST and `tell` the answer once it is known; False, and no trace of it, if it is to be refused.

        The way of the usual webhook (quick.py): what is refused is asked again as an ASGI request.
        """
        started = time.perf_counter()
        door = self._doors.get(path)
        if door is None or self._hands >= self._hands_max:
            return False

        def answered(outcome: Told) -> None:
            self._hands -= 1
            webhook_seconds.observe(time.perf_counter() - started, exemplar(delivery.traceparent))
            if isinstance(outcome, IntakeUnavailableError):
                tell(self._unavailable(path, outcome))
            else:
                tell(self._acceptance(path, delivery, outcome))

        try:
            delivery = self._read(door, headers, body)
            self._intake.submit(delivery, answered)
        except (RejectedDeliveryError, IntakeUnavailableError):
            return False
        self._hands += 1
        return True

    async def _webhook(self, scope: Scope, receive: Receive) -> Answer:
        path = scope["path"]
        door = self._doors.get(path)
        if door is None:
            raise RejectedDeliveryError(404, "no_such_door", "post to /webhooks/{process}/{door of its process.toml}")
        if scope["method"] != "POST":
            raise RejectedDeliveryError(405, "method", "use POST")
        if self._hands > self._hands_max:
            raise IntakeUnavailableError("busy", "deliver again later", retry_after_seconds=1)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        _check_headers(headers, door.settings.body_bytes_max)
        delivery = self._read(door, headers, await self._body(receive, door.settings.body_bytes_max))
        return self._acceptance(path, delivery, await self._intake.store(delivery))

    def _read(self, door: OpenDoor, headers: Mapping[str, str], body: bytes) -> Delivery:
        _check_headers(headers, door.settings.body_bytes_max)
        trace = self._trace(headers.get("traceparent"))
        return read_delivery(door, headers, body, now=self._clock(), traceparent=trace)

    def _acceptance(self, path: str, delivery: Delivery, outcome: Outcome) -> Answer:
        self._counters[path, outcome].inc()
        self._last[path].set(delivery.received_at.timestamp())
        told = b'{"delivery":"%s","duplicate":%s}'
        return Answer(202, told % (delivery.delivery_id.encode(), b"true" if outcome == "duplicate" else b"false"))

    def _unavailable(self, path: str, error: IntakeUnavailableError) -> Answer:
        self._count(path, error.reason)
        body = orjson.dumps({"error": error.reason, "mend": error.mend})
        return Answer(503, body, {"retry-after": str(error.retry_after_seconds)})

    async def _body(self, receive: Receive, bytes_max: int) -> bytes:
        """The whole body. Raises RejectedDeliveryError as soon as it is too large, or too slow."""
        chunks: list[bytes] = []
        size = 0
        task = self._reading.begin()
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _SenderLeftError
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except asyncio.CancelledError:
            if not self._reading.end(task):
                raise
            raise RejectedDeliveryError(
                408, "slow", f"send the whole body within {self._body_seconds_max:g} s"
            ) from None
        finally:
            self._reading.end(task)

    def _refusal(self, scope: Scope, error: RejectedDeliveryError) -> Answer:
        self._count(scope["path"], error.reason)
        headers = {}
        if error.status == 405:  # noqa: PLR2004  # Method Not Allowed names the methods
            headers["allow"] = "POST"
        elif error.status == 408 or (error.status == 413 and not _is_read_past(scope)):  # noqa: PLR2004  # what is still to come is not read
            headers["connection"] = "close"
        return Answer(error.status, orjson.dumps({"error": error.reason, "mend": error.mend}), headers)

    def _count(self, path: str, outcome: str) -> None:
        door = self._doors.get(path)
        webhooks_total.labels("unknown" if door is None else f"{door.process}/{door.name}", outcome).inc()


def _check_headers(headers: Mapping[str, str], bytes_max: int) -> None:
    """Refuse by what is declared, before a byte of the body is read."""
    declared = headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > bytes_max:
        raise _too_large(bytes_max)
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise RejectedDeliveryError(415, "content_type", "send content-type: application/json")


def _is_read_past(scope: Scope) -> bool:
    declared: list[Any] = [value for name, value in scope["headers"] if name == b"content-length"]
    return bool(declared) and declared[0].isdigit() and int(declared[0][:20]) <= DISCARDED_BYTES_MAX


def _too_large(bytes_max: int) -> RejectedDeliveryError:
    return RejectedDeliveryError(
        413, "too_large", f"send at most {bytes_max} bytes, or raise the door's body_bytes_max"
    )
