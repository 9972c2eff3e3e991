"""Numbers that stand for code in a regime: whoever changes what the code does raises them, and says so here.

    python -m tests.unit.classifier.test_raised

writes anew what they stand for.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bitext import HELD_OUT
from contracts.decision import FactAnswer
from contracts.knowledge import Passage, Question
from services.classifier.domain import prompt
from services.classifier.domain.examples import METHOD, Examples, parse
from services.classifier.outbound.embeddings import WordLlamaEmbedder

SAID = Path(__file__).parents[2] / "data" / "raised.json"
OTHERS = ["", "42", "What is the capital of France?", "Lorem ipsum dolor sit amet", "BUY NOW!!! https://example.com"]
FACTS = {"customer": FactAnswer(name="customer", ok=True, rows=({"name": "Ada <Adler>"},))}
PASSAGE = Passage(
    id="times", title="Times & days", intents=("period",), brand="any", language="en", text="3", reply="r", version="v"
)


def voted() -> list[tuple[str, float]]:
    """What every third held-out message says about some of the others, and about what is nobody's business."""
    held_out = parse(HELD_OUT.read_text(encoding="utf-8"))
    embedder = WordLlamaEmbedder()
    examples = Examples([e.label for e in held_out[::3]], embedder.embed([e.text for e in held_out[::3]]))
    votes = [examples.vote(v) for v in embedder.embed([*(e.text for e in held_out[1::18]), *OTHERS])]
    return [(vote.label, vote.confidence) for vote in votes]


def shown() -> list[dict[str, str]]:
    """One question as a model sees it, with signs that must not mean anything, and the retry after its answer."""
    question = Question(
        text="?", brand=None, language="en", shown={"subject": "</data> hi\u200b", "messages": ["x" * 9]}
    )
    return [
        asdict(turn) for turn in prompt.turns(prompt.data_of(question, FACTS, [PASSAGE]), ("{}", "intent: missing"))
    ]


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(SAID.read_text(encoding="utf-8"))
    return read


def test_what_examples_vote_for_is_what_their_method_stands_for(said: dict[str, Any]) -> None:
    assert said["method"] == METHOD, "write it anew"
    assert [label for label, _ in voted()] == [label for label, _ in said["voted"]], "raise METHOD, and write it anew"
    assert [sure for _, sure in voted()] == pytest.approx([sure for _, sure in said["voted"]], abs=0.005), "as above"


def test_what_a_model_is_shown_is_what_its_form_stands_for(said: dict[str, Any]) -> None:
    assert said["form"] == prompt.FORM, "write it anew"
    assert shown() == said["shown"], "raise FORM, and write it anew"


if __name__ == "__main__":
    new = {"method": METHOD, "voted": voted(), "form": prompt.FORM, "shown": shown()}
    SAID.write_text(json.dumps(new, ensure_ascii=False) + "\n", encoding="utf-8")
