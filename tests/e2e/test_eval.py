"""`nightshift eval` as it is typed, on the support process: no server runs."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nightshift.__main__ import build
from nightshift.evals.result import from_lines
from nightshift.supervisor import PROJECT
from services.runtime.process import SHIPPED
from tests.readme import from_readme

RECORD = SHIPPED / "support" / "evals.nearest.json"


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(build(), ["eval", *arguments])


def test_the_recorded_result_of_nearest_is_the_one_of_today_s_prompt_examples_and_knowledge(tmp_path: Path) -> None:
    """Whoever changes one of them runs the evals and commits what they say."""
    against = from_readme("nightshift eval support --against processes/support/evals.nearest.json")
    write = from_readme("nightshift eval support --write processes/support/evals.nearest.json")
    assert RECORD == PROJECT / shlex.split(against)[-1] == PROJECT / shlex.split(write)[-1]

    done = typed("support", "--against", str(RECORD), "--write", str(tmp_path / "now.json"))

    assert done.exit_code == 0, done.output
    assert (tmp_path / "now.json").read_text() == RECORD.read_text()


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

    blocked = typed("support", "--against", str(before), "--json")
    accept = shlex.split(from_readme("--accept ID").replace("ID", wrong.id))
    accepted = typed("support", "--against", str(before), *accept)

    assert blocked.exit_code == 1
    assert json.loads(blocked.output)["newly_wrong"] == [wrong.id]
    assert f"--accept {wrong.id}" in json.loads(blocked.output)["blocks"][0]
    assert accepted.exit_code == 0
    assert f"newly wrong: {wrong.id}" in accepted.output


def test_an_examples_file_that_changed_is_another_regime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SHIPPED / "support", folder := tmp_path / "support")
    lines = (folder / "examples.jsonl").read_text().splitlines()
    (folder / "examples.jsonl").write_text("\n".join(lines[:-1]))
    monkeypatch.setenv("NIGHTSHIFT_PROCESSES_FOLDER", str(tmp_path))

    done = typed("support", *shlex.split(from_readme("--model nearest")), "--json")

    assert json.loads(done.output)["regime"] != from_lines(RECORD.read_text(), RECORD.name).regime


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


def test_a_model_that_is_asked_often_and_answers_alike_does_not_flicker() -> None:
    done = typed("support", *shlex.split(from_readme("--times 5")), "--json")

    told = json.loads(done.output)
    assert told["fields"]["intent"]["of"] == 5 * len(from_lines(RECORD.read_text(), RECORD.name).rows)
    assert told["flickering"] == []
