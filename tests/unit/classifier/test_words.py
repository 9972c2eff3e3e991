"""Terms: what is made alike, and what is not."""

import pytest

from services.classifier.domain.words import terms_of


@pytest.mark.parametrize(
    ("language", "asked", "written"),
    [
        ("en", "cancelling orders", "Cancel the ORDER"),
        ("de", "Lieferungen", "Lieferung"),
        ("fr", "remboursements", "remboursement"),
        ("es", "pedidos", "Pedido"),
    ],
)
def test_endings_and_capitals_make_no_difference(language: str, asked: str, written: str) -> None:
    assert {*terms_of(asked, language)} <= {*terms_of(written, language)}


def test_a_term_belongs_to_its_language() -> None:
    assert not {*terms_of("die", "en")} & {*terms_of("die", "de")}


def test_every_occurrence_counts() -> None:
    assert terms_of("parcel, parcel_parcel!", "en") == ["en:parcel"] * 3


def test_a_language_without_a_stemmer_keeps_its_words() -> None:
    assert terms_of("Orders", "xx") == ["xx:orders"]


def test_signs_written_in_two_ways_are_one_term() -> None:
    assert terms_of("cafe\u0301", "fr") == terms_of("caf\u00e9", "fr")
