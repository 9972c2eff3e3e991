"""What is tried without a database is what the service would do: the same passages, the same models in turn."""

import socket

import pytest

from contracts.knowledge import Question
from nightshift.evals.examples import Eval
from nightshift.evals.run import run_evals
from nightshift.reach import process_named
from nightshift.trial import Customer, attempt, desk_for
from services.classifier.outbound.desk import library_of
from services.classifier.outbound.passages_in_memory import PassagesInMemory
from services.runtime.process import load
from tests.fakes.proposing import ScriptedModel

TEXT = "I was charged a fee for the cancellation of my order, is that right?"


async def test_an_eval_shows_a_model_what_the_service_would_show_it() -> None:
    support, model = load("support"), ScriptedModel(name="claude:m", answers=["{}"])
    one = Eval.model_validate({"text": TEXT, "expected": {"intent": "get_refund"}})

    await run_evals(support, [one], model, times=1)

    question = Question(text=model.asked[0].question.text, brand=None, language="en")
    searched = await PassagesInMemory(library_of(support), support.settings.retrieval).find(question)
    assert (model.asked[0].passages, model.asked[0].index_version) == (searched.passages, searched.index_version)
    assert searched.index_version != library_of(support).index_version


@pytest.mark.parametrize(
    ("settings", "model", "searches"),
    [
        ("", "nearest", False),
        ("", "claude:m", True),
        ('support.model.fallback = ["claude:m"]', "nearest", True),
        ('support.model.default = "claude:m"\nsupport.model.fallback = ["nearest"]', "nearest", True),
        ('support.model.default = "claude:m"', "nearest", False),
    ],
)
async def test_nearest_is_shown_what_a_search_finds_where_a_model_beside_it_is(
    monkeypatch: pytest.MonkeyPatch, settings: str, model: str, *, searches: bool
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_PROCESS_OVERRIDES", settings)
    support = process_named("support")

    desk = desk_for(support, model)

    assert isinstance(desk._finds, PassagesInMemory) == searches


async def test_a_trial_asks_the_models_of_the_settings_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:  # bound, and nobody listens
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NIGHTSHIFT_OLLAMA_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("NIGHTSHIFT_MODEL", "ollama:m:1b")
        monkeypatch.setenv("NIGHTSHIFT_PROCESS_OVERRIDES", 'support.model.fallback = ["nearest"]')

        tried = await attempt(process_named("support"), Customer(text=TEXT), None)

    assert tried.output is not None
    assert [(one.model, one.code) for one in tried.failed] == [("ollama:m:1b", "model_unreachable")]
