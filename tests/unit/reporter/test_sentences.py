"""Every event is told to a person."""

from dataclasses import replace
from typing import Literal

import pytest

from contracts.events import REGISTRY
from contracts.events.cases import IntakeReconciled
from contracts.events.decisions import DecisionMade, DecisionShadowed
from contracts.events.proposals import ModelFailed, ProposalFailed, ProposalMade, ProposalShadowed
from services.reporter.domain.sentences import SENTENCES, sealed_of, tell
from tests.unit.reporter.night import START, hour_events, night, shadowed

TOLD = {event.type: event for event in night(40)}


@pytest.mark.parametrize("event_type", sorted(REGISTRY))
def test_every_event_type_has_a_sentence(event_type: str) -> None:
    told = tell(TOLD[event_type])

    assert event_type in SENTENCES
    assert told.who
    assert told.sentence.endswith(".")


@pytest.mark.parametrize("event_type", sorted(REGISTRY))
def test_a_sentence_holds_no_sealed_text_and_every_sealed_field_is_offered(event_type: str) -> None:
    event = TOLD[event_type]

    fields = event.data.model_dump_json()
    offered = sealed_of(event.data)

    assert "sealed:1:" not in tell(event).sentence
    assert bool(offered) == ("sealed:1:" in fields)


def test_reasons_are_told() -> None:
    decided = next(e for e in night(40) if isinstance(e.data, DecisionMade) and e.data.verdict == "refuse")

    assert tell(decided).sentence == ("The rules refuse and leave the case to a person: The customer threatens to sue.")


def test_models_that_came_to_nothing_are_told_before_the_one_that_answered() -> None:
    made = TOLD[ProposalMade.TYPE]
    failed = (
        ModelFailed(model="claude:a", code="model_overloaded"),
        ModelFailed(model="ollama:b", code="model_unknown"),
    )
    after_two = replace(made, data=made.data.model_copy(update={"failed": failed}))

    assert tell(after_two).sentence == (
        "claude:a came to nothing (model_overloaded). ollama:b came to nothing (model_unknown). " + tell(made).sentence
    )


def test_a_proposal_that_failed_names_the_models_where_there_were_several() -> None:
    lost = TOLD[ProposalFailed.TYPE]
    failed = tuple(ModelFailed(model=name, code="model_overloaded") for name in ("a", "b"))

    def told(models: tuple[ModelFailed, ...]) -> str:
        return tell(replace(lost, data=lost.data.model_copy(update={"failed": models}))).sentence

    assert told(failed[:1]) == told(()) == tell(lost).sentence
    assert told(failed).startswith("a came to nothing (model_overloaded). b came to nothing (model_overloaded). No ")


@pytest.mark.parametrize("state", ["missing", "unknown"])
def test_an_hour_of_intake_that_cannot_be_mended_any_more_says_so(state: Literal["missing", "unknown"]) -> None:
    (event,) = hour_events(START, state)
    assert isinstance(event.data, IntakeReconciled)
    final = event.data.model_copy(update={"settled": True})

    said = [tell(replace(event, data=data)).sentence for data in (event.data, final)]

    assert ["not asked for again" in one for one in said] == [False, True]


def test_what_a_candidate_would_have_come_to_is_told_with_its_reasons() -> None:
    said = {event.type: tell(event).sentence for event in shadowed("stricter")}
    alike = {event.type: tell(event).sentence for event in shadowed("same")}

    assert said[ProposalShadowed.TYPE].startswith("In shadow: nearest took it for “track_order” with confidence 0.91")
    assert said[DecisionShadowed.TYPE] == (
        "In shadow: the candidate's proposal would have been decided otherwise, stricter (execute → hold): Not sure."
    )
    assert alike[DecisionShadowed.TYPE] == "In shadow: the candidate's proposal would have been decided alike."
