"""Only what was seen outside counts: not the answer of an interface that says yes and does nothing."""

from dataclasses import replace
from datetime import timedelta

from contracts.events.cases import CaseOpened
from services.reporter.domain.log import history_of
from services.reporter.domain.projection import project
from services.reporter.domain.sla import Policy
from services.reporter.domain.views import CaseRow, RunRow
from tests.unit.reporter.night import POLICY, Story


def rows_of(story: Story, policy: Policy = POLICY) -> tuple[CaseRow, RunRow]:
    rows = project(history_of(story.events), policy).rows
    case = next(CaseRow.model_validate_json(row.body) for row in rows if row.kind == "case")
    run = next(RunRow.model_validate_json(row.body) for row in rows if row.kind == "run")
    return case, run


def answering() -> Story:
    story = Story("1")
    story.opens()
    story.proposes()
    story.decides("execute", "fine", effects=[story.effect])
    story.attempts()
    story.acknowledges()
    return story


def test_an_answer_that_was_only_acknowledged_is_no_answer_yet() -> None:
    story = answering()

    case, run = rows_of(story)

    assert (case.state, case.waiting) == ("acting", "reply that was acknowledged and is not seen outside yet")
    assert (case.first_reply_at, case.sla.state, run.latency_ms) == (None, "waiting", None)
    story.observes()
    case, run = rows_of(story)
    assert (case.state, case.sla.state) == ("answered", "met")
    assert run.latency_ms is not None


def test_a_handover_that_was_only_acknowledged_has_reached_nobody_yet() -> None:
    story = Story("1")
    story.opens()
    story.decides("hold", "a person should look")
    story.attempts(kind="handover", public=False)
    story.acknowledges(kind="handover")

    assert rows_of(story)[0].state == "acting"
    story.observes(kind="handover", public=False)
    assert rows_of(story)[0].state == "held"


def test_an_answer_that_was_acknowledged_and_never_there_is_a_person_s_and_no_answer() -> None:
    story = answering()
    story.fails(1, code="not_there", outcome="retry")
    story.attempts(2)
    story.acknowledges(2)
    story.fails(2, code="not_there", outcome="person")

    case, run = rows_of(story)

    assert [(effect.state, effect.code) for effect in case.effects] == [("person", "not_there")]
    assert (case.state, case.sla.state, case.first_reply_at) == ("held", "waiting", None)
    assert (run.failed, run.latency_ms) == (True, None)


def test_an_acknowledgement_that_came_after_its_attempt_was_given_up_stands() -> None:
    story = Story("1")
    story.opens()
    story.decides("execute", "fine", effects=[story.effect])
    story.attempts()
    story.fails(1, code="not_found", outcome="retry")
    story.acknowledges(1)

    assert rows_of(story)[0].effects[0].state == "acknowledged"


def test_a_run_lasts_until_the_yes_that_came_true() -> None:
    story = answering()
    story.fails(1, code="not_there", outcome="retry")
    story.attempts(2, after=60)
    story.acknowledges(2)
    opened, came_true = story.events[0].data, story.events[-1].time
    assert isinstance(opened, CaseOpened)
    story.observes(after=10)

    _, run = rows_of(story)

    assert run.latency_ms == (came_true - opened.received_at) / timedelta(milliseconds=1)


def test_where_nothing_can_be_looked_for_an_acknowledgement_is_the_last_word() -> None:
    story = answering()
    [destination] = {effect.destination for effect in rows_of(story)[0].effects}
    assert destination is not None

    case, run = rows_of(story, replace(POLICY, never_seen=frozenset({destination})))

    assert case.state == "answered"
    assert run.latency_ms is not None
