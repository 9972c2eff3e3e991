"""Numbers that stand for code in a regime: whoever changes what the code does raises them, and says so here.

    python -m tests.unit.classifier.test_raised

writes anew what they stand for.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bitext import HELD_OUT
from contracts.decision import FactAnswer
from contracts.knowledge import Passage, Question
from services.classifier.domain import knowledge, prompt
from services.classifier.domain.examples import METHOD, Examples, parse
from services.classifier.outbound.embeddings import WordLlamaEmbedder

SAID = Path(__file__).parents[2] / "data" / "raised.json"
OTHERS = ["", "42", "What is the capital of France?", "Lorem ipsum dolor sit amet", "BUY NOW!!! https://example.com"]
FACTS = {"customer": FactAnswer(name="customer", ok=True, rows=({"name": "Ada <Adler>"},))}
PASSAGE = Passage(
    id="times", title="Times & days", intents=("period",), brand="any", language="en", text="3", reply="r", version="v"
)

QUESTION = Question(text="?", brand=None, language="en")


def voted() -> list[tuple[str, float, str]]:
    """What every third held-out message says about some of the others, and about what is nobody's business.

    And which of them would be chosen, were they passages.
    """
    held_out = parse(HELD_OUT.read_text(encoding="utf-8"))
    embedder = WordLlamaEmbedder()
    examples = Examples([e.label for e in held_out[::3]], embedder.embed([e.text for e in held_out[::3]]))
    known = [replace(PASSAGE, id=str(i), intents=(e.label,), text=e.text) for i, e in enumerate(held_out[2::9])]
    vectors = embedder.embed([passage.text for passage in known])
    found = []
    for vector in embedder.embed([*(e.text for e in held_out[1::18]), *OTHERS]):
        vote = examples.vote(vector)
        chosen = knowledge.choose(known, vectors, vector, QUESTION, vote.shares, "en")
        found.append((vote.label, vote.confidence, " ".join(sorted(passage.id for passage in chosen))))
    return found


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
    labels, sure, chosen = zip(*voted(), strict=True)
    labels_said, sure_said, chosen_said = zip(*said["voted"], strict=True)
    assert (labels, chosen) == (labels_said, chosen_said), "raise METHOD, and write it anew"
    assert sure == pytest.approx(sure_said, abs=0.005), "as above"


def test_what_a_model_is_shown_is_what_its_form_stands_for(said: dict[str, Any]) -> None:
    assert said["form"] == prompt.FORM, "write it anew"
    assert shown() == said["shown"], "raise FORM, and write it anew"


if __name__ == "__main__":
    new = {"method": METHOD, "voted": voted(), "form": prompt.FORM, "shown": shown()}
    SAID.write_text(json.dumps(new, ensure_ascii=False) + "\n", encoding="utf-8")
