"""What the events of a case come to."""

import dataclasses
import json
import random
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from contracts.base import Fact
from contracts.envelope import Event
from contracts.events.cases import CaseOpened
from contracts.events.control import RedriveRequested
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterResolved
from contracts.events.decisions import ApprovalResolved
from contracts.events.proposals import ProposalDropped
from services.reporter.domain import sentences
from services.reporter.domain.latency import BOUNDS_MS, bucket_of, percentile
from services.reporter.domain.log import NO_TIME, entry_of, history_of
from services.reporter.domain.projection import Projected, project
from services.reporter.domain.views import CaseRow
from tests.unit.reporter.night import (
    ENDINGS,
    POLICY,
    START,
    Story,
    budget_events,
    hour_events,
    records,
    shadowed,
    switch_events,
    tell,
    told_by,
    unknown_record,
)


def projected(events: Sequence[Event[Fact]]) -> Projected:
    return project(history_of(map(told_by, records(events))), POLICY)


def case_row(events: Sequence[Event[Fact]]) -> CaseRow:
    return next(CaseRow.model_validate_json(row.body) for row in projected(events).rows if row.kind == "case")


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
        ("skipped", "skipped"),
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
    opened, acknowledged = story.events[0].data, story.events[-1].time
    assert isinstance(opened, CaseOpened)
    story.observes(after=500)

    run = next(json.loads(row.body) for row in projected(story.events).rows if row.kind == "run")

    assert run["latency_ms"] == (acknowledged - opened.received_at) / timedelta(milliseconds=1)
    assert run["state"] == "executed"
    assert run["cost_usd"] == "0.0031"


def test_what_nobody_waits_for_any_more_costs_its_case_and_leaves_no_work_open() -> None:
    story = Story("1")
    story.opens()
    story.say(ProposalDropped(basis=story.basis, model="claude:m", tokens_in=9, tokens_out=1, cost_usd=Decimal("0.04")))

    run = next(json.loads(row.body) for row in projected(story.events).rows if row.kind == "run")
    case = case_row(story.events)

    assert (run["state"], run["failed"], run["cost_usd"]) == ("ignored", False, "0.04")
    assert (case.state, case.cost_usd, case.tokens_in + case.tokens_out) == ("seen", Decimal("0.04"), 10)


def test_a_decision_with_an_effect_under_way_has_no_latency_yet() -> None:
    run = next(json.loads(row.body) for row in projected(tell("1", "retry")).rows if row.kind == "run")

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


def test_a_newer_request_that_is_left_alone_outranks_an_older_answer_that_never_went() -> None:
    story = Story("1")
    story.opens()
    story.decides("execute", "fine", effects=[story.effect])
    story.attempts()
    story.fails(1, outcome="superseded", code="newer_basis")
    story.asks_again()
    story.decides("ignore", "A person has it.", code="assigned")

    row = case_row(story.events)
    assert (row.state, row.verdict) == ("ignored", "ignored")


def test_an_answer_to_an_older_request_does_not_answer_the_newer_one() -> None:
    story = Story("1")
    story.opens()
    story.decides("execute", "fine", effects=[story.effect])
    story.attempts()
    story.observes()
    story.asks_again()
    story.decides("execute", "fine", effects=[story.effect])
    story.fails(0, outcome="superseded", code="gone")

    assert case_row(story.events).state == "ignored"


def test_an_answer_that_was_overtaken_waits_for_the_newer_decision() -> None:
    story = Story("1")
    story.opens()
    story.decides("execute", "fine", effects=[story.effect])
    story.fails(0, outcome="superseded", code="newer_basis")

    assert (case_row(story.events).state, case_row(story.events).waiting) == ("seen", "a decision about what is newer")


def test_an_answer_that_became_too_old_and_was_handed_over_is_held() -> None:
    story = Story("1")
    story.opens()
    story.decides("execute", "fine", effects=[story.effect])
    story.fails(0, outcome="superseded", code="too_old")
    story.attempts(kind="handover", public=False)
    story.observes(kind="handover", public=False)
    held = case_row(story.events)
    story.changes("comment_added", "I looked into it.", "staff", comment_public=True)

    assert (held.state, held.waiting) == ("held", "a person who takes the case")
    assert case_row(story.events).state == "answered"


def test_a_held_answer_that_a_person_approved_and_the_customer_saw_is_answered() -> None:
    story = Story("1")
    story.opens()
    story.decides("hold", "The refund is above the limit.")
    approval_id = story.asks()
    approved = ApprovalResolved(
        approval_id=approval_id, basis=story.basis, answer="approved", by="kim", effect_keys=(story.effect,)
    )
    story.say(approved, 60)
    story.attempts()
    story.observes()

    assert case_row(story.events).state == "answered"


def test_a_notice_that_nobody_connected_leaves_no_doubt_and_holds_no_case() -> None:
    story = Story("1")
    story.opens()
    notice = story.effect.replace("|reply|", "|notice|")
    story.decides("execute", "fine", effects=[story.effect, notice])
    story.attempts()
    story.observes()
    story.fails(0, kind="notice", outcome="person", code="not_connected")

    assert case_row(story.events).state == "answered"


def test_a_doubt_about_an_effect_ends_with_a_persons_answer() -> None:
    story = Story("1")
    story.opens()
    story.decides("execute", "fine", effects=[story.effect])
    story.attempts()
    story.fails(outcome="person", code="unknown_outcome")
    doubtful = case_row(story.events).state
    story.changes("comment_added", "I looked into it.", "staff", comment_public=True)

    assert (doubtful, case_row(story.events).state) == ("held", "answered")


def test_a_dead_letter_tells_what_waits_behind_it_and_when_the_reply_is_late() -> None:
    events = tell("1", "dead_letter")

    letter = next(json.loads(row.body) for row in projected(events).rows if row.kind == "dead_letter")

    assert letter["state"] == "open"
    assert letter["waits_behind"] == 1
    assert letter["due_at"] == "2026-11-22T02:00:00Z"


def letters(events: Sequence[Event[Fact]]) -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in projected(events).rows if row.kind == "dead_letter"]


def test_a_skipped_dead_letter_says_who_ended_it_and_why() -> None:
    (letter,) = letters(tell("1", "skipped"))

    assert (letter["state"], letter["ended_by"], letter["skip_reason"]) == ("skipped", "kim", "it was a test")


def test_a_handover_does_not_hide_that_work_was_skipped() -> None:
    story = Story("1")
    story.opens()
    letter = story.dies()
    handover = story.effect.replace("|reply|", "|handover|")
    story.decides("refuse", "No usable proposal came of it.", effects=[handover])
    story.attempts(kind="handover", public=False)
    story.observes(kind="handover", public=False)
    story.skips(letter)

    assert case_row(story.events).state == "skipped"


@pytest.mark.parametrize("who", ["software", "staff"])
def test_a_case_is_skipped_until_it_is_decided_or_answered_anew(who: str) -> None:
    story = Story("1")
    story.opens()
    letter = story.dies()
    story.decides("refuse", "No usable proposal came of it.")
    story.skips(letter)
    story.asks_again()
    before = case_row(story.events).state
    if who == "staff":
        story.changes("comment_added", "I looked into it.", "staff", comment_public=True)
    else:
        story.proposes()
        story.decides("execute", "fine", effects=[story.effect], proposal_id=story.events[-1].event_id)
        story.attempts()
        story.observes()

    assert (before, case_row(story.events).state) == ("skipped", "answered")


def test_a_dead_letter_whose_work_was_found_done_is_closed() -> None:
    story = Story("1")
    story.opens()
    letter = story.dies()
    story.say(DeadLetterResolved(dead_letter_id=letter, service="actor", reason="It was found done outside."))

    (row,) = letters(story.events)

    assert row["state"] == "resolved"
    assert case_row(story.events).dead_letters == 0
    assert "found done outside" in sentences.tell(story.events[-1]).sentence


def test_a_redrive_that_failed_leaves_its_dead_letter_open_with_one_more_attempt() -> None:
    story = Story("1")
    story.opens()
    letter = story.dies()
    raised = story.events[-1].data
    assert isinstance(raised, DeadLetterRaised)
    ordered = RedriveRequested(dead_letter_id=letter, service="classifier", nonce=UUID(int=11), by="kim")
    order = story.say(ordered, 600)
    (asked,) = letters(story.events)
    story.say(raised.model_copy(update={"attempts": 3, "code": "gone"}))
    again = dataclasses.replace(story.events[-1], causation_id=order.event_id, time=order.time - timedelta(minutes=5))

    (failed,) = letters([*story.events[:-1], again])

    assert (asked["state"], asked["attempts"]) == ("redrive_requested", 2)
    assert (failed["state"], failed["attempts"], failed["code"]) == ("open", 3, "gone"), "whatever the clocks say"
    assert failed["raised_at"] == asked["raised_at"]
    assert failed["cause"] != asked["cause"]


def test_a_switch_is_no_case() -> None:
    assert {row.kind for row in projected(switch_events()).rows} == {"sums"}


def test_an_hour_of_intake_is_no_case_and_stands_where_its_last_word_left_it() -> None:
    told = hour_events(START, "unknown", "missing", "backfilled")
    told[-1] = dataclasses.replace(told[-1], time=told[0].time - timedelta(minutes=5))  # by another clock

    rows = {row.kind: row for row in projected(told).rows}

    assert rows.keys() == {"intake", "sums"}
    assert (rows["intake"].state, rows["intake"].at) == ("backfilled", START)
    assert json.loads(rows["intake"].body)["missing"] == 1


@pytest.mark.parametrize("period", ["day", "total"])
def test_a_budget_is_no_case_and_its_last_word_stands_beside_the_errors(period: Literal["day", "total"]) -> None:
    rows = {row.kind: row for row in projected(budget_events(START, period)).rows}

    assert rows.keys() == {"budget", "error", "sums"}
    assert rows["budget"].state == period
    assert json.loads(rows["error"].body)["code"] == f"{period}_budget_exhausted"


@given(data=st.data())
def test_any_order_of_what_was_said_of_an_hour_gives_the_same_rows(data: st.DataObject) -> None:
    told = hour_events(START, "missing", "unknown", "missing", "backfilled")

    assert projected(data.draw(st.permutations(told + told[1:]))) == projected(told)


def test_an_unknown_type_is_kept_as_unread() -> None:
    rows = project(history_of([told_by(unknown_record())]), POLICY).rows

    assert [(row.kind, row.state) for row in rows if row.kind != "sums"] == [("unread", "case.opened.v9")]


@pytest.mark.parametrize("time", ["yesterday", "2026-11-25T06:31:24", "0001-01-01T00:00:00+14:00"])
def test_a_record_without_readable_headers_still_becomes_an_entry(time: str) -> None:
    headers = {"ce_id": "?", "ce_time": time, "ce_subject": "a\0b"}
    damaged = unknown_record()._replace(headers=headers)

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
        told = percentile(counts, share)
        assert told is not None
        assert lower - 1e-6 <= told <= upper + 1e-6


def test_percentiles_of_nothing_are_none() -> None:
    assert percentile({}, 0.5) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_candidate_in_shadow_adds_rows_of_its_own_and_changes_no_other(ending: str) -> None:
    plain = tell("7", ending)
    story = Story("7")
    story.events = [*plain]
    story.now = plain[-1].time
    story.run = plain[0].correlation_id
    story.shadows(code="model_timeout")

    before, after = projected(plain).rows, projected(story.events).rows

    assert [row for row in after if row.kind not in {"shadow", "sums"}] == [row for row in before if row.kind != "sums"]
    [shadow] = [row for row in after if row.kind == "shadow"]
    assert shadow.state == "failed"
    sums = [{k: v for k, v in json.loads(r[-1].body).items() if "events" not in k} for r in (before, after)]
    assert sums[0] == sums[1]


@given(data=st.data())
def test_any_order_of_a_shadow_s_events_gives_the_same_rows(data: st.DataObject) -> None:
    events = shadowed("looser")

    assert projected(data.draw(st.permutations(events))) == projected(events)
    [row] = [row for row in projected(events).rows if row.kind == "shadow"]
    assert (row.state, json.loads(row.body)["shadow"]["verdict"]) == ("looser", "hold")


def test_a_shadow_that_is_heard_of_before_its_case_is_no_case() -> None:
    story = Story("7")
    story.shadows(code="model_timeout")

    assert {row.kind for row in projected(story.events).rows} == {"shadow", "sums"}
