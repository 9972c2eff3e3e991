import pytest
from hypothesis import given, strategies as st

from connectors import cards

VISA = "4111111111111111"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"card {VISA} please", "card [card ending 1111] please"),
        ("4111 1111 1111 1111", "[card ending 1111]"),
        ("4111-1111-1111-1111.", "[card ending 1111]."),
        ("4111 1111 1111 1111 12/27 123", "[card ending 1111] 12/27 123"),
        ("order 56 4111 1111 1111 1111", "order 56 [card ending 1111]"),
        ("order 55 4111 1111 1111 1111", "order [card ending 1111]"),  # 55411111111111 passes the check by chance
        ("3782 822463 10005", "[card ending 0005]"),
        ("4222222222222", "[card ending 2222]"),
        ("6304 0000 0000 0000 000", "[card ending 0000]"),
        (f"{VISA}, 5555555555554444", "[card ending 1111], [card ending 4444]"),
    ],
)
def test_a_card_number_is_masked_to_its_last_four_digits(text: str, masked: str) -> None:
    assert cards.mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",
        "order 00042112345",
        "call +49 30 123456",
        "411111111111",
        "41111111111111111111",
        "",
        "no digits",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert cards.mask(text) == text


@given(st.text(alphabet="0123456789 -.x", max_size=200))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    assert cards.mask(cards.mask(text)) == cards.mask(text)


@given(st.text(alphabet="abc \n", max_size=50), st.text(alphabet="abc \n", max_size=50))
def test_a_card_among_words_never_remains(before: str, after: str) -> None:
    assert VISA not in cards.mask(f"{before}x{VISA}x{after}")


def test_a_very_long_run_of_digits_costs_no_more_than_its_length() -> None:
    assert len(cards.mask("1 " * 30_000)) <= 60_000
