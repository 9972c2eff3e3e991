"""A ticket system behind a wire, in virtual time: it takes its time, has troubles by the hour, and keeps books."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from connectors.protocol import Acknowledged, PlainChange, Written
from contracts.decision import Request
from contracts.failures import ConflictError, LaterError, OutcomeUnknownError
from tests.fakes.destination import Call, FakeDestination, swallowed
from tests.virtual import VirtualTime

ANSWERS_AFTER_SECONDS = 0.1
GIVES_UP_AFTER_SECONDS = 10.0
"""As long as a connector waits for an answer."""
LATE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it arrives: the `number`th about its object. `call` is none where it only reads."""

    object_id: str
    number: int
    call: Call | None


Trouble = Callable[["Remote", Arrival], Awaitable[Acknowledged | None]]
"""What becomes of a request instead. None: it is as if all were well."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A call that was carried out."""

    seconds: float
    object_id: str


class Remote(FakeDestination):
    """`troubles`: from, to (seconds since the beginning), and what then happens to each request."""

    def __init__(self, time: VirtualTime, *troubles: tuple[float, float, Trouble]) -> None:
        super().__init__(time.now())
        self.time = time
        self.troubles = troubles
        self.requests: list[float] = []
        """When each arrived."""
        self.called_at: list[float] = []
        """When each call arrived; `calls` in the same order."""
        self.landed: list[Landed] = []
        self._about: Counter[str] = Counter()

    def says(self, ticket: str, *, author: str = "customer", public: bool = True, text: str = "Help!") -> PlainChange:
        self.now = self.time.now()
        return super().says(ticket, author=author, public=public, text=text)

    async def send(self, request: Request, *, effect_key: str, stamp: str | None) -> Acknowledged:
        call = Call(request, effect_key, stamp)
        self.calls.append(call)
        self.called_at.append(self.time.seconds)
        answer = await self._arrives(request.object_id, call)
        if answer is not None:
            return answer
        await asyncio.sleep(ANSWERS_AFTER_SECONDS)
        return self.carry_out(call)

    async def current_stamp(self, object_id: str) -> str:
        await self._arrives(object_id)
        return await super().current_stamp(object_id)

    async def written(self, object_id: str) -> Sequence[Written]:
        await self._arrives(object_id)
        await asyncio.sleep(ANSWERS_AFTER_SECONDS)
        return await super().written(object_id)

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        await self._arrives(object_id)
        return await super().read(object_id)

    def carry_out(self, call: Call) -> Acknowledged:
        self.now = self.time.now()
        done = super().carry_out(call)
        self.landed.append(Landed(self.time.seconds, call.request.object_id))
        return done

    def requests_most(self, *, since: float, until: float = float("inf"), window_seconds: float = 1.0) -> int:
        """The most requests that arrived within so many seconds."""
        arrived = [at for at in self.requests if since <= at < until]
        return max((sum(at <= other < at + window_seconds for other in arrived) for at in arrived), default=0)

    async def _arrives(self, object_id: str, call: Call | None = None) -> Acknowledged | None:
        now = self.time.seconds
        self.requests.append(now)
        self._about[object_id] += 1
        arrival = Arrival(object_id, self._about[object_id], call)
        for begins, ends, trouble in self.troubles:
            if begins <= now < ends:
                return await trouble(self, arrival)
        return None


async def refused(remote: Remote, arrival: Arrival) -> None:
    """Nobody listens."""
    del remote, arrival
    raise LaterError("unreachable", "refused", seconds=5)


async def failing(remote: Remote, arrival: Arrival) -> None:
    """500, and nothing done."""
    del remote
    await asyncio.sleep(ANSWERS_AFTER_SECONDS)
    raise _failure("server_error", arrival)


async def silent(remote: Remote, arrival: Arrival) -> None:
    """No answer ever comes, and nothing is done."""
    del remote
    await asyncio.sleep(GIVES_UP_AFTER_SECONDS)
    raise _failure("timeout", arrival)


def done_and(code: str, after_seconds: float) -> Trouble:
    """A call is carried out, and its answer is 500, a cut connection, or none."""

    async def trouble(remote: Remote, arrival: Arrival) -> None:
        if arrival.call is not None:
            remote.carry_out(arrival.call)
            await asyncio.sleep(after_seconds)
            raise _failure(code, arrival)

    return trouble


async def late(remote: Remote, arrival: Arrival) -> None:
    """A call is carried out a minute later, when nobody waits for its answer any more."""
    if arrival.call is not None:
        asyncio.get_running_loop().call_later(LATE_SECONDS, _lands, remote, arrival.call)
        await asyncio.sleep(GIVES_UP_AFTER_SECONDS)
        raise _failure("timeout", arrival)


async def nothing(remote: Remote, arrival: Arrival) -> Acknowledged | None:
    """A call is answered 200, and nothing is done."""
    return None if arrival.call is None else swallowed(remote, arrival.call)


def asks_for_patience(code: str, seconds: float) -> Trouble:
    """429 or 503, with Retry-After."""

    async def trouble(remote: Remote, arrival: Arrival) -> None:
        del remote, arrival
        await asyncio.sleep(ANSWERS_AFTER_SECONDS)
        raise LaterError(code, "Retry-After", seconds=seconds)

    return trouble


def about(object_id: str, trouble: Trouble) -> Trouble:
    """It meets one object alone."""

    async def only(remote: Remote, arrival: Arrival) -> Acknowledged | None:
        return await trouble(remote, arrival) if arrival.object_id == object_id else None

    return only


def of_kind(kind: str, trouble: Trouble) -> Trouble:
    """It meets one kind of call alone, or every `read`."""

    async def only(remote: Remote, arrival: Arrival) -> Acknowledged | None:
        arrived = "read" if arrival.call is None else arrival.call.request.kind
        return await trouble(remote, arrival) if arrived == kind else None

    return only


def sometimes(seed: int, shares: Mapping[Trouble, float]) -> Trouble:
    """Each trouble meets its share of the requests; the others are well. An object's luck depends on no other's."""

    async def trouble(remote: Remote, arrival: Arrival) -> Acknowledged | None:
        chance = Random(f"{seed}|{arrival.object_id}|{arrival.number}").random()
        for one, share in shares.items():
            chance -= share
            if chance < 0:
                return await one(remote, arrival)
        return None

    return trouble


def _lands(remote: Remote, call: Call) -> None:
    try:
        remote.carry_out(call)
    except ConflictError:
        return


def _failure(code: str, arrival: Arrival) -> Exception:
    if arrival.call is None:
        return LaterError(code, "a read", seconds=5)
    return OutcomeUnknownError(code, "a call")
