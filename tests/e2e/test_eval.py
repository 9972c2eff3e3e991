"""`nightshift eval` as it is typed, on the support process: no server runs."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nightshift import MendableError
from nightshift.__main__ import build, main
from nightshift.evals.examples import read
from nightshift.evals.result import from_lines
from processes.support.steps.answer.output import Proposal
from services.classifier.config import Settings
from services.classifier.outbound.desk import KnowledgeDesk
from services.runtime.process import SHIPPED, ProcessInvalidError, load_all
from tests.readme import from_readme

RECORD = SHIPPED / "support" / "evals.nearest.json"


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(build(), ["eval", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the support process, which the commands take."""
    monkeypatch.setenv("NIGHTSHIFT_PROCESSES_FOLDER", str(tmp_path))
    return shutil.copytree(SHIPPED / "support", tmp_path / "support")


def test_the_recorded_result_of_nearest_is_the_one_of_today_s_prompt_examples_and_knowledge(folder: Path) -> None:
    """Whoever changes one of them runs the evals and commits what they say."""
    done = typed("support", "--write")

    assert done.exit_code == 0, done.output
    assert (folder / RECORD.name).read_text() == RECORD.read_text()


def test_what_does_not_pass_is_not_put_on_record(folder: Path) -> None:
    settings = (folder / "process.toml").read_text()
    (folder / "process.toml").write_text(settings.replace("[evals.floors]", "[evals.floors]\nconfidence = 1.0"))

    blocked = typed("support", "--write")

    assert blocked.exit_code == 1
    assert "not on record" in blocked.output
    assert (folder / RECORD.name).read_text() == RECORD.read_text()


def test_what_was_right_before_and_is_wrong_blocks_until_it_is_accepted(tmp_path: Path) -> None:
    recorded = from_lines(RECORD.read_text(), RECORD.name)
    wrong = next(row for row in recorded.rows if not row.right and not row.must_pass)
    flattered = recorded.model_copy(
        update={
            "rows": tuple(
                row
                if row.id != wrong.id
                else row.model_copy(update={"answers": (row.answers[0].model_copy(update={"got": row.expected}),)})
                for row in recorded.rows
            )
        }
    )
    (before := tmp_path / "before.json").write_text(flattered.to_lines())
    against = shlex.split(from_readme("--against FILE").replace("FILE", str(before)))

    blocked = typed("support", *against, "--json")
    accept = shlex.split(from_readme("--accept ID").replace("ID", wrong.id))
    accepted = typed("support", *against, *accept)

    assert blocked.exit_code == 1
    assert json.loads(blocked.output)["newly_wrong"] == [wrong.id]
    assert f"--accept {wrong.id}" in json.loads(blocked.output)["blocks"][0]
    assert accepted.exit_code == 0
    assert f"newly wrong: {wrong.id}" in accepted.output


def test_an_examples_file_that_changed_is_another_regime(folder: Path) -> None:
    lines = (folder / "examples.jsonl").read_text().splitlines()
    (folder / "examples.jsonl").write_text("\n".join(lines[:-1]))

    done = typed("support", *shlex.split(from_readme("--model nearest")), "--json")

    assert json.loads(done.output)["regime"] != from_lines(RECORD.read_text(), RECORD.name).regime


def test_settings_that_go_before_process_toml_count_as_they_do_for_the_classifier(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_PROCESS_OVERRIDES", 'support.policy.priorities = ["urgent"]')
    settings = Settings(database_url="", kafka_bootstrap="", processes_folder=folder.parent)

    done = typed("support", "--json")

    assert json.loads(done.output)["regime"] == KnowledgeDesk(load_all(settings)["support"]).regime("nearest")
    assert json.loads(done.output)["regime"] != from_lines(RECORD.read_text(), RECORD.name).regime


def test_a_fallback_that_cannot_be_asked_keeps_no_eval_of_the_first_choice_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_PROCESS_OVERRIDES", 'support.model.fallback = ["claude:claude-haiku-4-5"]')

    done = typed("support", "--json")

    assert json.loads(done.output)["model"] == "nearest", done.output


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        (["--accept", "nosuch"], "no eval has this id"),
        (["--against", "nosuch.json"], "name a file made with --write"),
        (["--model", "nosuch"], "nosuch"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_asked(options: list[str], mend: str) -> None:
    failed = typed("support", *options)

    assert failed.exit_code != 0
    assert mend in str(failed.exception)


@pytest.mark.parametrize(("count", "passes"), [(19, False), (20, True)])
def test_few_evals_put_nothing_on_record(folder: Path, count: int, *, passes: bool) -> None:
    right = [row.id for row in from_lines(RECORD.read_text(), RECORD.name).rows if row.right]
    chosen = [one for one in read(folder / "evals.jsonl", Proposal) if one.id in right][:count]
    (folder / "evals.jsonl").write_text("".join(f"{one.model_dump_json()}\n" for one in chosen))
    (folder / RECORD.name).unlink()

    done = typed("support", "--write")

    assert ((folder / RECORD.name).exists(), done.exit_code == 0) == (passes, passes), done.output
    assert ("19 evals say too little: label 20 or more" in done.output) is not passes


def test_a_record_of_another_process_is_nothing_to_compare_with(tmp_path: Path) -> None:
    (other := tmp_path / "other.json").write_text(RECORD.read_text().replace('"support"', '"content"', 1))

    failed = typed("support", "--against", str(other))

    assert f"{other} is a record of content: name one of support" in str(failed.exception)


def test_a_model_that_is_asked_often_and_answers_alike_does_not_flicker() -> None:
    done = typed("support", *shlex.split(from_readme("--times 5")), "--json")

    told = json.loads(done.output)
    assert told["fields"]["intent"]["of"] == 5 * len(from_lines(RECORD.read_text(), RECORD.name).rows)
    assert told["flickering"] == []


@pytest.mark.parametrize(
    ("part", "line", "content"),
    [
        ("knowledge/review.md", 3, b"+++\n# 1\n# caf\xe9\n"),
        ("knowledge/review.md", 2, b"+++\ntitel = 1\n+++\n"),
        ("examples.jsonl", 2, b'{"text": "a", "label": "a"}\n{"text": "caf\xe9", "label": "a"}\n'),
        ("examples.jsonl", 1, b'{"text": "a", "label": "a", "lable": "b"}\n'),
        ("steps/answer/prompt.md", 2, b"Answer.\ncaf\xe9\n"),
        ("steps/answer/prompt.md", 2, b"Answer.\n{{policy.nosuch}}\n"),
    ],
)
def test_a_file_of_the_process_that_cannot_be_used_is_refused_with_its_line(
    folder: Path, part: str, line: int, content: bytes
) -> None:
    (folder / part).write_bytes(content)

    failed = typed("support")

    assert isinstance(failed.exception, MendableError | ProcessInvalidError)
    assert f"{folder / part}, line {line}: " in str(failed.exception)


def test_what_a_person_can_mend_is_no_unexpected_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (prices := tmp_path / "prices.toml").write_bytes(b"# caf\xe9\n")
    (folder / "steps" / "answer" / "prompt.md").write_bytes(b"caf\xe9")
    monkeypatch.setattr(sys, "argv", ["nightshift", "eval", "support"])
    with pytest.raises(SystemExit):
        main()
    monkeypatch.setenv("NIGHTSHIFT_PRICES_FILE", str(prices))
    with pytest.raises(SystemExit):
        main()

    said = capsys.readouterr().err
    assert "prompt.md, line 1: this is no UTF-8: save the file as UTF-8" in said
    assert "NIGHTSHIFT_PRICES_FILE names is in line 1 no longer UTF-8: save it as UTF-8" in said
    assert "unexpected" not in said


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_it(folder: Path) -> None:
    for part in ("knowledge/review.md", "examples.jsonl", "steps/answer/prompt.md", "evals.jsonl"):
        (folder / part).write_bytes(b"\xef\xbb\xbf" + (folder / part).read_bytes())

    done = typed("support", "--json")

    assert json.loads(done.output)["regime"] == from_lines(RECORD.read_text(), RECORD.name).regime


def test_a_candidate_is_asked_compared_with_what_is_live_and_put_on_record_beside_itself(folder: Path) -> None:
    prompt = folder / "candidate" / "steps" / "answer" / "prompt.md"
    prompt.parent.mkdir(parents=True)
    prompt.write_text((folder / "steps" / "answer" / "prompt.md").read_text() + "\nBe kind.\n")

    line = shlex.split(from_readme("nightshift eval support --candidate --write"))
    done = typed(*line[2:], "--json")

    assert done.exit_code == 0, done.output
    live = from_lines(RECORD.read_text(), RECORD.name)
    record = from_lines((folder / "candidate" / RECORD.name).read_text(), RECORD.name)
    assert json.loads(done.output)["regime"] == record.regime != live.regime
    assert record.passed is not None
    assert record.passed.against == live.regime
    assert (folder / RECORD.name).read_text() == RECORD.read_text()


def test_without_a_candidate_there_is_none_to_ask(folder: Path) -> None:
    failed = typed("support", "--candidate")

    assert failed.exit_code != 0
    assert f"put a prompt.md, examples.jsonl or knowledge/ into {folder / 'candidate'}" in str(failed.exception)
