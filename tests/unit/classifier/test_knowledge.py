"""Passages: how a file is read, and which of them fit a question."""

import numpy as np
import pytest

from contracts.knowledge import Passage, Question
from services.classifier.domain import knowledge
from services.classifier.domain.knowledge import KnowledgeInvalidError, choose, index_version, parse

FILE = """+++
title = "Times"
intents = ["period"]
brand = "7002"
language = "en"
when = ["sent"]
+++
It takes 3 days.

## Reply
It takes {{days}} days.
"""
ASKED = np.array([1, 0], dtype=np.float32)


def passage(name: str, *, intent: str = "period", brand: str = "any", language: str = "en") -> Passage:
    return Passage(
        id=name, title=name, intents=(intent,), brand=brand, language=language, text="t", reply="r", version="v"
    )


def chosen(
    passages: list[Passage],
    likeness: list[float] | None = None,
    shares: dict[str, float] | None = None,
    brand: str | None = None,
    language: str = "en",
) -> list[str]:
    alike = likeness or [0.0] * len(passages)
    vectors = np.array([[a, (1 - a * a) ** 0.5] for a in alike], dtype=np.float32).reshape(-1, 2)
    question = Question(text="?", brand=brand, language=language)
    return [p.id for p in choose(passages, vectors, ASKED, question, shares or {}, default_language="en")]


def test_a_file_is_read_whole() -> None:
    read = parse("times", FILE)

    assert (read.id, read.title, read.intents, read.brand, read.when) == (
        "times",
        "Times",
        ("period",),
        "7002",
        ("sent",),
    )
    assert (read.text, read.reply) == ("It takes 3 days.", "It takes {{days}} days.")


def test_a_passage_may_have_no_reply() -> None:
    assert parse("times", FILE.split("\n## Reply", maxsplit=1)[0] + "\n").reply == ""


def test_another_text_is_another_version() -> None:
    assert parse("times", FILE).version != parse("times", FILE.replace("3", "4")).version


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("", 1, "begin with TOML between two lines of"),
        ("no front matter", 1, "begin with TOML"),
        (FILE.replace("+++\ntitle", "title"), 1, "begin with TOML"),
        (FILE.replace('title = "Times"\n', ""), 1, "title: Field required"),
        (FILE.replace('language = "en"', 'language = "English"'), 5, "language: "),
        (FILE.replace('["period"]', "[]"), 3, "intents: "),
        (FILE.replace("brand", "brnad"), 4, "brnad: .*; fields are title, intents, brand"),
        (FILE.replace('"Times"', '"Times'), 2, ""),
        (FILE + "x" * knowledge.FILE_CHARACTERS_MAX, 12, "make two of it"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line_and_the_mend(content: str, line: int, says: str) -> None:
    with pytest.raises(KnowledgeInvalidError, match=rf"line {line}\b.*{says}"):
        parse("times", content)


def test_the_likeliest_label_goes_before_the_likest_words() -> None:
    passages = [passage("alike", intent="other"), passage("meant", intent="period")]

    assert chosen(passages, [1.0, 0.0], {"period": 0.9, "other": 0.1}) == ["meant", "alike"]


def test_within_a_label_the_likest_words_go_first() -> None:
    assert chosen([passage("a"), passage("b")], [0.1, 0.9], {"period": 1.0}) == ["b", "a"]


def test_other_brands_are_never_shown() -> None:
    passages = [passage("any"), passage("ours", brand="7001"), passage("theirs", brand="7002")]

    assert chosen(passages, brand="7001") == ["any", "ours"]
    assert chosen(passages, brand=None) == ["any"]


def test_the_default_language_stands_in_and_no_other_does() -> None:
    passages = [passage("de", language="de"), passage("en"), passage("fr", language="fr")]

    assert chosen(passages, language="de") == ["de", "en"]
    assert chosen(passages, language="it") == ["en"]


@pytest.mark.parametrize("count", [0, knowledge.PASSAGES_MAX, knowledge.PASSAGES_MAX + 1])
def test_no_more_than_the_limit_are_shown(count: int) -> None:
    assert len(chosen([passage(f"p{i:02}") for i in range(count)], [0.0] * count or None)) == min(count, 8)


def test_equal_passages_stand_in_the_order_of_their_names() -> None:
    assert chosen([passage("b"), passage("a")]) == ["a", "b"]


def test_the_index_version_follows_what_decides() -> None:
    one, other = parse("times", FILE), parse("times", FILE.replace("3", "4"))

    assert index_version("m", [one]) == index_version("m", [parse("times", FILE)])
    assert len({index_version("m", [one]), index_version("n", [one]), index_version("m", [other])}) == 3
