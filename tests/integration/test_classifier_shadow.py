"""A candidate in shadow is asked what was asked live, after it and beside it, and whatever it does fails nothing."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import orjson
import pytest

from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.proposals import BudgetExhausted, ProposalMade, ProposalShadowed
from contracts.failures import LaterError, PermanentError
from services.classifier.handlers.shadow import ATTEMPTS_MAX
from services.classifier.ports import Cost
from services.runtime.vault import CaseKeys
from tests.conftest import MigratedDatabase
from tests.fakes.acting import case_of, tiny
from tests.fakes.proposing import CANDIDATE_REGIME, GOOD, Bench, ScriptedModel, bench
from tests.virtual import set_clock

OTHER = '{"confidence": 0.4, "answer": "Good day!"}'
BAD = '{"confidence": 7}'


@pytest.fixture
async def desk(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    """Its process has a candidate, which is in shadow on every case."""
    async with bench(migrated, tiny(candidate={"model": "candidate"})) as made:
        made.candidate.answers = [OTHER]
        await made.order("shadow")
        yield made


async def ask(desk: Bench, ticket: str = "1", text: str = "Where is it?") -> None:
    """A customer asks, and gets a live proposal."""
    await desk.hear(desk.outside.says(ticket, text=text))
    await desk.worker.step()


async def shadow(desk: Bench) -> None:
    """Whatever is to be asked in shadow is asked, without a wait."""
    for _ in range(ATTEMPTS_MAX):
        await desk.hurry()
        await desk.shadower.step()


async def said(desk: Bench) -> list[ProposalShadowed]:
    return [event.data for event in await desk.said(ProposalShadowed) if isinstance(event.data, ProposalShadowed)]


async def left(desk: Bench) -> tuple[int, int]:
    """Shadows that are still to be asked, and questions that are kept."""
    row = await desk.admin.fetchrow(
        "SELECT (SELECT count(*) FROM classifier.tasks WHERE kind = 'shadow' AND state <> 'done'),"
        " (SELECT count(*) FROM classifier.shadows)"
    )
    assert row is not None
    return row[0], row[1]


async def test_a_candidate_is_asked_the_same_question_after_the_live_proposal_was_said(desk: Bench) -> None:
    await ask(desk)
    before = [*desk.candidate.asked]
    await shadow(desk)
    await shadow(desk)

    [live] = await desk.said(ProposalMade)
    [one] = await desk.said(ProposalShadowed)
    assert isinstance(live.data, ProposalMade)
    assert isinstance(one.data, ProposalShadowed)
    assert before == []
    assert [a.data() for a in desk.candidate.asked] == [a.data() for a in desk.model.asked]
    assert (one.causation_id, one.correlation_id, one.data.basis) == (
        live.event_id,
        live.correlation_id,
        live.data.basis,
    )
    assert (one.data.regime, one.data.label, one.data.confidence) == (CANDIDATE_REGIME, "question", 0.4)
    keys = CaseKeys(case_of("1"), {1: bytes(32)})
    assert orjson.loads(keys.unseal(one.data.output or ""))["answer"] == "Good day!"
    assert one.data.facts == live.data.facts
    assert "Good day!" not in one.data.model_dump_json()
    assert await left(desk) == (0, 0)


@pytest.mark.parametrize(
    ("mode", "percent", "regime"),
    [
        pytest.param("off", 100, CANDIDATE_REGIME, id="off"),
        pytest.param("shadow", 0, CANDIDATE_REGIME, id="of no case"),
        pytest.param("shadow", 100, "another", id="ordered for another regime"),
    ],
)
async def test_a_candidate_that_is_not_in_shadow_is_not_asked(
    desk: Bench, mode: str, percent: int, regime: str
) -> None:
    await desk.order(mode, percent, regime)
    await ask(desk)
    await shadow(desk)

    assert (desk.candidate.asked, await left(desk)) == ([], (0, 0))


@pytest.mark.parametrize(("mode", "regime"), [("off", CANDIDATE_REGIME), ("shadow", "another")])
async def test_an_order_that_changes_meanwhile_is_followed(desk: Bench, mode: str, regime: str) -> None:
    await ask(desk)
    await desk.order(mode, 100, regime)
    await shadow(desk)

    assert (desk.candidate.asked, await said(desk), await left(desk)) == ([], [], (0, 0))


async def test_only_the_cases_of_the_share_are_asked_about(desk: Bench) -> None:
    await desk.order("shadow", 39)  # the fourth has place 39
    for ticket in map(str, range(1, 11)):
        await ask(desk, ticket)
    for _ in range(4):
        await shadow(desk)

    assert len(await desk.said(ProposalMade)) == 10
    asked = {event.case_id for event in await desk.said(ProposalShadowed)}
    assert asked == {case_of(str(n)) for n in (1, 2, 3, 8)}


async def test_the_answer_of_ours_that_came_meanwhile_changes_no_question(desk: Bench) -> None:
    await ask(desk)
    desk.outside.tick()
    await desk.hear(desk.outside.says("1", author="ours", text="Hello!"))
    await shadow(desk)

    assert [a.data() for a in desk.candidate.asked] == [a.data() for a in desk.model.asked]


async def test_what_a_newer_question_overtook_is_not_asked_any_more(desk: Bench) -> None:
    await ask(desk)
    desk.outside.tick()
    newest = desk.outside.says("1", text="and one more thing")
    await desk.hear(newest)
    await shadow(desk)
    before = await said(desk)
    await desk.worker.step()
    await shadow(desk)

    [one] = await said(desk)
    assert before == []
    assert one.basis.startswith(newest.version)


@pytest.mark.parametrize(
    ("answers", "code", "times"),
    [
        pytest.param([PermanentError("model_unknown", "no such model")], "model_unknown", 1, id="for ever"),
        pytest.param([BAD], "output_invalid", 2, id="no output of the schema"),
        pytest.param([LaterError("model_overloaded", "529", seconds=3600)], "model_overloaded", 3, id="for now"),
        pytest.param([RuntimeError("the customer's words")], "unforeseen", 3, id="a fault of ours"),
    ],
)
async def test_a_candidate_that_does_not_answer_is_said_to_have_failed_and_nothing_comes_of_it(
    desk: Bench, answers: list[str | Exception], code: str, times: int
) -> None:
    desk.candidate.answers = answers
    await ask(desk)
    await shadow(desk)
    await shadow(desk)

    [failed] = await said(desk)
    assert (failed.code, failed.output, failed.facts, failed.made_from) == (code, None, None, None)
    assert len(desk.candidate.asked) == times
    assert await desk.said(DeadLetterRaised) == []
    assert await left(desk) == (0, 0)
    assert len(await desk.said(ProposalMade)) == 1


async def test_a_candidate_that_answers_at_last_is_heard(desk: Bench) -> None:
    desk.candidate.answers = [LaterError("model_overloaded", "529", seconds=3600), OTHER]
    await ask(desk)
    await shadow(desk)

    [one] = await said(desk)
    assert (one.code, one.confidence) == (None, 0.4)


async def test_a_classifier_that_dies_while_its_candidate_thinks_asks_again_and_says_it_once(desk: Bench) -> None:
    await ask(desk)
    dead = desk.shadower
    await dead.perform(await dead.claim())  # and never finishes
    await shadow(desk)

    assert len(desk.candidate.asked) == 2
    assert len(await said(desk)) == 1


async def test_a_paused_process_asks_no_candidate_and_goes_on_afterwards(desk: Bench) -> None:
    await ask(desk)
    await desk.admin.execute("UPDATE control.switches SET paused = true")
    await shadow(desk)
    paused = [*desk.candidate.asked]
    await desk.admin.execute("UPDATE control.switches SET paused = false")
    await shadow(desk)

    assert paused == []
    assert len(await said(desk)) == 1


async def test_a_pause_after_the_claim_stops_the_call(desk: Bench) -> None:
    await ask(desk)
    assert desk.shadowing is not None
    clock = itertools.count(0, 60)
    desk.shadowing = replace(desk.shadowing, clock=lambda: float(next(clock)))
    worker = desk.shadower
    claims = await worker.claim()
    await desk.admin.execute("UPDATE control.switches SET paused = true")
    await worker.finish(claims, await worker.perform(claims))

    assert (desk.candidate.asked, await said(desk)) == ([], [])


NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0) + timedelta(days=1)
WORST, TOOK = Cost(tokens_in=50, tokens_out=50, cost_usd=Decimal("0.10")), Decimal("0.04")


async def test_near_a_ceiling_a_shadow_does_not_ask_and_the_live_work_has_what_is_left(
    migrated: MigratedDatabase,
) -> None:
    process = tiny(candidate={"model": "candidate"}, budget={"day_usd_max": 0.27})  # 0.216 of it for shadows
    async with bench(migrated, process) as desk:
        await desk.admin.execute("SET search_path = classifier, pg_catalog")
        await set_clock(desk.admin, "classifier", NOON)
        desk.outside.now = NOON - timedelta(minutes=1)
        await desk.order("shadow")
        for model in (desk.model, desk.candidate):
            model.worst, model.cost_usd, model.answers = WORST, TOOK, [GOOD]
        for ticket in "1", "2", "3":  # live, shadow, live: 0.12, and there is no room for 0.10 below 0.216
            await ask(desk, ticket)
            await shadow(desk)
        await ask(desk, "4")

        assert [one.code for one in await said(desk)] == [None, "budget_near", "budget_near"]
        assert len(await desk.said(ProposalMade)) == 4
        assert await desk.said(BudgetExhausted) == []


async def test_a_shadow_is_a_run_of_its_own(migrated: MigratedDatabase) -> None:
    process = tiny(candidate={"model": "candidate"}, budget={"run_usd_max": 0.11})
    async with bench(migrated, process) as desk:
        await desk.order("shadow")
        for model in (desk.model, desk.candidate):
            model.worst, model.cost_usd, model.answers = WORST, TOOK, [GOOD]
        await ask(desk)
        await shadow(desk)

        [one] = await said(desk)
        runs = await desk.admin.fetchval("SELECT count(DISTINCT run) FROM classifier.model_calls")
        assert (one.code, one.cost_usd, runs) == (None, TOOK, 2)


async def test_what_was_said_live_is_the_same_to_the_byte_with_a_shadow_and_without(
    migrated: MigratedDatabase, migrated_once: MigratedDatabase
) -> None:
    told: list[list[tuple[object, ...]]] = []
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    for database, mode in ((migrated, "off"), (migrated_once, "shadow")):
        async with bench(database, tiny(candidate={"model": "candidate"})) as desk:
            desk.outside.now = now
            desk.model = ScriptedModel(answers=[GOOD, OTHER, BAD, BAD, GOOD])
            desk.worker = desk.new_worker()
            desk.candidate.answers = [PermanentError("model_unknown", "no such model"), OTHER]
            await desk.order(mode)
            for ticket in "1", "2", "3", "1":
                desk.outside.tick()
                await ask(desk, ticket)
                await shadow(desk)
            rows = await desk.admin.fetch(
                "SELECT headers->>'ce_id', headers->>'ce_type', body FROM classifier.outbox"
                " WHERE headers->>'ce_type' <> 'proposal.shadowed.v1' ORDER BY id"
            )
            told.append([tuple(row) for row in rows])
            assert bool(await said(desk)) is (mode == "shadow")

    assert told[0] == told[1]
