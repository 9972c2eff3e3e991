"""Whatever proposes keeps the same promises: `nearest`, and what speaks to a fake. tests/real asks a real Ollama."""

from dataclasses import replace

import pytest

from contracts.decision import Circumstances, Execute, Hold
from contracts.events.proposals import MadeFrom
from processes.support.steps.answer.output import Proposal
from services.classifier.outbound.desk import KnowledgeDesk
from services.classifier.outbound.nearest import Nearest
from services.classifier.ports import Ask, Provider
from services.runtime.process import load
from tests.contract.promises import INJECTIONS, Asking, ProposesPromises, SendsFencedPromises, Sent
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.ollama import FakeOllama
from tests.unit.support.tickets import ORDER, at, created, facts, proposal, revealed

SUPPORT = load("support")


async def asking(body: str = "Where is my order 100200300?", **fields: object) -> Ask:
    return await KnowledgeDesk(SUPPORT).ask(revealed(created(body, fields=fields)), facts())


class OfSupport(ProposesPromises):
    """Asked about the support process's tickets."""

    @pytest.fixture
    def asking(self) -> Asking:
        return asking

    async def test_the_answer_is_about_the_question(self, provider: Provider) -> None:
        answer = await provider.propose(await asking())

        assert Proposal.model_validate_json(answer.text).label == "track_order"


class TestNearest(OfSupport):
    @pytest.fixture
    def provider(self) -> Provider:
        return Nearest(SUPPORT)


class TestClaude(OfSupport, SendsFencedPromises):
    @pytest.fixture
    def fake(self) -> FakeAnthropic:
        return FakeAnthropic(proposal().model_dump_json())

    @pytest.fixture
    def provider(self, fake: FakeAnthropic) -> Provider:
        return fake.claude()

    @pytest.fixture
    def sent(self, fake: FakeAnthropic) -> Sent:
        return lambda: [request["messages"] for request in fake.requests]


class TestOllama(OfSupport, SendsFencedPromises):
    @pytest.fixture
    def fake(self) -> FakeOllama:
        return FakeOllama(proposal().model_dump_json())

    @pytest.fixture
    def provider(self, fake: FakeOllama) -> Provider:
        return fake.ollama(context_tokens=131072)

    @pytest.fixture
    def sent(self, fake: FakeOllama) -> Sent:
        return lambda: [request["messages"][1:] for request in fake.requests]


@pytest.mark.parametrize("body", INJECTIONS)
async def test_no_hostile_text_moves_money_or_deletes(body: str) -> None:
    case = revealed(created(body))
    ask = await KnowledgeDesk(SUPPORT).ask(case, facts(orders=[{**ORDER, "status": "delivered", "total": "40.00"}]))
    answer = await Nearest(SUPPORT).propose(ask)
    proposed = Proposal.model_validate_json(answer.text)

    decision = SUPPORT.rules.decide(case, ask.facts, proposed, SUPPORT.policy, at(60), Circumstances())

    assert isinstance(decision, Hold | Execute)
    assert isinstance(decision, Hold) or {action.name for action in decision.actions} <= {
        "reply",
        "tag",
        "set_priority",
    }


async def test_what_a_proposal_was_made_from_is_recorded_and_changes_with_it() -> None:
    desk = KnowledgeDesk(SUPPORT)
    ask = await asking()
    made = desk.made_from("nearest", ask)

    assert made == desk.made_from("nearest", await asking())
    assert all(
        len(d) == 64 for d in (made.prompt, made.output_schema, made.examples, made.settings, made.index_version)
    )
    assert [used.source for used in made.passages] == [passage.id for passage in ask.passages]
    assert desk.made_from("nearest", replace(ask, instructions="others")).prompt != made.prompt
    assert isinstance(made, MadeFrom)


async def test_the_rules_see_the_passages_that_the_model_was_shown() -> None:
    ask = await asking()

    assert [row["id"] for row in ask.facts["knowledge"].rows] == [passage.id for passage in ask.passages]
