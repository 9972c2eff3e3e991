"""Once a cause, with counts; nobody is woken for what can wait, and nobody is forgotten."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from services.reporter.app import manner_of
from services.reporter.domain.causes import Cause
from services.reporter.domain.telling import (
    AGAIN_MINUTES_MIN,
    LINES_MAX,
    Manner,
    Standing,
    escalates,
    is_quiet,
    may_disturb,
    notice,
    why_tell,
)
from services.runtime.process import Tell

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
NIGHT = NOON + timedelta(hours=11)
DAY = manner_of(Tell())
QUIET = manner_of(Tell(quiet_hours="22:00-07:00"))
UNTOLD = Standing(told_at=None, told_count=0, asked_since=None, escalated_at=None, acknowledged_at=None)
MINUTE = timedelta(minutes=1)


def cause(count: int = 1, *, due_at: datetime | None = None, work: str = "propose", since: datetime = NOON) -> Cause:
    return Cause(
        process="support",
        kind="dead_letter",
        service="classifier",
        work=work,
        code="schema_failed_twice",
        count=count,
        since=since,
        due_at=due_at,
    )


def told(at: datetime = NOON, count: int = 1) -> Standing:
    return replace(UNTOLD, told_at=at, told_count=count, asked_since=at)


def test_a_new_cause_is_told_at_once_and_then_no_more() -> None:
    assert why_tell(cause(), UNTOLD, DAY, NOON) == "new"
    assert why_tell(cause(), told(), DAY, NOON + timedelta(minutes=239)) is None


@pytest.mark.parametrize(("minutes", "why"), [(239.9, None), (240, "again")])
def test_a_cause_that_goes_on_is_told_again_after_the_repeat_time(minutes: float, why: str | None) -> None:
    assert why_tell(cause(), told(), DAY, NOON + minutes * MINUTE) == why


@pytest.mark.parametrize(("count", "why"), [(19, None), (20, "grew")])
def test_a_cause_that_grew_much_is_told_before_that(count: int, why: str | None) -> None:
    assert why_tell(cause(count), told(count=10), DAY, NOON + timedelta(minutes=30)) == why


@pytest.mark.parametrize(("minutes", "why"), [(AGAIN_MINUTES_MIN - 0.1, None), (AGAIN_MINUTES_MIN, "grew")])
def test_even_what_grows_fast_has_a_pause_between_two_notices(minutes: float, why: str | None) -> None:
    assert why_tell(cause(10_000), told(), DAY, NOON + minutes * MINUTE) == why


@pytest.mark.parametrize(("minutes", "why"), [(AGAIN_MINUTES_MIN - 0.1, None), (AGAIN_MINUTES_MIN, "new")])
def test_what_ended_and_came_back_is_new_after_the_same_pause(minutes: float, why: str | None) -> None:
    ended = replace(UNTOLD, told_at=NOON)

    assert why_tell(cause(), ended, DAY, NOON + minutes * MINUTE) == why


def test_who_acknowledged_a_cause_has_the_repeat_time_and_is_then_reminded() -> None:
    at = NOON + timedelta(minutes=60)
    seen = replace(told(), asked_since=None, acknowledged_at=at)

    assert why_tell(cause(), seen, DAY, at + timedelta(minutes=239)) is None
    assert why_tell(cause(), seen, DAY, at + timedelta(minutes=240)) == "again"
    assert why_tell(cause(2), seen, DAY, at) == "grew"


@pytest.mark.parametrize(("minutes", "expected"), [(29.9, False), (30, True)])
def test_what_nobody_acknowledged_is_escalated(minutes: float, *, expected: bool) -> None:
    assert escalates(cause(), told(), DAY, NOON + minutes * MINUTE) is expected


def test_what_was_acknowledged_or_never_told_is_not_escalated() -> None:
    late = NOON + timedelta(days=1)

    assert not escalates(cause(), UNTOLD, DAY, late)
    assert not escalates(cause(), replace(told(), asked_since=None, acknowledged_at=NOON), DAY, late)


@pytest.mark.parametrize(("minutes", "expected"), [(239.9, False), (240, True)])
def test_an_escalation_that_nobody_hears_is_said_again_after_the_repeat_time(minutes: float, *, expected: bool) -> None:
    standing = replace(told(NOON - timedelta(hours=1)), escalated_at=NOON)

    assert escalates(cause(), standing, DAY, NOON + minutes * MINUTE) is expected


def test_in_quiet_hours_a_cause_waits_for_their_end() -> None:
    assert why_tell(cause(), UNTOLD, QUIET, NIGHT) is None
    assert not escalates(cause(), told(), QUIET, NIGHT)
    assert why_tell(cause(), UNTOLD, QUIET, NOON + timedelta(hours=19)) == "new"


@pytest.mark.parametrize(("minutes", "expected"), [(-0.1, False), (0, True), (15, True), (15.1, False)])
def test_a_first_reply_that_is_nearly_late_breaks_through_quiet_hours(minutes: float, *, expected: bool) -> None:
    near = cause(due_at=NIGHT + minutes * MINUTE)

    assert (why_tell(near, UNTOLD, QUIET, NIGHT) == "new") is expected
    assert escalates(near, told(), QUIET, NIGHT) is expected


@pytest.mark.parametrize(
    ("hours", "at", "quiet"),
    [
        ("22:00-07:00", time(21, 59), False),
        ("22:00-07:00", time(22, 0), True),
        ("22:00-07:00", time(6, 59), True),
        ("22:00-07:00", time(7, 0), False),
        ("12:00-13:00", time(12, 0), True),
        ("12:00-13:00", time(13, 0), False),
        ("12:00-12:00", time(12, 0), False),
        ("", time(3, 0), False),
    ],
)
def test_quiet_hours_begin_and_end_to_the_minute_and_may_span_midnight(hours: str, at: time, *, quiet: bool) -> None:
    now = datetime.combine(NOON.date(), at, UTC)

    assert is_quiet(manner_of(Tell(quiet_hours=hours)), now) is quiet


@pytest.mark.parametrize(
    ("now", "quiet"),
    [
        ("2026-10-25T05:59:00+00:00", True),  # Berlin left summer time in this night: 06:59 there
        ("2026-10-25T06:00:00+00:00", False),
        ("2026-10-24T05:00:00+00:00", False),  # 07:00 summer time
        ("2026-10-24T04:59:00+00:00", True),
    ],
)
def test_quiet_hours_follow_the_wall_clock_when_it_changes(now: str, *, quiet: bool) -> None:
    manner = manner_of(Tell(quiet_hours="22:00-07:00", timezone="Europe/Berlin"))

    assert is_quiet(manner, datetime.fromisoformat(now)) is quiet


@pytest.mark.parametrize("name", ["", "Europe", "Europe/Nowhere", "../UTC", "U\0TC", "x" * 5_000])
def test_a_name_that_is_no_time_zone_is_refused_with_the_mend(name: str) -> None:
    with pytest.raises(ValidationError, match="no such time zone: use a name such as Europe/Berlin"):
        Tell(timezone=name)


def test_a_notice_says_what_failed_how_often_and_how_long_there_is() -> None:
    causes = [cause(3), cause(40, due_at=NOON + timedelta(minutes=8, seconds=30), work="effect.reply")]

    said = notice(causes, NOON, escalated=False)

    assert said.title == "Nightshift: 2 causes need a person"
    first, second, last = said.body.split("\n")
    assert first.startswith("- support: 40 dead letters, effect.reply of classifier failed (schema_failed_twice), ")
    assert first.endswith(f"late in 8 min [{causes[1].id}]")
    assert second.endswith(f"since 11-25 12:00 UTC [{causes[0].id}]")
    assert "nightshift acknowledge" in last


def test_a_notice_of_many_causes_is_bounded_and_says_how_many_more_there_are() -> None:
    said = notice([cause(work=f"w{n}") for n in range(LINES_MAX + 5)], NOON, escalated=True)

    assert said.title == "Nightshift: nobody has looked, 25 causes need a person"
    assert said.body.count("\n- ") == LINES_MAX
    assert "and 5 more" in said.body


def test_the_same_failures_are_one_cause_whatever_their_count() -> None:
    assert cause(1).id == cause(2, since=NIGHT).id != cause(work="decide").id


COUNTS = st.lists(st.one_of(st.just(0), st.integers(1, 5000)), min_size=1, max_size=60)
STEP = timedelta(minutes=7)


def follow(manner: Manner, counts: list[int], acknowledged: set[int]) -> list[datetime]:
    """A teller who never fails, and looks every seven minutes: when those on duty were told."""
    standing, notices, now = UNTOLD, [], NOON
    for number, count in enumerate(counts):
        now = NOON + number * STEP
        if not count:
            standing = replace(UNTOLD, told_at=standing.told_at)
            continue
        if why_tell(cause(count), standing, manner, now):
            notices.append(now)
            asked = standing.asked_since or now
            standing = replace(standing, told_at=now, told_count=count, asked_since=asked, acknowledged_at=None)
        if number in acknowledged:
            standing = replace(standing, asked_since=None, escalated_at=None, acknowledged_at=now)
    return notices


@given(COUNTS, st.sets(st.integers(0, 60)))
def test_however_a_cause_behaves_notices_keep_their_distance_and_never_come_in_quiet_hours(
    counts: list[int], acknowledged: set[int]
) -> None:
    manner = manner_of(Tell(quiet_hours="13:00-15:00"))
    notices = follow(manner, counts, acknowledged)

    assert all(b - a >= timedelta(minutes=AGAIN_MINUTES_MIN) for a, b in itertools.pairwise(notices))
    assert not any(is_quiet(manner, at) for at in notices)


@given(st.lists(st.integers(1, 5000), min_size=3, max_size=60), st.integers(0, 57))
def test_a_cause_that_lasts_is_told_whatever_went_before(before: list[int], gap: int) -> None:
    counts = [*before[:gap], 0, 1, 1, 1]
    last = NOON + (len(counts) - 1) * STEP

    notices = follow(DAY, counts, set())

    assert notices
    assert last - notices[-1] <= 2 * STEP, "it came back, and the pause between two notices is shorter than that"


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_a_cause_that_only_grows_is_told_a_logarithm_of_times_between_two_repeats(counts: list[int]) -> None:
    growing = sorted(counts)
    repeats = len(growing) * STEP // DAY.repeat

    assert len(follow(DAY, growing, set())) <= 1 + (growing[-1] // growing[0]).bit_length() + repeats


@given(st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 1, 1)))  # noqa: DTZ001  # made aware below
def test_at_any_moment_a_nearly_late_reply_may_disturb(at: datetime) -> None:
    now = at.replace(tzinfo=UTC)
    manner = replace(QUIET, zone=ZoneInfo("America/New_York"))

    assert may_disturb(cause(due_at=now + timedelta(minutes=5)), manner, now)
