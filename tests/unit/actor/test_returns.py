"""A candidate goes back where a figure speaks against it, and not by chance."""

from dataclasses import replace
from decimal import Decimal
from math import comb
from typing import Any

import pytest
from hypothesis import given, strategies as st

from services.actor.domain.returns import Came, chance_of, why_return
from services.runtime.process import Returns

LIMITS = Returns(min_cases=50, worse_by=0.05, cost_factor=2.0)
OTHERS = Came(cases=1000, held=200, refused=50, failed=10, cost_usd=Decimal(5))
LIKE_THEM = Came(cases=100, held=20, refused=5, failed=1, cost_usd=Decimal("0.5"))


def test_what_is_like_the_others_stays() -> None:
    assert why_return(LIKE_THEM, OTHERS, LIMITS) is None


@pytest.mark.parametrize(
    ("worse", "figure"),
    [
        ({"held": 45}, "held: 45 of 100 (45.0%), and of the other cases 200 of 1000 (20.0%)"),
        ({"refused": 30}, "refused: 30 of 100 (30.0%), and of the other cases 50 of 1000 (5.0%)"),
        ({"failed": 12}, "failed: 12 of 100 (12.0%), and of the other cases 10 of 1000 (1.0%)"),
        ({"cost_usd": Decimal("1.01")}, "cost: $0.0101 a case, and of the other cases $0.0050"),
    ],
)
def test_each_figure_that_is_worse_sends_it_back_and_is_named(worse: dict[str, Any], figure: str) -> None:
    said = why_return(replace(LIKE_THEM, **worse), OTHERS, LIMITS)

    assert said is not None
    assert said.startswith(figure)


@pytest.mark.parametrize(
    "better",
    [{"held": 0}, {"refused": 0}, {"failed": 0}, {"cost_usd": Decimal(0)}],
    ids=["held", "refused", "failed", "cost"],
)
def test_what_is_better_stays(better: dict[str, Any]) -> None:
    assert why_return(replace(LIKE_THEM, **better), OTHERS, LIMITS) is None


@pytest.mark.parametrize(("cases", "goes"), [(49, False), (50, True)])
def test_nothing_is_concluded_from_few_cases(cases: int, *, goes: bool) -> None:
    all_fail = Came(cases=cases, failed=cases, cost_usd=Decimal(cases))

    assert (why_return(all_fail, OTHERS, LIMITS) is not None) is goes


def test_without_others_there_is_nothing_to_compare_with() -> None:
    assert why_return(Came(cases=500, failed=500), Came(), LIMITS) is None


def test_a_difference_within_the_margin_is_none_however_certain() -> None:
    many = Came(cases=100_000, held=24_900)

    assert why_return(many, Came(cases=100_000, held=20_000), LIMITS) is None
    assert why_return(replace(many, held=25_100), Came(cases=100_000, held=20_000), LIMITS) is not None


def test_a_difference_that_chance_may_make_is_none_however_large() -> None:
    few = Came(cases=50, held=20)

    assert why_return(few, Came(cases=10, held=3), LIMITS) is None


@pytest.mark.parametrize("others", [Came(cases=1000), Came(cases=49, cost_usd=Decimal(1))], ids=["for nothing", "few"])
def test_a_cost_is_compared_with_that_of_enough_others_that_cost_something(others: Came) -> None:
    assert why_return(Came(cases=100, cost_usd=Decimal(1000)), others, LIMITS) is None


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_chance_is_fisher_s(of_one: int, of_other: int, data: st.DataObject) -> None:
    one, other = data.draw(st.integers(0, of_one)), data.draw(st.integers(0, of_other))
    both = one + other
    exact = sum(
        comb(of_one, k) * comb(of_other, both - k) for k in range(max(one, both - of_other), min(of_one, both) + 1)
    ) / comb(of_one + of_other, both)

    assert chance_of(one, of_one, other, of_other) == pytest.approx(exact, rel=1e-9)
