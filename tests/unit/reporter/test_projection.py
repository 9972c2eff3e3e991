"""What the events of a case come to."""

import random
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from contracts.base import Fact
from contracts.envelope import Event
from services.reporter.domain.latency import BOUNDS_MS, bucket_of, percentile
from services.reporter.domain.log import NO_TIME, entry_of, history_of
from services.reporter.domain.projection import Projected, project
from services.reporter.domain.views import CaseRow
from tests.unit.reporter.night import ENDINGS, POLICY, Story, records, switch_events, tell, unknown_record


def projected(events: Sequence[Event[Fact]]) -> Projected:
    return project(history_of(map(entry_of, records(events))), POLICY)


def case_row(events: Sequence[Event[Fact]]) -> CaseRow:
    return next(CaseRow.model_validate(row.body) for row in projected(events).rows if row.kind == "case")


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ("answered", "answered"),
        ("redriven", "answered"),
        ("approval", "approval"),
        ("denied", "held"),
        ("refused", "refused"),
        ("dead_letter", "dead_letter"),
        ("staff", "answered"),
        ("waiting", "seen"),
        ("deleted", "gone"),
        ("retry", "acting"),
    ],
)
def test_a_case_stands_where_its_events_left_it(ending: str, state: str) -> None:
    assert case_row(tell("1", ending)).state == state


@given(data=st.data(), ending=st.sampled_from(ENDINGS))
def test_any_order_and_any_duplicates_give_the_same_rows(data: st.DataObject, ending: str) -> None:
    events = tell("1", ending)

    shuffled = data.draw(st.permutations(events + events[::2]))

    assert projected(shuffled) == projected(events)


def test_every_prefix_of_a_story_can_be_projected_in_any_order() -> None:
    for ending in ENDINGS:
        events = tell("1", ending)
        for length in range(1, len(events) + 1):
            some = random.Random(length).sample(events, length)
            assert projected(some).rows


def test_a_run_lasts_from_the_webhook_to_the_acknowledgement() -> None:
    story = Story("1")
    story.opens()
    story.proposes()
    story.decides("execute", "fine", effects=[story.effect])
    story.attempts()
    story.acknowledges()
    received, acknowledged = story.events[0].data.received_at, story.events[-1].time
    story.observes(after=500)

    run = next(row.body for row in projected(story.events).rows if row.kind == "run")

    assert run["latency_ms"] == (acknowledged - received) / timedelta(milliseconds=1)
    assert run["state"] == "executed"
    assert run["cost_usd"] == "0.0031"


def test_a_decision_with_an_effect_under_way_has_no_latency_yet() -> None:
    run = next(row.body for row in projected(tell("1", "retry")).rows if row.kind == "run")

    assert run["latency_ms"] is None


def test_only_an_observed_effect_is_observed() -> None:
    story = Story("1")
    story.opens()
    story.decides("execute", "fine", effects=[story.effect])
    seen = [case_row(story.events).effects[0].state]
    for step in (story.attempts, story.fails, lambda: story.attempts(2), lambda: story.acknowledges(2), story.observes):
        step()
        seen.append(case_row(story.events).effects[0].state)

    assert seen == ["planned", "attempted", "retry", "attempted", "acknowledged", "observed"]


def test_an_attempt_that_was_put_back_and_then_overtaken_is_over() -> None:
    story = Story("1")
    story.opens()
    story.decides("execute", "fine", effects=[story.effect])
    story.attempts()
    story.fails(1, outcome="retry", code="conflict")
    story.fails(1, outcome="superseded", code="newer_basis")

    effect = case_row(story.events).effects[0]
    assert (effect.state, effect.code) == ("superseded", "newer_basis")


def test_a_second_decision_that_ignores_does_not_hide_the_first() -> None:
    story = Story("1")
    story.opens()
    story.decides("hold", "a person must look")
    story.decides("ignore", "decided already")

    assert case_row(story.events).verdict == "held"


def test_a_dead_letter_tells_what_waits_behind_it_and_when_the_reply_is_late() -> None:
    events = tell("1", "dead_letter")

    letter = next(row.body for row in projected(events).rows if row.kind == "dead_letter")

    assert letter["state"] == "open"
    assert letter["waits_behind"] == 1
    assert letter["due_at"] == "2026-11-22T02:00:00Z"


def test_a_switch_is_no_case() -> None:
    assert {row.kind for row in projected(switch_events()).rows} == {"sums"}


def test_an_unknown_type_is_kept_as_unread() -> None:
    rows = project(history_of([entry_of(unknown_record())]), POLICY).rows

    assert [(row.kind, row.state) for row in rows if row.kind != "sums"] == [("unread", "case.opened.v9")]


def test_a_record_without_readable_headers_still_becomes_an_entry() -> None:
    damaged = unknown_record()._replace(headers={"ce_id": "?", "ce_time": "yesterday", "ce_subject": "a\0b"})

    entry = entry_of(damaged)

    assert (entry.time, entry.case_id, entry.type) == (NO_TIME, "a\ufffdb", "unknown")
    assert entry.event_id == entry_of(damaged).event_id


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=200))
def test_percentiles_from_the_histogram_are_off_by_less_than_a_bucket(latencies: list[int]) -> None:
    counts: dict[int, int] = {}
    for latency in latencies:
        counts[bucket_of(latency)] = counts.get(bucket_of(latency), 0) + 1

    for share in (0.5, 0.99):
        exact = sorted(latencies)[max(0, -(-int(share * 100) * len(latencies) // 100) - 1)]
        upper = bucket_of(exact)
        lower = BOUNDS_MS[BOUNDS_MS.index(upper) - 1] if upper > 1 else 0
        assert lower - 1e-6 <= percentile(counts, share) <= upper + 1e-6


def test_percentiles_of_nothing_are_none() -> None:
    assert percentile({}, 0.5) is None
