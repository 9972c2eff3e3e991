"""Evals: what a file may hold, what a result says, and what blocks a change."""

import json
import math
import shutil
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from nightshift.evals.examples import Eval, EvalsInvalidError, read
from nightshift.evals.result import (
    Answered,
    Result,
    ResultInvalidError,
    Row,
    Share,
    compare,
    from_lines,
    mcnemar,
)
from nightshift.evals.run import run_evals
from processes.support.steps.answer.output import Proposal
from services.classifier.outbound.desk import KnowledgeDesk
from services.classifier.ports import Answer, Ask
from services.runtime.process import SHIPPED, load
from tests.fakes.proposing import ScriptedModel

GOOD = '{"text": "Where is my parcel?", "expected": {"intent": "track_order"}}'


def row(name: str, *got: str, must_pass: bool = False) -> Row:
    """An eval that expects `a`."""
    answers = [Answered(got={"intent": one}, confidence=0.9, verdict="execute") for one in got]
    return Row(id=name, must_pass=must_pass, expected={"intent": "a"}, answers=tuple(answers))


def result(*rows: Row) -> Result:
    return Result(process="tiny", model="nearest", regime="r", evals="e", times=1, cost_usd=Decimal("0.02"), rows=rows)


def blocks(
    now: Result, before: Result | None = None, *, floors: Mapping[str, float] | None = None, accept: str = ""
) -> int:
    return len(compare(now, before, floors=floors or {}, accepted=frozenset(accept.split())).blocks)


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ("{", "line 2: no JSON"),
        ('{"text": "a", "label": "b", "expected": {"intent": "review"}}', "line 2: label: .*fields are text, subject"),
        ('{"text": "a", "expected": {}}', "line 2: expected: "),
        (
            '{"text": "a", "expected": {"intend": "review"}}',
            "line 2: expected.intend: no field .* it has conf",
        ),
        ('{"text": "a", "expected": {"intent": "track_ordr"}}', "line 2: expected.intent: .*'track_order'"),
        ('{"text": "a", "expected": {"language": "EN"}}', "line 2: expected.language: "),
        ('{"text": "a", "expected": {"intent": "?"}}', "line 2: expected.intent: say what is right"),
        ('{"text": "a", "expected": {"intent": "?"}, "candidate": {}}', "line 2: a candidate from the log: say in"),
        ("[" * 100_000, "line 2: it nests too deeply"),
        (GOOD, "line 2: this text was there before"),
    ],
)
def test_a_line_that_is_wrong_is_refused_with_its_number_and_the_mend(tmp_path: Path, line: str, mend: str) -> None:
    (file := tmp_path / "evals.jsonl").write_text(f"{GOOD}\n{line}\n")

    with pytest.raises(EvalsInvalidError, match=mend):
        read(file, Proposal)


@pytest.mark.parametrize(
    ("content", "mend"),
    [(b"", "is empty"), (GOOD.encode() + b'\n{"text": "\xe9"}', "line 2: this is no UTF-8: save the file as UTF-8")],
)
def test_a_file_that_is_empty_or_written_otherwise_is_refused(tmp_path: Path, content: bytes, mend: str) -> None:
    (file := tmp_path / "evals.jsonl").write_bytes(content)

    with pytest.raises(EvalsInvalidError, match=mend):
        read(file, Proposal)


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"], ids=["line", "paragraph", "next line"])
def test_what_ends_a_line_elsewhere_ends_no_eval(tmp_path: Path, end: str) -> None:
    """A customer's words may hold it, and so does a line of --from-log."""
    line = GOOD.replace("my", f"my{end}")
    (file := tmp_path / "evals.jsonl").write_text(f"{line}\n", encoding="utf-8")

    assert [one.text for one in read(file, Proposal)] == [f"Where is my{end} parcel?"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(EvalsInvalidError, match="is not there"):
        read(tmp_path / "evals.jsonl", Proposal)


def test_an_eval_is_right_by_most_of_its_answers_and_flickers_when_they_differ() -> None:
    rows = [row("1", "a", "a", "b"), row("2", "a", "b"), row("3", "a", "a")]

    assert [(one.right, one.flickers) for one in rows] == [(True, True), (False, True), (True, False)]
    assert result(*rows).fields() == {"intent": Share(5, 7)}
    assert result(*rows).confused("intent") == [("a", "b", 2)]
    assert result(*rows).verdicts() == {"execute": Share(5, 7)}


def test_an_answer_that_failed_the_schema_is_wrong_in_every_field() -> None:
    failed = Row(
        id="1",
        must_pass=False,
        expected={"intent": "a"},
        answers=(Answered(got={}, confidence=0, verdict="dead letter"),),
    )

    assert result(failed).fields() == {"intent": Share(0, 1)}
    assert result(failed).confused("intent") == [("a", "nothing", 1)]


def test_an_interval_is_wilson_s() -> None:
    """Of 81 right of 263: Newcombe 1998, Statistics in Medicine 17, 857-872, table I."""
    low, high = Share(81, 263).interval

    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert Share(10, 10).interval[1] == pytest.approx(1)


def test_mcnemar_s_test_is_the_sign_test_on_what_changed() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == pytest.approx(0.623046875)
    assert mcnemar(10, 0) == pytest.approx(1 / 1024)
    assert math.isfinite(mcnemar(3000, 3000))


def test_a_field_below_its_floor_blocks_and_at_its_floor_does_not() -> None:
    now = result(row("1", "a"), row("2", "a"), row("3", "a"), row("4", "b"))

    assert blocks(now, floors={"intent": 0.75}) == 0
    assert blocks(now, floors={"intent": 0.76}) == 1
    assert blocks(now, floors={"urgency": 0.1}) == 1


def test_an_eval_that_must_pass_blocks_when_it_newly_fails_and_cannot_be_accepted() -> None:
    right, wrong = result(row("1", "a", must_pass=True)), result(row("1", "b", must_pass=True))

    assert blocks(right) == blocks(right, wrong) == 0
    assert blocks(wrong) == blocks(wrong, right) == blocks(wrong, right, accept="1") == 1
    assert blocks(wrong, wrong) == 0, "it is no news"


def test_another_eval_that_newly_fails_blocks_until_it_is_accepted_by_name() -> None:
    before, now = result(row("1", "a"), row("2", "b")), result(row("1", "b"), row("2", "a"), row("3", "b"))

    found = compare(now, before, floors={})

    assert [(flip.row.id, flip.better) for flip in found.flips] == [("1", False), ("2", True)]
    assert len(found.blocks) == 1
    assert "--accept 1" in found.blocks[0]
    assert blocks(now, before, accept="1") == 0
    assert blocks(now) == 0, "without a result before it nothing newly fails"


@pytest.mark.parametrize(("worse", "better", "blocked"), [(5, 0, 1), (4, 0, 0), (12, 5, 0), (13, 4, 1)])
def test_above_two_hundred_evals_chance_is_told_from_a_change(worse: int, better: int, blocked: int) -> None:
    def told(n: int, *, now: bool) -> str:
        changed = n < worse + better
        return "a" if (not changed or (n < worse) != now) else "b"

    before, now = (result(*(row(str(n), told(n, now=when)) for n in range(201))) for when in (False, True))

    assert blocks(now, before) == blocked


def test_a_result_is_read_as_it_was_written_and_a_changed_answer_is_a_changed_line() -> None:
    one, other = result(row("2", "a"), row("1", "b")), result(row("2", "b"), row("1", "b"))

    lines, others = one.to_lines().splitlines(), other.to_lines().splitlines()

    assert from_lines(one.to_lines(), "x").to_lines() == one.to_lines()
    assert {r.id: r for r in from_lines(one.to_lines(), "x").rows} == {r.id: r for r in one.rows}
    assert sum(mine != theirs for mine, theirs in zip(lines, others, strict=True)) == 1
    assert json.loads(one.to_lines())["rows"][0]["id"] == "1"


def test_a_file_that_is_no_result_is_told_with_the_mend() -> None:
    with pytest.raises(ResultInvalidError, match=r"baseline\.json is no result .* write it anew with --write"):
        from_lines('{"process": "tiny"}', "baseline.json")


def test_what_is_put_on_record_says_what_it_was_compared_with_and_what_was_let_fail() -> None:
    before = result(row("1", "a"))
    first = before.as_passed(None, frozenset()).passed
    changed = result(row("1", "b")).model_copy(update={"regime": "s"}).as_passed(before, frozenset("1"))
    again = result(row("1", "b")).model_copy(update={"regime": "s"}).as_passed(changed, frozenset())

    assert first is not None
    assert (first.against, first.accepted) == (None, ())
    assert changed.passed is not None
    assert (changed.passed.against, changed.passed.accepted) == ("r", ("1",))
    assert again.passed == changed.passed, "asked again it is still the one that was compared"


def test_what_the_rules_let_out_before_and_do_not_now_is_listed_and_blocks_nothing() -> None:
    """All knowledge gone, and every label is right as before."""
    let_out, held = row("1", "a", "a", "b"), row("1", "a")
    held = held.model_copy(update={"answers": (held.answers[0].model_copy(update={"verdict": "hold"}),)})

    found = compare(result(held, row("2", "a")), result(let_out), floors={})

    assert ([one.id for one in found.newly_held], found.blocks, found.flips) == (["1"], [], [])
    assert compare(result(let_out), result(held), floors={}).newly_held == []


def test_what_had_to_pass_and_need_not_now_is_listed() -> None:
    before = result(*(row(name, "a", must_pass=True) for name in "123"), row("4", "a"))

    found = compare(result(row("1", "a", must_pass=True), row("2", "b")), before, floors={}, accepted=frozenset("2"))

    assert (found.need_not_pass, found.blocks) == (["2", "3"], [])


class Meanwhile(ScriptedModel):
    """While it is asked, somebody writes."""

    def __init__(self, prompt: Path) -> None:
        super().__init__(name="nearest")
        self.prompt = prompt

    async def propose(self, ask: Ask) -> Answer:
        self.prompt.write_text("Be rude.")
        return await super().propose(ask)


async def test_a_result_is_of_what_was_asked_whatever_somebody_writes_meanwhile(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED / "support", tmp_path / "support")
    process = load("support", tmp_path)
    before = KnowledgeDesk(process).regime("nearest")
    model = Meanwhile(folder / "steps" / "answer" / "prompt.md")

    ran = await run_evals(process, [Eval(text="Where is it?", expected={"intent": "track_order"})], model, times=1)

    assert ran.result.regime == before
    assert KnowledgeDesk(process).regime("nearest") != before
