"""What models cost is known, dated, and counted at its worst; a slip of the pen is refused by its line."""

from decimal import Decimal

import pytest

from services.classifier.domain.prices import PricesInvalidError, parse
from services.classifier.outbound.claude import prices

OWN = """as_of = 2026-11-27

[models.claude-of-mine]
input = "1"
output = "2"
cache_write = "1.5"
cache_read = "0.1"
long = { above_tokens = 1000, input = "3", output = "4", cache_write = "3.5", cache_read = "0.2" }
"""


def test_a_list_of_ones_own_goes_before_the_shipped_one() -> None:
    assert prices(OWN).keys() == {*prices(), "claude-of-mine"}
    assert prices(OWN.replace("claude-of-mine", "claude-opus-5"))["claude-opus-5"].input == Decimal(1)


@pytest.mark.parametrize(
    ("written", "instead", "line", "says"),
    [
        ('input = "1"', 'input = "-1"', 4, "models.claude-of-mine.input is negative"),
        ('input = "1"', 'inptu = "1"', 3, "models.claude-of-mine.input is missing"),
        ('output = "2"', 'output = "2"\ncurrency = "EUR"', 6, "models.claude-of-mine.currency is no field of a price"),
        ('output = "2"', 'output = "two"', 5, "models.claude-of-mine.output cannot be read"),
        ('output = "2"', "output = nan", 5, "models.claude-of-mine.output cannot be read"),
        ("as_of = 2026-11-27", "", 1, "as_of is missing"),
        ("[models.claude-of-mine]", "[model.claude-of-mine]", 1, "models is missing"),
        ('cache_read = "0.2" }', 'cache_read = "-2" }', 8, "models.claude-of-mine.long.cache_read is negative"),
    ],
)
def test_a_price_that_cannot_be_counted_with_is_refused_with_its_line(
    written: str, instead: str, line: int, says: str
) -> None:
    with pytest.raises(PricesInvalidError) as refused:
        parse(OWN.replace(written, instead), "mine.toml")

    assert f"mine.toml, line {line}: {says}" in str(refused.value)


def test_a_list_that_is_no_toml_is_refused_with_its_line() -> None:
    with pytest.raises(PricesInvalidError, match=r"mine\.toml is no TOML: .*line 3"):
        parse(OWN.replace("[models.claude-of-mine]", "[models.claude-of-mine"), "mine.toml")


@pytest.mark.parametrize(("sent", "most"), [(1000, "0.0019"), (1001, "0.0043035")])
def test_the_most_that_a_call_costs_is_that_of_its_dearest_tokens(sent: int, most: str) -> None:
    price = parse(OWN, "mine.toml")["claude-of-mine"]

    assert price.cost_usd_max(sent=sent, answered=200) == Decimal(most)
    for written, read in ((0, 0), (sent, 0), (0, sent), (sent // 3, sent // 3)):
        told = price.cost_usd(sent=sent - written - read, written=written, read=read, answered=200)
        assert told <= Decimal(most)
