"""A regime's digest, and the name of its record."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from services.classifier.domain import prompt
from services.classifier.domain.examples import METHOD
from services.classifier.domain.regime import record_of
from services.classifier.outbound import desk, sources
from services.classifier.outbound.desk import KnowledgeDesk
from services.runtime.process import SHIPPED, load

CLAUDE = "claude:claude-haiku-4-5"


def regime(root: Path, model: str = "nearest") -> str:
    return KnowledgeDesk(load("support", root)).regime(model)


def append(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        with (folder / name).open("a") as file:
            file.write("\nOne more word.\n")

    return change


def drop_an_example(folder: Path) -> None:
    _, others = (folder / "examples.jsonl").read_text().split("\n", 1)
    (folder / "examples.jsonl").write_text(others)


def weigh_words(folder: Path) -> None:
    toml = (folder / "process.toml").read_text()
    (folder / "process.toml").write_text(re.sub(r"\[retrieval\][^[]*", "[retrieval]\nwords = 3\n\n", toml))


def rename_a_group(folder: Path) -> None:
    toml = (folder / "process.toml").read_text()
    (folder / "process.toml").write_text(toml.replace("[policy.groups]", '[policy.groups]\n"night owls" = 7'))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(append("steps/answer/prompt.md"), id="prompt"),
        pytest.param(append("knowledge/review.md"), id="knowledge"),
        pytest.param(lambda folder: (folder / "knowledge/review.md").unlink(), id="a passage less"),
        pytest.param(drop_an_example, id="examples"),
        pytest.param(weigh_words, id="retrieval"),
        pytest.param(rename_a_group, id="words of the policy that the prompt names"),
    ],
)
def test_what_an_answer_depends_on_changes_the_regime(tmp_path: Path, change: Callable[[Path], object]) -> None:
    change(shutil.copytree(SHIPPED / "support", tmp_path / "support"))

    assert regime(tmp_path) != regime(SHIPPED)


def with_more_code(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if somebody had added to that module of the support process."""
    read = sources.source_of

    def source(module: ModuleType) -> str:
        more = "\n\nMORE = 1\n" if module.__name__ == f"processes.support.{name}" else ""
        return read(module) + more

    monkeypatch.setattr(sources, "source_of", source)


@pytest.mark.parametrize("name", ["steps.answer.nearest", "steps.answer.signs", "steps.answer.question", "text"])
def test_the_code_that_answers_is_part_of_the_regime_of_nearest(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = regime(SHIPPED)

    with_more_code(monkeypatch, name)

    assert regime(SHIPPED) != before


def test_what_a_method_or_a_form_stands_for_is_part_of_the_regime_of_who_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = [regime(SHIPPED, model) for model in ("nearest", CLAUDE)]

    monkeypatch.setattr(desk, "METHOD", METHOD + 1)
    new_method = [regime(SHIPPED, model) for model in ("nearest", CLAUDE)]
    monkeypatch.setattr(prompt, "FORM", prompt.FORM + 1)
    new_form = [regime(SHIPPED, model) for model in ("nearest", CLAUDE)]

    assert [a != b for a, b in zip(new_method, before, strict=True)] == [True, False]
    assert [a != b for a, b in zip(new_form, new_method, strict=True)] == [False, True]


@pytest.mark.parametrize(
    ("name", "counts"), [("steps.answer.question", True), ("steps.answer.nearest", False), ("text", False)]
)
def test_a_model_that_is_paid_is_not_proved_anew_for_code_that_it_is_not_shown_by(
    monkeypatch: pytest.MonkeyPatch, name: str, *, counts: bool
) -> None:
    before = regime(SHIPPED, CLAUDE)

    with_more_code(monkeypatch, name)

    assert (regime(SHIPPED, CLAUDE) != before) is counts


@pytest.mark.parametrize("name", ["rules", "refunds", "effects", "objections", "policy"])
def test_rules_and_effects_are_no_part_of_a_regime(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = regime(SHIPPED)

    with_more_code(monkeypatch, name)

    assert regime(SHIPPED) == before


def test_each_model_of_a_process_has_its_own_regime() -> None:
    models = ("nearest", CLAUDE, "ollama:qwen3:8b")

    assert len({regime(SHIPPED, model) for model in models}) == len(models)


def test_what_the_rules_do_about_an_answer_is_no_part_of_it(tmp_path: Path) -> None:
    toml = shutil.copytree(SHIPPED / "support", tmp_path / "support") / "process.toml"
    toml.write_text(toml.read_text().replace("settle_seconds = ", "settle_seconds = 1"))

    assert regime(tmp_path) == regime(SHIPPED)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nearest", "evals.nearest.json"),
        ("claude:claude-haiku-4-5", "evals.claude-claude-haiku-4-5.json"),
        ("ollama:hf.co/a/b:q4", "evals.ollama-hf.co-a-b-q4.json"),
    ],
)
def test_a_record_is_named_by_its_model(model: str, name: str) -> None:
    assert record_of(model) == name


@pytest.mark.parametrize("part", ["steps/answer/prompt.md", "examples.jsonl", "knowledge"])
def test_a_candidate_is_asked_by_the_regime_that_is_live_once_its_files_are(tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(SHIPPED / "support", tmp_path / "support")
    own, live = folder / "candidate" / part, folder / part
    own.parent.mkdir(parents=True)
    if live.is_dir():
        shutil.copytree(live, own)
        append("review.md")(own)
    else:
        shutil.copy(live, own)
        (drop_an_example if part == "examples.jsonl" else append(part))(folder / "candidate")
    candidate = load("support", tmp_path).candidate
    assert candidate is not None
    before, tried = regime(tmp_path), KnowledgeDesk(candidate).regime("nearest")

    if live.is_dir():
        shutil.rmtree(live)
    own.rename(live)

    assert before == regime(SHIPPED)
    assert before != tried == regime_of_a_new_load(tmp_path)


def regime_of_a_new_load(root: Path) -> str:
    """The process elsewhere, for what was read is not read again."""
    return regime(shutil.copytree(root, root / "elsewhere"))
