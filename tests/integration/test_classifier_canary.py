"""A candidate proposes for its share of the cases, as long as a person's order lets it, and for no other."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.proposals import ProposalFailed, ProposalMade, ProposalShadowed
from contracts.failures import LaterError, PermanentError
from services.classifier.handlers.regimes import Canary
from services.classifier.outbound.admission import CandidateAdmission
from tests.conftest import MigratedDatabase
from tests.fakes.acting import case_of, tiny
from tests.fakes.proposing import CANDIDATE_REGIME, Bench, ScriptedModel, bench

OTHER = '{"confidence": 0.4, "answer": "Good day!"}'
BAD = '{"confidence": 7}'
OURS, NOT_OURS = "1", "7"
"""Tickets of the places 0 and 89."""


@pytest.fixture
async def desk(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    """Its process has a candidate, which a person admitted and lets propose for half of the cases."""
    async with bench(migrated, tiny(candidate={"model": "candidate"})) as made:
        made.candidate.answers = [OTHER]
        await admit(made, CANDIDATE_REGIME)
        await made.order("canary", 50)
        yield made


async def admit(desk: Bench, regime: str) -> None:
    await desk.admin.execute(
        "INSERT INTO control.regimes (process, model, regime, admitted_at) VALUES ('tiny', $1, $1, now())", regime
    )


async def ask(desk: Bench, ticket: str) -> None:
    await desk.hear(desk.outside.says(ticket))
    await desk.worker.step()


async def made(desk: Bench) -> list[tuple[str, bool, str | None]]:
    """By whose proposals: case, whether it was the candidate's turn, and the regime."""
    found = [(event.case_id, event.data) for event in await desk.said(ProposalMade)]
    return [(case_id, d.candidate, d.regime) for case_id, d in found if isinstance(d, ProposalMade)]


async def test_the_candidate_proposes_for_the_cases_of_its_share_and_nobody_is_asked_twice(desk: Bench) -> None:
    await ask(desk, OURS)
    await ask(desk, NOT_OURS)

    assert await made(desk) == [(case_of(OURS), True, CANDIDATE_REGIME), (case_of(NOT_OURS), False, None)]
    assert (len(desk.candidate.asked), len(desk.model.asked)) == (1, 1)
    assert await desk.said(ProposalShadowed) == []


@pytest.mark.parametrize(
    ("mode", "percent", "regime"),
    [
        pytest.param("off", 50, CANDIDATE_REGIME, id="off"),
        pytest.param("shadow", 50, CANDIDATE_REGIME, id="shadow"),
        pytest.param("canary", 0, CANDIDATE_REGIME, id="of no case"),
        pytest.param("canary", 50, "another", id="ordered for another regime"),
    ],
)
async def test_without_an_order_for_it_the_live_regime_proposes(
    desk: Bench, mode: str, percent: int, regime: str
) -> None:
    await desk.order(mode, percent, regime)
    await ask(desk, OURS)

    assert await made(desk) == [(case_of(OURS), False, None)]
    assert desk.candidate.asked == []


async def test_a_candidate_without_a_passed_eval_proposes_for_nobody_until_a_person_admits_it(desk: Bench) -> None:
    await desk.admin.execute("UPDATE control.regimes SET admitted_at = NULL")
    await ask(desk, OURS)
    before = [by for _, by, _ in await made(desk)]
    await desk.admin.execute("UPDATE control.regimes SET admitted_at = now()")
    await ask(desk, "3")

    assert (before, [by for _, by, _ in await made(desk)]) == ([False], [False, True])


async def test_each_model_of_its_chain_needs_its_own(desk: Bench) -> None:
    desk.fallback = [ScriptedModel(name="other")]
    desk.worker = desk.new_worker()
    await ask(desk, OURS)
    await admit(desk, "other's")
    await ask(desk, "3")

    assert [by for _, by, _ in await made(desk)] == [False, True]


async def test_where_it_fails_its_fallback_answers_under_its_own_regime(desk: Bench) -> None:
    desk.fallback = [ScriptedModel(name="other")]
    desk.worker = desk.new_worker()
    await admit(desk, "other's")
    desk.candidate.answers = [BAD]
    await ask(desk, OURS)

    assert await made(desk) == [(case_of(OURS), True, "other's")]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(LaterError("model_overloaded", "529", seconds=3600), id="for now"),
        pytest.param(PermanentError("model_unknown", "no such model"), id="for ever"),
        pytest.param(KeyError("usage"), id="for a fault of ours"),
    ],
)
async def test_what_it_does_not_answer_the_live_regime_answers_at_once(desk: Bench, failure: Exception) -> None:
    desk.candidate.answers = [failure]
    await ask(desk, OURS)

    assert await made(desk) == [(case_of(OURS), True, None)]
    assert (len(desk.candidate.asked), len(desk.model.asked)) == (1, 1)
    [event] = await desk.said(ProposalMade)
    assert isinstance(event.data, ProposalMade)
    assert [one.model for one in event.data.failed] == ["candidate"]
    assert await desk.said(DeadLetterRaised) == []


async def test_where_nobody_answers_the_work_waits_as_it_does_without_a_candidate(desk: Bench) -> None:
    for model in desk.candidate, desk.model:
        model.answers = [LaterError("model_overloaded", "529", seconds=3600), OTHER]
    await ask(desk, OURS)
    before = await made(desk)
    await desk.hurry()
    await desk.worker.step()

    assert (before, await made(desk)) == ([], [(case_of(OURS), True, CANDIDATE_REGIME)])


async def test_what_nobody_accepts_of_it_is_a_persons_and_says_whose_it_was(desk: Bench) -> None:
    desk.candidate.answers = [BAD]
    await ask(desk, OURS)

    [failed] = [event.data for event in await desk.said(ProposalFailed)]
    assert isinstance(failed, ProposalFailed)
    assert (failed.code, failed.candidate, failed.regime) == ("output_invalid", True, CANDIDATE_REGIME)
    assert len(await desk.said(DeadLetterRaised)) == 1


async def test_where_nobody_s_answer_is_accepted_in_its_turn_the_failure_is_the_candidate_s(desk: Bench) -> None:
    """A lost call of the candidate may have used up what the live one needed."""
    desk.candidate.answers = [PermanentError("model_unknown", "no such model")]
    desk.model.answers = [BAD]
    await ask(desk, OURS)

    [failed] = [event.data for event in await desk.said(ProposalFailed)]
    assert isinstance(failed, ProposalFailed)
    assert (failed.code, failed.candidate, failed.regime) == ("output_invalid", True, CANDIDATE_REGIME)


async def test_a_classifier_that_dies_in_between_proposes_once_and_by_the_order_that_is_in_force(desk: Bench) -> None:
    await desk.hear(desk.outside.says(OURS))
    dead = desk.new_worker()
    await dead.perform(await dead.claim())  # and never finishes
    await desk.order("off", 50)
    await desk.hurry()
    await desk.worker.step()
    await desk.hurry()
    await desk.worker.step()

    assert await made(desk) == [(case_of(OURS), False, None)]
    assert len(desk.candidate.asked) == 1


async def test_what_it_answered_while_the_order_ended_is_said_as_its_own(desk: Bench) -> None:
    await desk.hear(desk.outside.says(OURS))
    claims = await desk.worker.claim()
    outcomes = await desk.worker.perform(claims)
    await desk.order("off", 50)
    await desk.worker.finish(claims, outcomes)

    assert await made(desk) == [(case_of(OURS), True, CANDIDATE_REGIME)]


async def test_a_paused_process_asks_no_candidate(desk: Bench) -> None:
    await desk.admin.execute("UPDATE control.switches SET paused = true")
    await ask(desk, OURS)

    assert (desk.candidate.asked, await made(desk)) == ([], [])


async def test_a_candidate_whose_machine_did_not_say_yet_which_weights_it_has_is_asked_about_nothing(
    desk: Bench,
) -> None:
    answers: list[str | LaterError] = [LaterError("model_unreachable", "away", seconds=5), CANDIDATE_REGIME]

    async def find() -> str:
        if isinstance(answer := answers.pop(0), LaterError):
            raise answer
        return answer

    candidate = desk.process.candidate
    assert candidate is not None
    admission = CandidateAdmission(candidate, {}, {"candidate": find})
    regime = replace(desk.new_candidate(), digests=admission.regimes)
    canary = Canary(process="tiny", regime=regime, may_serve=admission.given)
    taken = []
    for _ in range(3):
        async with desk.database.connection() as connection:
            taken.append(await canary.takes(connection, [case_of(OURS)]))
        await admission.look()

    assert taken == [frozenset(), frozenset(), {case_of(OURS)}]
