"""Ceilings on money are checked at start."""

import pytest

from services.runtime.process import ProcessInvalidError
from tests.fakes.acting import tiny


def test_what_is_left_out_has_no_ceiling() -> None:
    ceilings = tiny(budget={"day_usd_max": 2.5}).settings.budget

    assert str(ceilings.of("day", "usd")) == "2.5"
    assert ceilings.of("run", "usd") is None
    assert ceilings.of("day", "tokens") is None


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"day_usd_max": 0}, "budget.day_usd_max"),
        ({"run_tokens_max": -1}, "budget.run_tokens_max"),
        ({"run_tokens_max": 1.5}, "budget.run_tokens_max"),
        ({"day_usd_max": float("inf")}, "budget.day_usd_max"),
        ({"day_eur_max": 5}, "budget.day_eur_max"),
        ({"run_usd_max": 3, "day_usd_max": 2}, "run_usd_max is above day_usd_max"),
        ({"run_usd_max": 3, "total_usd_max": 2}, "run_usd_max is above total_usd_max"),
        ({"day_tokens_max": 3, "total_tokens_max": 2}, "day_tokens_max is above total_tokens_max"),
    ],
)
def test_a_ceiling_that_cannot_be_is_refused_by_its_name(written: dict[str, float], says: str) -> None:
    with pytest.raises(ProcessInvalidError, match=says):
        tiny(budget=written)
