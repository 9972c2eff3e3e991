"""What models cost is known, dated, and counted at its worst; a slip of the pen is refused by its line."""

from datetime import date, timedelta
from decimal import Decimal

import pytest

from services.classifier.domain.prices import ModelEndedError, PricesInvalidError, UnknownPriceError, parse
from services.classifier.outbound.price_list import prices

OWN = """as_of = 2026-11-27

[models.claude-of-mine]
input = "1"
output = "2"
cache_write = "1.5"
cache_read = "0.1"
long = { above_tokens = 1000, input = "3", output = "4", cache_write = "3.5", cache_read = "0.2" }
"""


def test_a_list_of_ones_own_goes_before_the_shipped_one() -> None:
    assert prices(OWN).models.keys() == {*prices().models, "claude-of-mine"}
    assert prices(OWN.replace("claude-of-mine", "claude-opus-5")).models["claude-opus-5"].input == Decimal(1)


@pytest.mark.parametrize(
    ("written", "instead", "line", "says"),
    [
        ('input = "1"', 'input = "-1"', 4, "models.claude-of-mine.input is negative"),
        ('input = "1"', 'inptu = "1"', 3, "models.claude-of-mine.input is missing"),
        ('output = "2"', 'output = "2"\ncurrency = "EUR"', 6, "models.claude-of-mine.currency is no field of a price"),
        ('output = "2"', 'output = "two"', 5, "models.claude-of-mine.output cannot be read"),
        ('output = "2"', "output = nan", 5, "models.claude-of-mine.output cannot be read"),
        ("as_of = 2026-11-27", "", 1, "as_of is missing"),
        (OWN, "", 1, "as_of is missing: add it"),
        ("as_of = 2026-11-27", 'as_of = "today"', 1, "as_of is no day: write one as 2026-11-27"),
        ("as_of = 2026-11-27", "as_of = 2026-11-27T10:00:00", 1, "as_of is no day"),
        ('input = "1"', 'input = "1e999999"', 4, "models.claude-of-mine.input is no price: it is 1000000 US dollars"),
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


def test_a_list_that_nests_without_end_is_refused() -> None:
    with pytest.raises(PricesInvalidError, match=r"mine\.toml is no price list, it nests too deeply"):
        parse("a = " + "[" * 5000, "mine.toml")


def test_a_list_of_a_day_that_is_still_to_come_is_refused_with_its_line() -> None:
    day = date(2026, 11, 27)

    for today in (day, day - timedelta(days=1)):  # where it is written it may be tomorrow already
        assert parse(OWN, "mine.toml", today=today).as_of == day
    with pytest.raises(
        PricesInvalidError, match=r"mine\.toml, line 1: as_of is 2026-11-27, .*: write the day on which"
    ):
        parse(OWN, "mine.toml", today=day - timedelta(days=2))
    with pytest.raises(PricesInvalidError, match="9999-01-01"):
        prices(OWN.replace("2026-11-27", "9999-01-01"))


@pytest.mark.parametrize(("sent", "most"), [(1000, "0.0019"), (1001, "0.0043035")])
def test_the_most_that_a_call_costs_is_that_of_its_dearest_tokens(sent: int, most: str) -> None:
    price = parse(OWN, "mine.toml").models["claude-of-mine"]

    assert price.cost_usd_max(sent=sent, answered=200) == Decimal(most)
    for written, read in ((0, 0), (sent, 0), (0, sent), (sent // 3, sent // 3)):
        told = price.cost_usd(sent=sent - written - read, written=written, read=read, answered=200)
        assert told <= Decimal(most)


LAST_DAY = date(2027, 2, 28)
ENDED = date(2027, 3, 1)
VENDOR = """
[vendors.mine]
input = "0"
output = "0"
cache_write = "0"
cache_read = "0"

[ends]
claude-of-mine = 2027-03-01
old = 2027-03-01
"""


def test_a_model_is_refused_from_the_day_on_that_its_vendor_answers_no_more_with_those_that_are_left() -> None:
    known = parse(OWN.replace("claude-of-mine", "left") + OWN.split("\n", 2)[2] + VENDOR, "mine.toml")

    assert known.price_of("claude", "claude-of-mine", today=LAST_DAY).output == 2
    with pytest.raises(ModelEndedError, match=r"'claude-of-mine' .* 2027-03-01: name one of left, any of mine \("):
        known.price_of("claude", "claude-of-mine", today=ENDED)
    with pytest.raises(ModelEndedError):
        known.price_of("mine", "old", today=ENDED)


def test_a_vendor_whose_models_all_cost_the_same_needs_none_of_their_names() -> None:
    known = parse(OWN + VENDOR, "mine.toml")

    assert known.price_of("mine", "whatever:3b", today=LAST_DAY).cost_usd_max(sent=1000, answered=1000) == 0
    with pytest.raises(UnknownPriceError, match=r"'whatever:3b' is not known: name one of claude-of-mine, any of mine"):
        known.price_of("claude", "whatever:3b", today=LAST_DAY)


def test_a_list_of_ones_own_may_give_a_model_more_time() -> None:
    ended = next(iter(prices().ends))
    more = f"{OWN.replace('claude-of-mine', ended)}\n[ends]\n{ended} = 9999-01-01\n"

    assert prices(more).price_of("claude", ended, today=ENDED).input == 1
    with pytest.raises(ModelEndedError):
        prices().price_of("claude", ended, today=ENDED)
