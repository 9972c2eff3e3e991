"""How fast a destination is used, and when it is left alone. The clock is an argument: seconds that only rise."""

from dataclasses import dataclass
from typing import Literal

from contracts.failures import LaterError, OutcomeUnknownError

BreakerState = Literal["closed", "open", "half_open"]
PROBE_LOOK_SECONDS = 0.1
"""While one probe is under way the others ask this often; who lets others probe first asks so much later."""
BURST_SECONDS = 0.2
"""An idle destination saves up this much of its rate, and at least one request."""


@dataclass(slots=True, kw_only=True)
class Breaker:
    """Opens after `failures_max` failures in a row; after `open_seconds` one request at a time probes.

    closed ─failures_max in a row─▶ open ─open_seconds─▶ half_open ─probe succeeds─▶ closed
                                     ▲──────────── probe fails ───────┘
    """

    failures_max: int
    open_seconds: float
    _failures: int = 0
    _opened_at: float | None = None
    _probing: bool = False

    @property
    def failed_alone(self) -> bool:
        """Whether the last request failed and the one before it did not: then the other side is not down."""
        return self._failures == 1

    def state(self, now: float) -> BreakerState:
        if self._opened_at is None:
            return "closed"
        return "half_open" if now - self._opened_at >= self.open_seconds else "open"

    def wait_seconds(self, now: float) -> float:
        """0.0 when a request may begin, else how long to wait before asking again."""
        if self._opened_at is None:
            return 0.0
        left = self._opened_at + self.open_seconds - now
        if left > 0:
            return left
        return PROBE_LOOK_SECONDS if self._probing else 0.0

    def begin(self, now: float) -> None:
        """A request begins; the first after the pause is the probe."""
        if self.state(now) == "half_open":
            self._probing = True

    def succeeded(self) -> None:
        """The other side answered, whatever it answered."""
        self._failures, self._opened_at, self._probing = 0, None, False

    def failed(self, now: float) -> None:
        """The other side did not answer, or said that it cannot."""
        self._failures += 1
        self._probing = False
        if self._opened_at is not None or self._failures >= self.failures_max:
            self._opened_at = now

    def gave_up(self) -> None:
        """The request was not made after all, and proves nothing."""
        self._probing = False


@dataclass(slots=True, kw_only=True)
class Pace:
    """A token bucket of `per_second` requests; a destination that asks for patience gets it whole."""

    per_second: float
    _tokens: float = 1.0
    _at: float | None = None
    _paused_until: float = 0.0

    def wait_seconds(self, now: float) -> float:
        """0.0 when a request may begin, else how long to wait."""
        self._fill(now)
        bucket = 0.0 if self._tokens >= 1.0 else (1.0 - self._tokens) / self.per_second
        return max(bucket, self._paused_until - now, 0.0)

    def ready(self, now: float) -> int:
        """How many requests may begin at once."""
        self._fill(now)
        return 0 if self.paused(now) else int(self._tokens)

    def take(self, now: float, requests: int) -> None:
        """Requests begin."""
        self._fill(now)
        self._tokens -= requests

    def give_back(self, requests: int) -> None:
        """Requests were not made after all."""
        self._tokens += requests

    def pause(self, now: float, seconds: float) -> None:
        """Nothing begins for `seconds`; afterwards no burst."""
        self._paused_until = max(self._paused_until, now + seconds)
        self._tokens = min(self._tokens, 1.0)

    def paused(self, now: float) -> bool:
        """Whether the other side asked for patience that is not over."""
        return now < self._paused_until

    def _fill(self, now: float) -> None:
        if self._at is not None:
            burst = max(1.0, self.per_second * BURST_SECONDS)
            self._tokens = min(burst, self._tokens + (now - self._at) * self.per_second)
        self._at = now


def heard(answer: object, breaker: Breaker, pace: Pace, *, now: float) -> None:
    """What an answer, or a failure in its place, says about the other side. A refusal is an answer too."""
    match answer:
        case LaterError(code="rate_limited"):
            breaker.succeeded()
            pace.pause(now, answer.seconds)
        case LaterError(code="forbidden"):
            breaker.failed(now)
        case LaterError():
            breaker.failed(now)
            pace.pause(now, answer.seconds)
        case OutcomeUnknownError():
            breaker.failed(now)
        case _:
            breaker.succeeded()
