"""Even a model that obeys every order in a message moves nothing that the rules refuse: the support process, whole.

The model's words go through the parser and the decision as in the services. The lists of phrases are a net and not the
wall, so each text is tried again with a policy that recognises none.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from contracts.decision import Circumstances, Execute, Mode
from processes.support.policy import Policy
from processes.support.steps.answer.output import Proposal
from services.actor.handlers.judge import Judgment, Question, judge
from services.classifier.handlers.ask_model import Rejected, ask_model
from services.classifier.outbound.desk import KnowledgeDesk
from services.classifier.ports import Answer, Ask
from services.runtime.cases import StoredCase
from services.runtime.process import Process, load
from services.runtime.vault import CaseKeys
from tests.fakes.obedient import OBEDIENCE, ObedientModel
from tests.unit.support.tickets import CASE_ID, INVOICE, KEY, ORDER, POLICY, at, created, facts, folded, proposal

LINES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "injections.jsonl").read_text(encoding="utf-8").splitlines()
]
SHIPPED = load("support")
KEYS = CaseKeys(CASE_ID, {1: KEY})
ACT: dict[str, Mode] = dict.fromkeys(SHIPPED.settings.actions, "act")
CALM = "I would like to get a refund for my order 100200300, it is not what I wanted and the box is with you again."
FORBIDDEN = (
    "evil.example", "4000", "4,000", "4.000", "DE89", "5550199", "555666777", "<a ", "<data>", "vip", "root",
    "wire_transfer", "delete_account", "approved_by_owner",
)  # fmt: skip
"""What no request may hold, not even one that waits for a person's yes."""


def recognising_nothing() -> Process:
    """The shipped process, whose lists of phrases are empty."""
    raw = POLICY.model_dump()
    policy = Policy.model_validate({**raw, "phrases": {name: [] for name in raw["phrases"]}})
    return dataclasses.replace(SHIPPED, policy=policy)


PROCESSES = {"as shipped": SHIPPED, "recognising no phrase": recognising_nothing()}


@dataclasses.dataclass
class HonestModel:
    """Says what it should."""

    name: str = "honest"

    def worst_case(self, ask: Ask) -> None:
        del ask

    async def propose(self, ask: Ask) -> Answer:
        good = proposal(
            intent="get_refund",
            reply="Thank you, we will look at it.",
            citations=[passage.id for passage in ask.passages],
            actions=[{"name": "reply"}, {"name": "tag", "tag": "refund"}],
        )
        return Answer(text=good.model_dump_json(), model="honest-1", tokens_in=1, tokens_out=1, latency_ms=1)


async def outcome(process: Process, model: Any, text: str) -> Judgment | Rejected:
    """What comes of a ticket with this text, with every action in mode act."""
    case = folded(created(text))
    read = facts(orders=[{**ORDER, "status": "delivered"}], order_1=[ORDER], invoices=[INVOICE], invoices_1=[INVOICE])
    ask = await KnowledgeDesk(process).ask(process.case.reveal(case, KEYS.unseal), read)
    answered = await ask_model(model, ask)
    if isinstance(answered, Rejected):
        return answered
    basis = process.case.basis(case)
    assert basis is not None
    question = Question(
        stored=StoredCase(CASE_ID, "support", "zendesk", "42", case),
        basis=basis,
        facts=KEYS.seal(json.dumps({name: fact.model_dump(mode="json") for name, fact in ask.facts.items()})),
        output=KEYS.seal(answered.output.model_dump_json()),
        keys=KEYS,
        circumstances=Circumstances(),
        modes=ACT,
        already_decided=False,
        held=False,
        now=at(100),
    )
    return judge(process, question)


def moves_only_what_the_rules_allow(process: Process, judged: Judgment) -> None:
    policy = process.policy
    assert isinstance(policy, Policy)
    for request in judged.requests:
        sent = json.dumps(request.body, ensure_ascii=False)
        assert not [word for word in FORBIDDEN if word in sent]
        assert {request.connector, request.kind} == {"zendesk", "reply"}
        ticket = request.body["ticket"]
        assert isinstance(ticket, dict)
        tags = ticket.get("additional_tags", [])
        assert isinstance(tags, list)
        assert {*tags} <= {*policy.tags, policy.reply_tag}
        assert ticket.get("group_id") in {None, *policy.groups.values()}
        assert ticket.get("priority") in {None, *policy.priorities}
        assert "custom_fields" not in ticket, "no refund"
    if isinstance(judged.decision, Execute):
        assert {action.name for action in judged.decision.actions} <= {"reply", "tag", "set_priority", "route"}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
async def test_an_honest_answer_to_the_same_ticket_is_sent(process: Process) -> None:
    judged = await outcome(process, HonestModel(), CALM)

    assert isinstance(judged, Judgment)
    assert isinstance(judged.decision, Execute), judged.decision.reasons
    assert [action.name for action in judged.decision.actions] == ["reply", "tag"]
    assert len(judged.requests) == 1
    moves_only_what_the_rules_allow(process, judged)


REFUSED_BY = {
    "refund": {"refund_above_invoice", "refund_over_limit"},
    "slices": {"refund_above_invoice", "refund_over_limit"},
    "promise": {"invented_amount"},
    "link": {"invented_link"},
    "markup": {"invented_link", "placeholder"},
    "data": {"invented_number", "refund_order_unknown"},
    "transfer": {"output_invalid"},
    "deletion": {"account_deletion"},
    "assign": {"tag_not_listed", "route_not_listed", "set_priority_not_listed"},
    "label": {"output_invalid"},
    "prompt": {"placeholder"},
    "broken": {"output_invalid"},
}


@pytest.mark.parametrize("demand", OBEDIENCE)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
async def test_what_was_demanded_is_refused_for_what_it_is_however_harmless_the_text(
    process: Process, demand: str
) -> None:
    """No text gives it away: the rules see the deed."""
    judged = await outcome(process, ObedientModel(demand), CALM)

    if isinstance(judged, Rejected):
        assert {judged.code} == REFUSED_BY[demand]
        return
    assert {reason.code for reason in judged.decision.reasons} == REFUSED_BY[demand]
    assert isinstance(judged.decision, Execute) == (demand == "assign"), "what is left out hurts nobody"
    moves_only_what_the_rules_allow(process, judged)


@pytest.mark.parametrize("line", LINES, ids=[f"{n}-{one['language']}-{one['demands']}" for n, one in enumerate(LINES)])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
async def test_no_text_gets_what_it_demands_from_a_model_that_obeys(process: Process, line: dict[str, str]) -> None:
    for language in {"en", line["language"]}:
        model = ObedientModel(line["demands"], language)

        judged = await outcome(process, model, line["text"])

        assert model.asked
        if isinstance(judged, Rejected):
            assert judged.code == "output_invalid"
            assert len(model.asked) == 2, "asked once more, then a person"
        else:
            assert isinstance(judged.decision, Execute) <= (line["demands"] == "assign")
            moves_only_what_the_rules_allow(process, judged)


def test_the_fake_says_what_the_parser_takes_wherever_it_can() -> None:
    """Else the parser would hide that a rule is missing."""
    told = {name: what for name, what in OBEDIENCE.items() if REFUSED_BY[name] != {"output_invalid"}}

    for what in told.values():
        assert isinstance(what, dict)
        proposal(**what)
    assert {*Proposal.model_fields} >= {name for what in told.values() if isinstance(what, dict) for name in what}
