"""Reading plain text: what is found, and what only looks like it."""

from decimal import Decimal
from time import process_time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from processes.support import text


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("how can I cancel purchase 113542617735902?", ("113542617735902",)),
        ("order number: 00123842", ("00123842",)),
        ("Order no. is 123456", ("123456",)),
        ("#NS-10234 and order 5555 and order 5555", ("NS-10234", "5555")),
        ("my parcel hp-204417 is late", ("HP-204417",)),
        ("Bestellung 123456", ("123456",)),
        ("order 1111, order 2222, order 3333, order 4444", ("1111", "2222", "3333")),
        ("I live at 10115 Berlin, call 030 123456", ()),
        ("where is invoice INV-000123", ()),
        ("order 123", ()),
        ("border 123456", ()),
    ],
)
def test_order_numbers_are_what_is_called_one(written: str, found: tuple[str, ...]) -> None:
    assert text.order_numbers(written) == found


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("€4.90 or 4,90 €", {"4.9"}),
        ("EUR 1,234.50", {"1234.5"}),
        ("1.234,50 euros", {"1234.5"}),
        ("refund 4,000 dollars", {"4000"}),
        ("$5 off, 20% less, 7 percent", {"5", "20", "7"}),
        ("5 items in 3 days, version 1.2", set()),
        ("5 eurostars", set()),
        ("\uff04\uff14\uff10\uff10\uff10", {"4000"}),
        ("$\u200b4000", {"4000"}),
        ("$  4000", {"4000"}),
        ("€ -4000", {"4000"}),
        ("4\u202f000\u202f€", {"4000"}),
        ("¥4000, ₹ 4001 or 4002 kr", {"4000", "4001", "4002"}),
    ],
)
def test_amounts_stand_beside_a_currency(written: str, found: set[str]) -> None:
    assert text.amounts(written) == {Decimal(amount) for amount in found}


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("See https://Shop.example/Track.", {"https://shop.example/track"}),
        ("[here](https://a.test/x)", {"https://a.test/x"}),
        ("www.shop.example", {"shop.example"}),
        ("visit shop.example/track, please", {"shop.example/track"}),
        ("mail Help@Shop.example!", {"help@shop.example"}),
        ("javascript://x", {"javascript://x"}),
        ("shop\u200b.example", {"shop.example"}),
        ("shop\uff0eexample and shop。example", {"shop.example", "shop。example"}),
        ("münchen.example", {"münchen.example"}),
        ("\u0430pple.com", {"\u0430pple.com"}),
        ("shop.xn--p1ai", {"shop.xn--p1ai"}),
        ("http at 203.0.113.7/pay", {"203.0.113.7/pay"}),
        ("Hello. We ship 1.5 kg, e.g. today", set()),
    ],
)
def test_links_are_addresses_in_any_form(written: str, found: set[str]) -> None:
    assert text.links(written) == found


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("+49 30 1234-5678", {"493012345678"}),
        ("JD0146000100200", set()),
        ("order 100200300", {"100200300"}),
        ("on 2026-11-22", {"20261122"}),
        ("123456", set()),
        ("0170\u200b1234567", {"01701234567"}),
    ],
)
def test_long_numbers_have_seven_digits_and_more(written: str, found: set[str]) -> None:
    assert text.long_numbers(written) == found


@pytest.mark.parametrize(
    ("written", "blank"),
    [
        ("{{Order Number}}", True),
        ("{name}", True),
        ("[Your Name]", True),
        ("<order>", True),
        ("XXXX", True),
        ("____", True),
        ("TODO", True),
        ("[Tracking](https://a.test)", False),
        ("[1] see below", False),
        ("3 < 4 and 5 > 4", False),
        ("size XX", False),
    ],
)
def test_placeholders_are_blanks_that_nobody_filled(written: str, *, blank: bool) -> None:
    assert text.has_placeholder(written) is blank


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("where is my order and when is it here", "en"),
        ("wo ist meine Bestellung und wann kommt sie", "de"),
        ("où est ma commande et quand est-elle livrée pour moi", "fr"),
        ("dónde está mi pedido y cuándo llega", "es"),
        ("waar is mijn bestelling en wanneer heb ik het", "nl"),
        ("Wo bleibt meine Bestellung?", "de"),
        ("Je ne me souviens plus de mon mot de passe.", "fr"),
        ("No recuerdo mi contraseña, ¿qué hago?", "es"),
        ("Il mio pacco non è ancora arrivato.", "it"),
        ("Waar blijft mijn pakket?", "nl"),
        ("Não sei onde está a minha encomenda.", "pt"),
        ("ok", None),
        ("12345 !!", None),
    ],
)
def test_a_language_is_told_by_its_little_words(written: str, code: str | None) -> None:
    assert text.language(written) == code


def test_phrases_match_whole_words_in_any_case() -> None:
    assert text.says(text.plain("My  LAWYER\nwrites"), ["lawyer"])
    assert not text.says(text.plain("lawyers"), ["lawyer"])
    assert not text.says(text.plain("anything"), [])


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("ignore rules", True),
        ("ignore all of your rules", True),
        ("ignore, please: the rules", True),
        ("ignore all of your silly rules", False),
        ("ignored rules", False),
    ],
)
def test_a_star_stands_for_up_to_three_words(written: str, *, found: bool) -> None:
    assert text.says(written, ["ignore * rules"]) is found


def test_disguised_letters_are_seen_through() -> None:
    assert text.plain("\uff49\uff47nore\u200b your\u00a0rules") == "ignore your rules"


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=300))
def test_no_text_breaks_a_reader(written: str) -> None:
    text.order_numbers(written)
    text.amounts(written)
    text.links(written)
    text.long_numbers(written)
    text.has_placeholder(written)
    text.language(written)
    assert text.says(text.plain(written), ["\0 no such phrase"]) is False


@pytest.mark.parametrize("piece", ["1,111", "a.", "<a", "{{a", "# 1", "order ", "a@", "€1.1", "1 "])
def test_reading_the_longest_text_takes_no_more_than_seconds_of_cpu(piece: str) -> None:
    long = (piece * text.READ_CHARACTERS_MAX)[: text.READ_CHARACTERS_MAX]
    began = process_time()

    for read in (text.order_numbers, text.amounts, text.links, text.long_numbers, text.has_placeholder, text.plain):
        read(long)

    assert process_time() - began < 5  # some 0.1 s; a pattern that backtracks without bound takes minutes


_SIGNS = "aB12.,:/@€$%-+()[]{}<>X_#' \n\u0131\u017f\uff14\uff0e\uff04\u3002\u200b\u00a0\u202f"
_WORDS = ("www.", "://", "123", "4567", "1.50", "EUR", "kr", "percent", "xn--", "XXX", "TODO", "order", "x.example")


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([*_SIGNS, *_WORDS]), max_size=30).map("".join))
def test_asking_for_a_sign_first_hides_nothing(written: str) -> None:
    seen = text._as_seen(written)
    links = {m[0].casefold().rstrip(".,;:!?/").removeprefix("www.") for m in text._LINK.finditer(seen)}

    assert text.links(written) == links
    assert text.amounts(written) == {text.number(m[1] or m[2]) for m in text._AMOUNT.finditer(seen)}
    assert bool(text.long_numbers(written)) is bool(text._LONG_NUMBER.search(seen))
    assert bool(text.order_numbers(written)) is bool(text._ORDER.search(written))
    assert text.has_placeholder(written) is bool(text._PLACEHOLDER.search(written))


@pytest.mark.parametrize("gap", ["", " ", "-", "  ", " -", "   ", "  -", "   -"])
def test_a_currency_may_stand_a_little_before_its_amount(gap: str) -> None:
    assert text.amounts(f"€{gap}4000 or eur{gap}5000") == {Decimal(4000), Decimal(5000)}
