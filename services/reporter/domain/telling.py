"""When a person is told of a cause, and in which words: once with a count, not once a failure; nobody is forgotten.

A new cause is told; again when it grew much, and when the repeat time is over. Where nobody acknowledged it, those of
the escalation are told as well. Who acknowledged it has the repeat time. A cause that ended and is back is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from services.reporter.domain.causes import Cause

AGAIN_MINUTES_MIN = 10
"""Between two tellings of one cause, whatever happens to it."""
LINES_MAX = 20
"""Of one notice; it says how many causes more there are."""

Why = Literal["new", "grew", "again"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """What process.toml says about telling."""

    quiet: tuple[time, time] | None
    zone: ZoneInfo
    breach: timedelta
    repeat: timedelta
    growth: float
    escalate: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What was said of a cause since it began."""

    told_at: datetime | None
    """Last, also of its life before it ended."""
    told_count: int
    """0 where nobody was told since it began."""
    asked_since: datetime | None
    """From when on somebody was to acknowledge it and did not; none where nobody was asked, or somebody did."""
    escalated_at: datetime | None
    acknowledged_at: datetime | None


@dataclass(frozen=True, slots=True)
class Notice:
    """What is sent. No text that people wrote, and no secret."""

    title: str
    body: str


def why_tell(cause: Cause, standing: Standing, manner: Manner, now: datetime) -> Why | None:
    """Why those on duty are told of it now, or none."""
    if standing.told_at is not None and now - standing.told_at < timedelta(minutes=AGAIN_MINUTES_MIN):
        return None
    if not may_disturb(cause, manner, now):
        return None
    if not standing.told_count or standing.told_at is None:
        return "new"
    if cause.count >= standing.told_count * manner.growth:
        return "grew"
    last = max(standing.told_at, standing.acknowledged_at or standing.told_at)
    return "again" if now - last >= manner.repeat else None


def escalates(cause: Cause, standing: Standing, manner: Manner, now: datetime) -> bool:
    """Whether those of the escalation are told now: somebody was asked, and nobody acknowledged it for so long."""
    if standing.asked_since is None or now - standing.asked_since < manner.escalate:
        return False
    if standing.escalated_at is not None and now - standing.escalated_at < manner.repeat:
        return False
    return may_disturb(cause, manner, now)


def may_disturb(cause: Cause, manner: Manner, now: datetime) -> bool:
    """In quiet hours only where a first reply is nearly late."""
    return not is_quiet(manner, now) or (cause.due_at is not None and now <= cause.due_at <= now + manner.breach)


def is_quiet(manner: Manner, now: datetime) -> bool:
    """By the wall clock of the zone, its changes of time included. The hours may span midnight."""
    if manner.quiet is None:
        return False
    begin, end = manner.quiet
    at = now.astimezone(manner.zone).time()
    return begin <= at < end if begin < end else at >= begin or at < end


def notice(causes: Sequence[Cause], now: datetime, *, escalated: bool) -> Notice:
    """One notice of several causes; what is late soonest comes first."""
    urgent = sorted(
        causes, key=lambda cause: (cause.due_at is None, cause.due_at or cause.since, cause.since, cause.id)
    )
    count = f"{len(urgent)} cause{' needs' if len(urgent) == 1 else 's need'} a person"
    lines = [f"- {line_of(cause, now)} [{cause.id}]" for cause in urgent[:LINES_MAX]]
    if len(urgent) > LINES_MAX:
        lines.append(f"- and {len(urgent) - LINES_MAX} more: `nightshift causes`")
    lines.append("`nightshift acknowledge CAUSE` says that you see to it; `nightshift causes` lists all.")
    return Notice(f"Nightshift: nobody has looked, {count}" if escalated else f"Nightshift: {count}", "\n".join(lines))


def line_of(cause: Cause, now: datetime) -> str:
    """What is the matter, how often, since when, and how long there is."""
    soon = ""
    if cause.due_at is not None and cause.due_at >= now:
        soon = f"; the next first reply is late in {(cause.due_at - now) // timedelta(minutes=1)} min"
    return f"{cause.process}: {_what(cause)}, since {cause.since.astimezone(UTC):%m-%d %H:%M} UTC{soon}"


def _what(cause: Cause) -> str:
    many = "" if cause.count == 1 else "s"
    match cause.kind:
        case "dead_letter":
            ordered = f"; {cause.ordered} asked for, not done yet" if cause.ordered else ""
            return f"{cause.count} dead letter{many}, {cause.work} of {cause.service} failed ({cause.code}){ordered}"
        case "held":
            return f"{cause.count} case{many} held for a person, and nobody has come"
        case "approval":
            return f"{cause.count} approval{many} without an answer"
        case "regime":
            return f"not served, for {cause.work} has no passed eval on record; its cases wait"
        case "candidate":
            return f"the candidate was switched off: {cause.detail}"
        case "budget":
            whose = "the day's" if cause.work == "day" else "the whole"
            return f"{whose} budget for models is used up, and what needs one waits: {cause.detail}"
