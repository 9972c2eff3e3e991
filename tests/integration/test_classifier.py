from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import orjson
import pytest

from contracts.decision import FactQuery
from contracts.events.control import RedriveRequested
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterRedriven
from contracts.events.proposals import FactsRead, ProposalFailed, ProposalMade
from contracts.failures import LaterError
from services.classifier.ports import Answer, Ask
from services.runtime.vault import CaseKeys
from tests.conftest import MigratedDatabase
from tests.fakes.acting import case_of, tiny
from tests.fakes.events import event, named
from tests.fakes.proposing import GOOD, Bench, ScriptedModel, bench

BAD = '{"confidence": 7, "answer": "my card is 4111 1111 1111 1111"}'


@pytest.fixture
async def desk(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated, tiny()) as made:
        yield made


async def proposals(desk: Bench) -> list[ProposalMade]:
    return [e.data for e in await desk.said(ProposalMade) if isinstance(e.data, ProposalMade)]


async def test_a_question_is_proposed_for_once_with_everything_it_was_made_from(desk: Bench) -> None:
    asked = desk.outside.says("1", text="Where is it?")
    await desk.hear(asked)
    await desk.hear(asked, name="again, under another id")
    await desk.worker.step()
    await desk.worker.step()

    [made] = await proposals(desk)
    assert (made.label, made.confidence, made.attempts, made.tokens_in) == ("question", 0.9, 1, 100)
    assert made.made_from.model == "scripted-1"
    keys = CaseKeys(case_of("1"), {1: bytes(32)})
    assert orjson.loads(keys.unseal(made.output))["answer"] == "Hello!"
    assert "Where is it?" not in made.model_dump_json()
    assert len(await desk.said(FactsRead)) == 1


async def test_the_newest_of_two_questions_is_answered_and_the_older_is_not(desk: Bench) -> None:
    await desk.hear(desk.outside.says("1"))
    desk.outside.tick()
    newest = desk.outside.says("1", text="and one more thing")
    await desk.hear(newest)
    await desk.worker.step()

    [made] = await proposals(desk)
    assert made.basis.startswith(newest.version)


async def test_output_that_fails_once_is_asked_for_again_with_the_error(desk: Bench) -> None:
    desk.model.answers = [BAD, GOOD]
    await desk.hear(desk.outside.says("1"))
    await desk.worker.step()

    [made] = await proposals(desk)
    assert (made.attempts, made.tokens_in, made.tokens_out) == (2, 200, 20), "the failed call is counted"
    assert desk.model.asked[1].previous == (BAD, "confidence: less_than_equal")


async def test_output_that_fails_twice_is_a_dead_letter_that_quotes_nobody(desk: Bench) -> None:
    desk.model.answers = [BAD]
    await desk.hear(desk.outside.says("1"))
    await desk.worker.step()

    [failed] = [e.data for e in await desk.said(ProposalFailed)]
    [dead] = [e.data for e in await desk.said(DeadLetterRaised)]
    assert isinstance(failed, ProposalFailed)
    assert isinstance(dead, DeadLetterRaised)
    assert (failed.code, failed.attempts, dead.code) == ("output_invalid", 2, "output_invalid")
    assert "4111" not in dead.model_dump_json()
    assert await proposals(desk) == []


async def test_a_model_that_is_away_is_asked_later_and_no_try_is_counted(desk: Bench) -> None:
    desk.model.answers = [LaterError("overloaded", "529", seconds=30), GOOD]
    await desk.hear(desk.outside.says("1"))
    await desk.worker.step()
    before = await proposals(desk)
    await desk.hurry()
    await desk.worker.step()

    [made] = await proposals(desk)
    assert before == []
    assert made.attempts == 1


async def test_a_body_without_the_text_is_completed_by_reading_and_what_was_read_is_in_the_proposal(
    desk: Bench,
) -> None:
    told = desk.outside.says("1", text="the text that the webhook left out")
    await desk.hear(replace(told, texts={}, hint=True, identity="a hint"))
    await desk.worker.step()

    [made] = await proposals(desk)
    keys = CaseKeys(case_of("1"), {1: bytes(32)})
    process = desk.process
    case = process.case.reveal(process.case.Case.model_validate(made.case), keys.unseal)
    assert "the text that the webhook left out" in case.model_dump_json()
    assert desk.outside.reads == 1


async def test_who_was_answered_by_a_person_meanwhile_gets_no_proposal(desk: Bench) -> None:
    await desk.hear(desk.outside.says("1"))
    desk.outside.tick()
    await desk.hear(desk.outside.says("1", author="staff", text="I have it"))
    await desk.worker.step()

    assert desk.model.asked == []


async def test_an_echo_of_our_own_answer_is_never_new_work(desk: Bench) -> None:
    await desk.hear(desk.outside.says("1"))
    await desk.worker.step()
    desk.outside.tick()
    await desk.hear(desk.outside.says("1", author="ours", text="Hello!"))
    await desk.hurry()
    await desk.worker.step()

    assert len(await proposals(desk)) == 1


async def test_what_was_opened_before_the_door_s_start_is_recorded_and_costs_no_model_call(
    migrated: MigratedDatabase,
) -> None:
    process = tiny(doors={"none": {"start_at": "2999-01-01T00:00:00Z"}})
    async with bench(migrated, process) as desk:
        await desk.hear(desk.outside.says("1"))
        claimed = await desk.worker.step()

        assert claimed == 0
        assert await desk.admin.fetchval("SELECT count(*) FROM classifier.cases") == 1


@pytest.mark.parametrize(("settle_seconds", "claimed"), [(30, 1), (90, 0)])
async def test_a_first_reply_waits_for_what_the_customer_adds(
    migrated: MigratedDatabase, settle_seconds: float, claimed: int
) -> None:
    process = tiny(limits={"settle_seconds": settle_seconds})
    async with bench(migrated, process) as desk:
        await desk.hear(desk.outside.says("1"))  # a minute ago

        assert await desk.worker.step() == claimed


async def test_a_paused_process_asks_no_model(desk: Bench) -> None:
    await desk.admin.execute("UPDATE control.switches SET paused = true")
    await desk.hear(desk.outside.says("1"))
    paused = await desk.worker.step()
    await desk.admin.execute("UPDATE control.switches SET paused = false")

    assert (paused, desk.model.asked) == (0, [])
    assert await desk.worker.step() == 1


@dataclass
class PausedMeanwhile(ScriptedModel):
    """Takes its time over the first answer, and the process is paused meanwhile."""

    desk: Bench = field(kw_only=True)

    async def propose(self, ask: Ask) -> Answer:
        answer = await super().propose(ask)
        if len(self.asked) == 1:
            self.desk.time += 3
            await self.desk.admin.execute("UPDATE control.switches SET paused = true")
        return answer


@pytest.mark.parametrize(
    ("answers", "proposed"), [pytest.param([GOOD], 1, id="its turn"), pytest.param([BAD, GOOD], 0, id="a second try")]
)
async def test_what_was_claimed_before_a_pause_and_still_waits_for_its_turn_asks_no_model(
    desk: Bench, answers: list[str | Exception], proposed: int
) -> None:
    desk.model, desk.asks_at_once = PausedMeanwhile(answers=answers, desk=desk), 1
    desk.worker = desk.new_worker()
    await desk.hear(desk.outside.says("1"))
    await desk.hear(desk.outside.says("2"))

    claimed = await desk.worker.step()
    asked, made = len(desk.model.asked), len(await proposals(desk))
    await desk.admin.execute("UPDATE control.switches SET paused = false")
    await desk.worker.step()

    assert (claimed, asked, made) == (2, 1, proposed)
    assert len(await proposals(desk)) == 2


async def test_a_fact_that_cannot_be_read_is_said_so_and_stops_no_proposal(desk: Bench) -> None:
    queries = [FactQuery(name="order", source="away", query="q"), FactQuery(name="customer", source="there", query="q")]
    object.__setattr__(desk.process, "facts", SimpleNamespace(queries=lambda _: queries))
    await desk.hear(desk.outside.says("1"))
    await desk.worker.step()

    [read] = [e.data for e in await desk.said(FactsRead)]
    assert isinstance(read, FactsRead)
    assert {f.name: (f.ok, f.error) for f in read.facts} == {"order": (False, "unavailable"), "customer": (True, None)}
    assert len(await proposals(desk)) == 1


async def test_a_text_whose_key_was_erased_becomes_a_dead_letter_and_stays_unread(desk: Bench) -> None:
    await desk.hear(desk.outside.says("1"))
    await desk.admin.execute("SELECT vault.erase($1)", case_of("1"))
    await desk.worker.step()

    [dead] = [e.data for e in await desk.said(DeadLetterRaised)]
    assert isinstance(dead, DeadLetterRaised)
    assert dead.code == "text_erased"
    assert desk.model.asked == []


async def test_a_dead_letter_with_fifty_later_changes_is_redriven_to_one_proposal_for_the_newest(desk: Bench) -> None:
    desk.model.answers = [BAD]
    await desk.hear(desk.outside.says("1"))
    await desk.worker.step()
    later = []
    for _ in range(50):
        desk.outside.tick()
        later.append(desk.outside.says("1"))
        await desk.hear(later[-1])
    blocked = await desk.worker.step()
    desk.model.answers = [GOOD]
    [dead] = [e.data for e in await desk.said(DeadLetterRaised)]
    assert isinstance(dead, DeadLetterRaised)
    for nonce in "ab":  # two people at the same moment
        order = RedriveRequested(
            dead_letter_id=dead.dead_letter_id, service="classifier", nonce=named(nonce), by="Ada Example"
        )
        await desk.inbox.take([event(f"order {nonce}", order, case_id=case_of("1")).to_record()])
    await desk.hurry()
    await desk.worker.step()
    await desk.worker.step()

    [made] = await proposals(desk)
    assert blocked == 0
    assert made.basis.startswith(later[-1].version)
    assert len(await desk.said(DeadLetterRedriven)) == 1


async def test_a_worker_that_died_leaves_its_work_to_another_and_one_proposal(desk: Bench) -> None:
    await desk.hear(desk.outside.says("1"))
    died = await desk.worker.claim()
    await desk.hurry()
    other = desk.new_worker()
    await other.step()
    await desk.worker.finish(died, await desk.worker.perform(died))

    assert len(await proposals(desk)) == 1


async def says_status(desk: Bench, status: str) -> None:
    """Staff change the ticket's status, with a note that the customer does not see."""
    desk.outside.tick()
    note = desk.outside.says("1", author="system", public=False)
    await desk.hear(replace(note, fields={"status": status}))


@pytest.mark.parametrize("claimed_meanwhile", [True, False])
async def test_a_ticket_that_was_gone_when_its_turn_came_and_comes_back_is_proposed_for(
    desk: Bench, *, claimed_meanwhile: bool
) -> None:
    await desk.hear(desk.outside.says("1"))
    await says_status(desk, "closed")
    if claimed_meanwhile:
        claims = await desk.worker.claim()
        outcomes = await desk.worker.perform(claims)
        await says_status(desk, "open")
        await desk.worker.finish(claims, outcomes)
    else:
        await desk.worker.step()
        await says_status(desk, "open")
    await desk.worker.step()
    await desk.worker.step()

    assert len(await proposals(desk)) == 1


async def test_a_question_that_was_none_after_all_leaves_the_one_before_it_to_be_answered(desk: Bench) -> None:
    first = desk.outside.says("1")
    await desk.hear(first)
    desk.outside.tick()
    second = desk.outside.says("1", author="system", public=False)
    mistaken = replace(second, author="customer", hint=True, identity="without an author")
    await desk.hear(mistaken)

    await desk.worker.step()

    [made] = await proposals(desk)
    assert made.basis.startswith(first.version)
