"""Embeddings: offline, of unit length, the same every time, and the root logger left as it was."""

import logging

import numpy as np
import pytest

from services.classifier.outbound.embeddings import KEPT_TEXTS_MAX, TEXT_CHARACTERS_MAX, WordLlamaEmbedder, plain_text


@pytest.fixture(scope="module")
def embedder() -> WordLlamaEmbedder:
    return WordLlamaEmbedder()


def test_like_texts_are_nearer_than_unlike_ones(embedder: WordLlamaEmbedder) -> None:
    parcel, package, poem = embedder.embed(["where is my parcel", "where is my package", "a poem about the sea"])

    assert parcel @ package > parcel @ poem
    assert np.linalg.norm(parcel) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("text", ["", " \n", "https://example.com"])
def test_a_text_without_words_is_zeros(embedder: WordLlamaEmbedder, text: str) -> None:
    assert not embedder.embed([text]).any()


def test_numbers_do_not_tell_texts_apart(embedder: WordLlamaEmbedder) -> None:
    one, other = embedder.embed(["cancel order 113542617735902", "cancel order 7"])

    assert np.array_equal(one, other)


def test_no_texts_give_no_rows(embedder: WordLlamaEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 256)


def test_a_forgotten_text_gets_the_same_vector_again(embedder: WordLlamaEmbedder) -> None:
    first = embedder.embed(["where is my parcel"])
    embedder.embed([f"text {'a' * n}" for n in range(KEPT_TEXTS_MAX + 1)])

    assert np.array_equal(first, embedder.embed(["where is my parcel"]))


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    assert plain_text("a " * TEXT_CHARACTERS_MAX) == plain_text("a " * (TEXT_CHARACTERS_MAX // 2))


def test_loading_leaves_the_root_logger_alone() -> None:
    before = (logging.getLogger().handlers[:], logging.getLogger().level)
    WordLlamaEmbedder().embed(["hello"])

    assert (logging.getLogger().handlers, logging.getLogger().level) == before
