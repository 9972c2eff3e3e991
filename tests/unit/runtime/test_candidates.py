"""A candidate: what it has of its own, and which cases are of a share."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from services.runtime.candidates import Order, place_of
from services.runtime.process import SHIPPED, Process, ProcessInvalidError, Retrieval, load
from tests.fakes.acting import tiny
from tests.fakes.events import NOW


def order(percent: int, mode: Any = "shadow") -> Order:
    return Order(
        mode=mode, percent=percent, model="m", regime="r", generation=1, reason="", changed_by="ana", changed_at=NOW
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED / "support", tmp_path / "support")
    return tmp_path


def put(root: Path, part: str, text: str = "Be kind.") -> None:
    file = root / "support" / "candidate" / part
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def candidate(root: Path) -> Process:
    found = load("support", root).candidate
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("case_id", "place"),
    [("support:zendesk:1", 40), ("support:zendesk:2", 98), ("support:zendesk:42", 90), ("tiny:none:1", 0)],
)
def test_a_case_has_the_same_place_for_ever(case_id: str, place: int) -> None:
    assert place_of(case_id) == place


@given(st.text(), st.integers(0, 100), st.integers(0, 100))
def test_a_larger_share_only_adds_cases(case_id: str, one: int, other: int) -> None:
    smaller, larger = sorted((one, other))

    assert order(larger).takes("shadow", case_id) or not order(smaller).takes("shadow", case_id)


def test_a_share_is_about_as_large_as_it_says() -> None:
    taken = sum(order(20).takes("shadow", f"support:zendesk:{n}") for n in range(10_000))

    assert abs(taken - 2000) < 200


@pytest.mark.parametrize(("percent", "all_of_them"), [(0, False), (100, True)])
def test_nothing_and_everything_are_shares_too(percent: int, *, all_of_them: bool) -> None:
    assert {order(percent).takes("shadow", str(n)) for n in range(1000)} == {all_of_them}


def test_an_order_is_of_one_mode_alone() -> None:
    assert not order(100, "off").takes("shadow", "a")
    assert not order(100, "canary").takes("shadow", "a")


def test_what_has_nothing_of_its_own_is_no_candidate(root: Path) -> None:
    put(root, "evals.nearest.json", "{}")

    assert load("support", root).candidate is None
    assert tiny().candidate is None


@pytest.mark.parametrize("part", ["steps/answer/prompt.md", "examples.jsonl"])
def test_a_candidate_s_own_file_takes_the_place_of_the_live_one_and_all_else_is_live(root: Path, part: str) -> None:
    put(root, part)
    found = candidate(root)

    assert found.path(part) == root / "support" / "candidate" / part
    assert found.path("knowledge") == root / "support" / "knowledge"
    assert (found.rules, found.policy, found.Proposal) == (
        (live := load("support", root)).rules,
        live.policy,
        live.Proposal,
    )
    assert live.path(part) == root / "support" / part


def test_a_candidate_s_knowledge_is_all_that_it_knows(root: Path) -> None:
    put(root, "knowledge/one.md")

    assert candidate(root).path("knowledge") == root / "support" / "candidate" / "knowledge"


def test_a_candidate_s_model_goes_before_what_the_machine_names_and_no_other_does() -> None:
    live = tiny(candidate={"model": "claude:new"}, model={"default": "claude:old"})
    assert live.candidate is not None

    assert (live.first_choice("nearest"), live.first_choice(None)) == ("nearest", "claude:old")
    assert live.candidate.first_choice("nearest") == "claude:new"
    searched = tiny(candidate={"retrieval": {"words": 3}}).candidate
    assert searched is not None
    assert (searched.first_choice("nearest"), searched.settings.retrieval) == ("nearest", Retrieval(words=3))


@pytest.mark.parametrize("part", ["prompt.md", "steps/other/prompt.md", "knowledge/deep/one.md", "rules.py", "a.json"])
def test_a_file_that_is_no_part_of_a_candidate_is_refused_with_those_that_are(root: Path, part: str) -> None:
    put(root, part)

    with pytest.raises(ProcessInvalidError, match=r"no part of a candidate: those are .*steps/answer/prompt\.md"):
        load("support", root)


@pytest.mark.parametrize("table", [{"prompt": "x"}, {"returns": {"min_case": 1}}, {"returns": {"min_cases": 0}}])
def test_what_stands_under_candidate_and_means_nothing_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ProcessInvalidError, match="candidate"):
        tiny(candidate=table)
