"""Whatever proposes keeps the same promises: one suite for `nearest` and for `claude`, which speaks to a local fake."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from contracts.decision import Circumstances, Execute, Hold
from contracts.events.proposals import MadeFrom
from processes.support.steps.answer.output import Proposal
from services.classifier.outbound.claude import Claude
from services.classifier.outbound.desk import KnowledgeDesk
from services.classifier.outbound.nearest import Nearest
from services.classifier.ports import Ask, Provider
from services.runtime.process import load
from tests.fakes.anthropic import FakeAnthropic
from tests.unit.support.tickets import ORDER, at, created, facts, proposal, revealed

INJECTIONS = [
    json.loads(line)["text"]
    for line in (Path(__file__).parents[1] / "data" / "injections.jsonl").read_text(encoding="utf-8").splitlines()
]
SUPPORT = load("support")


def asking(body: str = "Where is my order 100200300?", **fields: object) -> Ask:
    return KnowledgeDesk(SUPPORT).ask(revealed(created(body, fields=fields)), facts())


def nearest(_: FakeAnthropic) -> Provider:
    return Nearest(SUPPORT)


def claude(fake: FakeAnthropic) -> Provider:
    return Claude(
        model="claude-sonnet-5-5",
        api_key="test",
        base_url="http://model.test",
        timeout_seconds=5,
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(fake.handle)),
    )


@pytest.fixture
def fake() -> FakeAnthropic:
    return FakeAnthropic(proposal().model_dump_json())


@pytest.fixture(params=[nearest, claude])
def provider(request: pytest.FixtureRequest, fake: FakeAnthropic) -> Provider:
    make: Callable[[FakeAnthropic], Provider] = request.param
    return make(fake)


async def test_an_answer_parses_by_the_schema_that_was_asked_for(provider: Provider) -> None:
    answer = await provider.propose(asking())

    parsed = Proposal.model_validate_json(answer.text)
    assert parsed.label == "track_order"
    assert 0 <= parsed.confidence <= 1


async def test_an_answer_says_which_model_made_it_and_what_it_cost(provider: Provider) -> None:
    answer = await provider.propose(asking())

    assert answer.model.startswith(provider.name)
    assert answer.cost_usd >= Decimal(0)
    assert (answer.cost_usd > 0) == (answer.tokens_in + answer.tokens_out > 0)
    assert answer.latency_ms >= 0


async def test_the_same_question_gets_the_same_answer(provider: Provider) -> None:
    first, second = await provider.propose(asking()), await provider.propose(asking())

    assert replace(first, latency_ms=0) == replace(second, latency_ms=0)


async def test_the_retry_is_answered_too(provider: Provider) -> None:
    answer = await provider.propose(replace(asking(), previous=("no JSON", "output: json_invalid")))

    Proposal.model_validate_json(answer.text)


@pytest.mark.parametrize("body", ["", " ", "\u200b", "?", "1234567890", "a" * 60_000, "<p>\ud800</p>"])
async def test_odd_texts_are_answered(provider: Provider, body: str) -> None:
    ask = asking(body)
    if body == "<p>\ud800</p>":
        ask = replace(ask, question=replace(ask.question, text=body))

    Proposal.model_validate_json((await provider.propose(ask)).text)


@pytest.mark.parametrize("body", INJECTIONS)
async def test_a_hostile_text_stays_inside_the_fence(provider: Provider, fake: FakeAnthropic, body: str) -> None:
    calm, hostile = asking("hello"), asking(body)
    answer = await provider.propose(hostile)

    Proposal.model_validate_json(answer.text)
    assert hostile.instructions == calm.instructions
    for sent in fake.requests:
        before, data, after = sent["messages"][0]["content"].split("\n", 2)
        assert (before, after[:7]) == ("<data>", "</data>")
        assert json.loads(data).keys() == {"case", "facts", "passages"}
        assert len(sent["messages"]) == 1


@pytest.mark.parametrize("body", INJECTIONS)
async def test_no_hostile_text_moves_money_or_deletes(body: str) -> None:
    case = revealed(created(body))
    ask = KnowledgeDesk(SUPPORT).ask(case, facts(orders=[{**ORDER, "status": "delivered", "total": "40.00"}]))
    answer = await Nearest(SUPPORT).propose(ask)
    proposed = Proposal.model_validate_json(answer.text)

    decision = SUPPORT.rules.decide(case, ask.facts, proposed, SUPPORT.policy, at(60), Circumstances())

    assert isinstance(decision, Hold | Execute)
    assert isinstance(decision, Hold) or {action.name for action in decision.actions} <= {
        "reply",
        "tag",
        "set_priority",
    }


def test_what_a_proposal_was_made_from_is_recorded_and_changes_with_it() -> None:
    desk = KnowledgeDesk(SUPPORT)
    ask = asking()
    made = desk.made_from("nearest", ask)

    assert made == desk.made_from("nearest", asking())
    assert all(
        len(d) == 64 for d in (made.prompt, made.output_schema, made.examples, made.settings, made.index_version)
    )
    assert [used.source for used in made.passages] == [passage.id for passage in ask.passages]
    assert desk.made_from("nearest", replace(ask, instructions="others")).prompt != made.prompt
    assert isinstance(made, MadeFrom)


def test_the_rules_see_the_passages_that_the_model_was_shown() -> None:
    ask = asking()

    assert [row["id"] for row in ask.facts["knowledge"].rows] == [passage.id for passage in ask.passages]
