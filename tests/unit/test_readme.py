"""Whatever README.md tells to type was typed by a test or by .ci/run."""

import ast
import re
import subprocess
import tomllib
from importlib.util import find_spec

import pytest

from nightshift.supervisor import PROJECT
from tests import readme
from tests.readme import from_readme

NOT_RUN = {
    "docker compose --profile monitoring up --wait": "Grafana's image cannot be had everywhere; Prometheus alone can",
    "make bench": "minutes of measuring, which says something on quiet cores alone",
    "nightshift pause": "named in passing; it is run whole, with a process and a reason",
    "--repropose claude:<model> --budget 5": "an account that costs money; a fake model stands in for it in "
    "tests/integration/test_replay_decisions.py",
}
"""Commands that nothing runs, and why."""
MAKEFILE = (PROJECT / "Makefile").read_text()


def run_by_tests() -> set[str]:
    """What a test takes from the README by `from_readme("…")`."""
    texts = [file.read_text() for file in (PROJECT / "tests").rglob("*.py")]
    calls = [
        call
        for text in texts
        if from_readme.__name__ in text
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == from_readme.__name__
    ]
    return {
        one.value for call in calls for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
    }


def run_by_ci() -> set[str]:
    return set(re.findall(r"^ *(make\b.*?)(?: +#.*)?$", (PROJECT / ".ci/run").read_text(), re.MULTILINE))


def test_every_command_is_run_by_a_test_or_by_ci_or_it_is_said_why_not() -> None:
    run = run_by_tests() | run_by_ci()

    assert readme.commands() - run - NOT_RUN.keys() == set()
    assert NOT_RUN.keys() & run == set()
    assert NOT_RUN.keys() | run_by_tests() <= readme.commands()


def test_every_line_that_is_set_in_is_taken_for_a_command_but_the_drawing_and_settings() -> None:
    others = [line for line in readme.lines_set_in() if line not in readme.commands()]

    drawn = [line for line in others if re.search("[─│]", line)]
    assert len(drawn) == 3
    assert tomllib.loads("\n".join(line for line in others if line not in drawn)), "the rest is settings"


def test_make_lists_every_target() -> None:
    listed = subprocess.check_output(["bash", "-c", from_readme("make")], cwd=PROJECT, text=True)

    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert re.findall(r"^  make (\S+)", listed, re.MULTILINE) == phony[1].split()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", MAKEFILE))))
def test_make_starts_only_what_is_there(module: str) -> None:
    spec = find_spec(module)

    assert spec is not None
    assert spec.submodule_search_locations is None or find_spec(f"{module}.__main__") is not None
