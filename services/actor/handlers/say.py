"""The actor's events, and the figures that go with them."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from prometheus_client import Counter, Gauge, Histogram

from contracts.base import Fact
from contracts.envelope import Event, follow_up_id

SERVICE = "actor"
SOURCE = "nightshift/actor"

decisions_total = Counter("nightshift_decisions_total", "Decisions by verdict", ["process", "verdict"])
effects_total = Counter("nightshift_effects_total", "Steps of effects", ["process", "destination", "step"])
approvals_put_off_total = Counter(
    "nightshift_approvals_put_off_total", "Overdue approvals whose case could not be read", ["process"]
)
breaker_open = Gauge(
    "nightshift_breaker_open", "0 closed, 0.5 probing, 1 open: effects wait", ["process", "destination"]
)
answered_seconds = Histogram(
    "nightshift_asked_to_acknowledged_seconds",
    "From the customer's words to the acknowledgement of an answer that was seen outside",
    ["process"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3600, 14400, 86400),
)

P = TypeVar("P", bound=Fact)


@dataclass(frozen=True, slots=True)
class Cause:
    """What led to an event, and the run it belongs to."""

    event_id: UUID
    correlation_id: UUID
    traceparent: str | None = None

    @classmethod
    def of(cls, event: Event[Fact]) -> "Cause":
        return cls(event.event_id, event.correlation_id, event.traceparent)


def say(data: P, *apart: object, cause: Cause, case_id: str, process: str, time: datetime) -> Event[P]:
    """An event that follows from `cause`; `apart` tells it from its siblings."""
    return Event(
        event_id=follow_up_id(cause.event_id, data.TYPE, *apart),
        source=SOURCE,
        time=time,
        process=process,
        case_id=case_id,
        correlation_id=cause.correlation_id,
        causation_id=cause.event_id,
        traceparent=cause.traceparent,
        data=data,
    )
