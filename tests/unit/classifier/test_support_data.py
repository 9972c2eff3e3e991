"""The knowledge, examples and evals that come with the support process."""

import json
import re
from collections import Counter

import pytest

from benchmarks.bitext import HELD_OUT, Row, cut, is_worlds
from contracts.knowledge import Passage
from nightshift.evals import examples as evals
from processes.support import text
from processes.support.steps.answer.output import Intent
from services.classifier.domain.examples import Example, parse
from services.classifier.domain.knowledge import parse as parse_passage
from services.classifier.outbound.desk import KnowledgeDesk
from services.classifier.outbound.embeddings import plain_text
from services.runtime.process import SHIPPED, load
from tests.fakes.obedient import OBEDIENCE
from tests.unit.support.tickets import POLICY

SUPPORT = SHIPPED / "support"
EVALS = evals.read(SUPPORT / evals.FILE, load("support").Proposal)
INTENTS = {*Intent.__args__}  # type: ignore[attr-defined]  # a Literal's
PASSAGES = [parse_passage(file.stem, file.read_text()) for file in sorted((SUPPORT / "knowledge").glob("*.md"))]
BLANKS = {
    "order_number", "placed_on", "shipped_on", "delivery_due", "carrier", "tracking", "invoice_number",
    "invoice_issued_on", "invoice_total", "refund_amount", "refunded_amount",
}  # fmt: skip


def read(name: str) -> tuple[Example, ...]:
    return parse((SUPPORT / name).read_text())


@pytest.mark.parametrize("one", PASSAGES, ids=lambda passage: passage.id)
def test_a_passage_can_be_filled_and_proves_its_own_links(one: Passage) -> None:
    assert {*one.intents} <= INTENTS
    assert one.brand == "any" or one.brand in POLICY.brands
    assert {*re.findall(r"\{\{(\w+)\}\}", one.reply)} <= BLANKS
    assert text.links(one.reply) <= text.links(one.text)
    assert all(link.startswith("https://help.example.com/") for link in text.links(f"{one.text}\n{one.reply}"))
    assert not text.has_placeholder(re.sub(r"\{\{\w+\}\}", "5", one.reply))


def test_every_intent_has_knowledge_and_two_brands_have_their_own() -> None:
    assert {intent for p in PASSAGES if p.language == "en" for intent in p.intents} == INTENTS - {"out_of_scope"}
    assert len(PASSAGES) >= 30
    assert {"any", "7002"} <= {p.brand for p in PASSAGES}


def test_every_intent_has_examples() -> None:
    counts = Counter(example.label for example in read("examples.jsonl"))

    assert set(counts) == INTENTS
    assert min(counts.values()) >= 20


def test_every_intent_is_evaluated() -> None:
    assert {one.expected["intent"] for one in EVALS} == INTENTS
    assert len(EVALS) >= 100


def test_no_text_is_in_two_places() -> None:
    places = [
        {one.text for one in read("examples.jsonl")},
        {one.text for one in EVALS},
        {one.text for one in parse(HELD_OUT.read_text())},
    ]
    texts = [plain_text(text) for place in places for text in place]

    assert [t for t, n in Counter(texts).items() if n > 1] == []


def test_messages_of_the_worlds_share_are_left_to_it() -> None:
    labelled = [*read("examples.jsonl"), *parse(HELD_OUT.read_text())]
    taken = [(one.text, one.source) for one in labelled] + [(one.text, one.source) for one in EVALS]

    assert not [text for text, source in taken if source == "bitext" and is_worlds(text)]


def test_the_cut_is_the_same_in_any_order_and_takes_a_text_once() -> None:
    rows = [Row(f"please do {'x' * n}", "cancel") for n in range(200)]
    again = [Row("please do x 12", "cancel"), *reversed(rows)]

    slices = cut(rows)
    assert [len(part) for part in slices] == [24, 1, 40]
    assert not {*slices.examples} & {*slices.evals, *slices.held_out}
    assert cut(list(reversed(rows))) == slices
    assert len({row.text for part in cut(again) for row in part}) == 65


def test_instructions_name_the_lists_of_the_policy() -> None:
    process = load("support")
    instructions = KnowledgeDesk(process)._instructions

    assert "{{policy" not in instructions
    assert ", ".join(POLICY.tags) in instructions
    assert "never an instruction" in instructions


def test_injections_are_many_in_four_languages_by_many_techniques_and_none_comes_twice() -> None:
    file = SHIPPED.parent / "tests" / "data" / "injections.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    languages = Counter(line["language"] for line in lines)

    assert set(languages) == {"en", "de", "fr", "es"}
    assert languages.total() >= 60
    assert min(languages.values()) >= 15
    assert len({line["technique"] for line in lines}) >= 12
    assert {line["demands"] for line in lines} == OBEDIENCE.keys()
    assert len({line["text"] for line in lines}) == len(lines)
