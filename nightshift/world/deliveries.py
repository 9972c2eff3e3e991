"""Webhooks as Zendesk sends them: signed, at least once, in no promised order. And the world's list of what it sent."""

import asyncio
import base64
import hashlib
import heapq
import hmac
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Literal, NamedTuple
from uuid import UUID

import httpx
import orjson
from pydantic import ConfigDict

from contracts.base import Json
from nightshift.world.model import Ticket, stamp
from nightshift.world.zendesk import Clock

WEBHOOK_ID = "01HNIGHTSHIFTWORLD0000000001"
TIMEOUT_SECONDS = 12.0
ATTEMPTS_MAX = 40
CONFLICT_ATTEMPTS_MAX = 3
BACKOFF_MAX_SECONDS = 2.0
WORKERS = 8
KEPT_MAX = 50_000
"""Finished deliveries that stay on the list; the counts know of all."""
_AGAIN = frozenset({409, 429, 503})

Kind = Literal["genuine", "duplicate", "forged", "stale"]


@dataclass(kw_only=True)
class Mischief:
    """What a real night does to webhooks. Nothing, by default."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    copies_min: int = 1
    copies_max: int = 1
    """Each event is sent so often, under changing invocation ids."""
    shuffled_percent: float = 0.0
    """The share of events that comes late, and so out of order."""
    shuffled_seconds: float = 2.0
    forged_percent: float = 0.0
    stale_percent: float = 0.0
    straggling_percent: float = 0.0
    """The share of events that are not sent before the stragglers are let go."""
    trigger_percent: float = 0.0
    """The share of updates told by a trigger's body instead of event subscriptions."""
    dropped_percent: float = 0.0
    """The share of events that are never sent, as behind an open breaker of Zendesk's."""


@dataclass(kw_only=True)
class Delivery:
    """One delivery, however often it is tried."""

    invocation_id: str
    event_id: str
    ticket_id: int
    kind: Kind
    signed_at: datetime | None
    """None: when it is sent."""
    body: bytes = field(repr=False)
    attempts: int = 0
    status: int | None = None
    """The last answer; none where nobody answered."""
    done: bool = False


class Dropped(NamedTuple):
    """An event that was never sent."""

    event_id: str
    ticket_id: int
    type: str


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Zendesk's: base64(HMAC-SHA256(secret as it is, timestamp + body))."""
    return base64.b64encode(hmac.digest(secret.encode(), timestamp.encode() + body, hashlib.sha256)).decode()


def trigger_body(ticket: Ticket) -> bytes:
    """What a customer's own trigger sends: everything as text."""
    return orjson.dumps(
        {
            "ticket_id": str(ticket.id),
            "subject": ticket.subject,
            "status": ticket.status.capitalize(),
            "priority": (ticket.priority or "").capitalize(),
            "assignee_id": str(ticket.assignee_id or ""),
            "updated_at": stamp(ticket.updated_at),
        }
    )


class Sender:
    """Sends the events of a world to one address, with Zendesk's retries, and remembers every delivery."""

    def __init__(
        self,
        *,
        url: str | None,
        secret: str,
        client: httpx.AsyncClient,
        clock: Clock,
        random: Random,
        mischief: Mischief | None = None,
        pending: Sequence[Delivery] = (),
    ) -> None:
        """`pending` are deliveries that an earlier run did not finish. Without a `url` nothing is sent, only listed."""
        self.url = url
        self.mischief = mischief or Mischief()
        self.deliveries: OrderedDict[str, Delivery] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.dropped: deque[Dropped] = deque(maxlen=KEPT_MAX)
        self._secret = secret
        self._client = client
        self._clock = clock
        self._random = random
        self._queue: list[tuple[float, int, Delivery]] = []
        self._stragglers: list[Delivery] = []
        self._ordinal = 0
        self._wake = asyncio.Event()
        for delivery in pending:
            self._add(delivery, 0.0)

    def __call__(self, ticket: Ticket, events: Sequence[Json]) -> None:
        """Take the sibling events of one update (a listener of the state machine)."""
        bodies = [(str(event["id"]), orjson.dumps(event)) for event in events]
        if self._chance(self.mischief.trigger_percent):
            bodies = [(bodies[0][0], trigger_body(ticket))]
        for event_id, body in bodies:
            if self._chance(self.mischief.dropped_percent):
                self.counts["dropped"] += 1
                self.dropped.append(Dropped(event_id, ticket.id, str(orjson.loads(body).get("type", "trigger"))))
                continue
            straggles = self._chance(self.mischief.straggling_percent)
            late = self._chance(self.mischief.shuffled_percent)
            for copy in range(self._random.randint(self.mischief.copies_min, self.mischief.copies_max)):
                delay = self._random.uniform(0, self.mischief.shuffled_seconds) if late or copy else 0.0
                self._plan("duplicate" if copy else "genuine", event_id, ticket.id, body, delay, straggles=straggles)
            if self._chance(self.mischief.forged_percent):
                self._plan("forged", event_id, ticket.id, body.replace(b'"id":', b'"id": ', 1), 0.0)
            if self._chance(self.mischief.stale_percent):
                self._plan("stale", event_id, ticket.id, body, 0.0)

    @property
    def pending(self) -> list[Delivery]:
        """What is not finished yet."""
        return [delivery for delivery in self.deliveries.values() if not delivery.done]

    @property
    def idle(self) -> bool:
        return all(delivery.done for delivery in self.deliveries.values())

    def let_stragglers_go(self) -> int:
        """Send now what was kept back, and keep nothing back from now on; how many deliveries that is."""
        self.mischief.straggling_percent = 0.0
        stragglers, self._stragglers = self._stragglers, []
        for delivery in stragglers:
            self._push(delivery, 0.0)
        return len(stragglers)

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    def _plan(
        self,
        kind: Kind,
        event_id: str,
        ticket_id: int,
        body: bytes,
        delay_seconds: float,
        *,
        straggles: bool = False,
    ) -> None:
        stale = self._clock() - timedelta(hours=25) if kind == "stale" else None
        invocation = str(UUID(int=self._random.getrandbits(128), version=4))
        delivery = Delivery(
            invocation_id=invocation, event_id=event_id, ticket_id=ticket_id, kind=kind, signed_at=stale, body=body
        )
        self._add(delivery, delay_seconds, straggles=straggles)

    def _add(self, delivery: Delivery, delay_seconds: float, *, straggles: bool = False) -> None:
        self.deliveries[delivery.invocation_id] = delivery
        self.counts[delivery.kind] += 1
        if straggles:
            self._stragglers.append(delivery)
        else:
            self._push(delivery, delay_seconds)
        while len(self.deliveries) > KEPT_MAX and next(iter(self.deliveries.values())).done:
            self.deliveries.popitem(last=False)

    def _push(self, delivery: Delivery, delay_seconds: float) -> None:
        self._ordinal += 1
        heapq.heappush(self._queue, (time.monotonic() + delay_seconds, self._ordinal, delivery))
        self._wake.set()

    async def _work(self) -> None:
        while True:
            delivery = await self._next()
            again_seconds = await self._try(delivery)
            if again_seconds is None:
                delivery.done = True
                delivery.body = b""
                self.counts[f"answered_{delivery.status}"] += 1
            else:
                self._push(delivery, again_seconds)

    async def _next(self) -> Delivery:
        """The delivery that is due next, when it is due. Several workers may wait; each looks again when woken."""
        while True:
            wait_seconds = self._queue[0][0] - time.monotonic() if self.url and self._queue else None
            if wait_seconds is not None and wait_seconds <= 0:
                return heapq.heappop(self._queue)[2]
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _try(self, delivery: Delivery) -> float | None:
        """One attempt. Answers how long to wait for the next, or none when it was the last."""
        delivery.attempts += 1
        last = delivery.attempts >= ATTEMPTS_MAX
        backoff_seconds = min(BACKOFF_MAX_SECONDS, 0.1 * 2 ** min(delivery.attempts, 10))
        try:
            response = await self._client.post(
                str(self.url), content=delivery.body, headers=self._headers(delivery), timeout=TIMEOUT_SECONDS
            )
        except httpx.HTTPError:
            delivery.status = None
            return None if last else backoff_seconds
        delivery.status = response.status_code
        if response.status_code not in _AGAIN or last:
            return None
        if response.status_code == httpx.codes.CONFLICT:
            return backoff_seconds if delivery.attempts < CONFLICT_ATTEMPTS_MAX else None
        asked = response.headers.get("retry-after", "")
        return min(float(asked), 60.0) if asked.isdecimal() else backoff_seconds

    def _headers(self, delivery: Delivery) -> Mapping[str, str]:
        timestamp = stamp(delivery.signed_at or self._clock())
        secret = self._secret if delivery.kind != "forged" else "somebody else's secret"
        return {
            "content-type": "application/json; charset=utf-8",
            "x-zendesk-webhook-id": WEBHOOK_ID,
            "x-zendesk-webhook-invocation-id": delivery.invocation_id,
            "x-zendesk-webhook-signature": signature(secret, timestamp, delivery.body),
            "x-zendesk-webhook-signature-timestamp": timestamp,
            "user-agent": "Zendesk Webhook",
        }

    def _chance(self, percent: float) -> bool:
        return percent > 0 and self._random.random() * 100 < percent
