"""The nearest examples: what they say, how sure they are, and what does not fit any."""

import json

import numpy as np
import pytest

from services.classifier.domain.examples import Examples, ExamplesInvalidError, Matrix, parse

LABELS = ["cancel", "invoice", "track"]
DIMENSIONS = 32
EACH = 30


def unit(rows: Matrix) -> Matrix:
    scaled: Matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def around(label: int, count: int, *, seed: int, spread: float = 0.6) -> Matrix:
    """Texts of one label: a direction of their own, and noise that all labels share."""
    random = np.random.default_rng(seed)
    rows = random.normal(0, spread, (count, DIMENSIONS))
    rows[:, label] += 3
    return unit(rows.astype(np.float32))


@pytest.fixture(scope="module")
def examples() -> Examples:
    vectors = np.concatenate([around(i, EACH, seed=i) for i in range(len(LABELS))])
    return Examples([label for label in LABELS for _ in range(EACH)], vectors)


@pytest.mark.parametrize("label", range(len(LABELS)))
def test_a_text_gets_the_label_of_its_neighbours(examples: Examples, label: int) -> None:
    vote = examples.vote(around(label, 1, seed=99)[0])

    assert vote.label == LABELS[label]
    assert vote.familiar
    assert vote.confidence > 0.9


def test_a_text_between_two_labels_is_less_sure() -> None:
    vectors = np.concatenate([around(i, EACH, seed=i, spread=1.2) for i in range(len(LABELS))])
    examples = Examples([label for label in LABELS for _ in range(EACH)], vectors)
    clear, other = np.zeros((2, DIMENSIONS), dtype=np.float32)
    clear[0] = other[1] = 1

    assert examples.vote(unit((clear + other)[None, :])[0]).confidence < examples.vote(clear).confidence


@pytest.mark.parametrize("place", [None, DIMENSIONS - 1])
def test_what_is_like_no_example_is_unfamiliar_and_has_no_confidence(place: int | None) -> None:
    vectors = np.concatenate([around(i, EACH, seed=i, spread=0.1) for i in range(len(LABELS))])
    examples = Examples([label for label in LABELS for _ in range(EACH)], vectors)
    asked = np.zeros(DIMENSIONS, dtype=np.float32)
    if place is not None:
        asked[place] = 1

    vote = examples.vote(asked)

    assert (vote.familiar, vote.confidence) == (False, 0.0)


def test_many_that_say_the_same_do_not_drown_one_that_is_worded_otherwise() -> None:
    many, alone, asked = np.zeros((3, DIMENSIONS), dtype=np.float32)
    many[0], alone[:2], asked[:2] = 1, (0.8, 0.6), (0.75, 0.66)
    alike = unit(many + np.random.default_rng(0).normal(0, 0.02, (60, DIMENSIONS)).astype(np.float32))
    examples = Examples([*["cancel"] * 60, "track"], np.vstack([alike, alone[None, :]]))

    assert examples.vote(unit(asked[None, :])[0]).label == "track"
    assert examples.vote(many).label == "cancel"


def test_shares_are_shares(examples: Examples) -> None:
    vote = examples.vote(around(1, 1, seed=5)[0])

    assert sum(vote.shares.values()) == pytest.approx(1, abs=0.005)
    assert max(vote.shares, key=lambda label: vote.shares[label]) == vote.label


def test_confidence_means_how_often_it_is_right() -> None:
    hard = 1.6
    vectors = np.concatenate([around(i, 200, seed=i, spread=hard) for i in range(3)])
    examples = Examples([label for label in LABELS for _ in range(200)], vectors)
    fresh = [(LABELS[i], v) for i in range(3) for v in around(i, 200, seed=10 + i, spread=hard)]

    votes = [(examples.vote(vector), label) for label, vector in fresh]

    said = np.mean([vote.confidence for vote, _ in votes])
    right = np.mean([vote.label == label for vote, label in votes])
    assert 0.5 < right < 0.99
    assert abs(said - right) < 0.05


def test_equal_examples_give_equal_answers() -> None:
    labels = [label for label in LABELS for _ in range(EACH)]
    vectors = np.concatenate([around(i, EACH, seed=i, spread=1.5) for i in range(3)])
    asked = around(2, 1, seed=7, spread=1.5)[0]

    assert Examples(labels, vectors).vote(asked) == Examples(labels, vectors.copy()).vote(asked)


@pytest.mark.parametrize(("count", "enough"), [(49, False), (50, True)])
def test_too_few_examples_do_not_start(count: int, *, enough: bool) -> None:
    vectors = np.concatenate([around(0, 25, seed=0), around(1, count - 25, seed=1)])
    labels = ["cancel"] * 25 + ["track"] * (count - 25)
    if enough:
        assert Examples(labels, vectors).vote(vectors[0]).label == "cancel"
    else:
        with pytest.raises(ExamplesInvalidError, match="49 examples"):
            Examples(labels, vectors)


def test_more_examples_than_can_be_solved_for_do_not_start() -> None:
    with pytest.raises(ExamplesInvalidError, match="5001 examples"):
        Examples(["cancel"] * 5001, np.zeros((5001, DIMENSIONS), dtype=np.float32))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "nests too deeply"),
        ("[]", "valid dictionary"),
        ('{"text": "", "label": "a"}', "text: "),
        ('{"text": "a", "label": "A B"}', "label: "),
        ('{"text": "a", "label": "a", "x": 1}', "x: .*; fields are text, label, language, source"),
    ],
)
def test_a_line_that_is_no_example_is_refused_with_its_number_and_the_mend(line: str, says: str) -> None:
    with pytest.raises(ExamplesInvalidError, match=f"^line 2: .*{says}"):
        parse(json.dumps({"text": "a", "label": "a"}) + "\n" + line + "\n" + json.dumps({"text": "b", "label": "b"}))


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"], ids=["line", "paragraph", "next line"])
def test_what_ends_a_line_elsewhere_ends_no_example(end: str) -> None:
    line = json.dumps({"text": f"my{end}parcel", "label": "a"}, ensure_ascii=False)

    assert [one.text for one in parse(f"{line}\n{line}\n")] == [f"my{end}parcel"] * 2
