"""Labelled examples vote by how near they are, with a confidence that means how often such an answer is right.

What each vote counts for is solved for (kernel ridge regression with a Gaussian kernel), so that twenty examples that
say the same do not drown one that is worded otherwise. The same solution gives exactly what all others say about an
example that is left out. On that the confidence is fitted, a logistic function of the vote: whoever adds examples has
it fitted anew at the next start, and there is no file to keep in step. Equal examples give equal answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from services.classifier.domain.lines import LineInvalidError, objects

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]
Numbers = NDArray[np.float64]

METHOD: Final = 1
"""Raised by whoever has equal examples vote otherwise, or equal votes choose other passages: what was proved of
`nearest` before is proved no more.
"""
# Chosen by leaving out each shipped example, where half or double of each is no better.
WIDTH: Final = 1.0
"""At a right angle to a text an example counts exp(-2 x WIDTH) of what it counts for an equal one."""
RIDGE: Final = 0.05
"""How far what a single example says may give way to its neighbours."""
UNFAMILIAR_SHARE: Final = 0.01
"""So many of the examples themselves would be called unfamiliar when they are left out."""
EXAMPLES_MIN: Final = 50
EXAMPLES_MAX: Final = 5_000
"""Solved for in some ten seconds at each start; the time grows with the cube."""
_CONFIDENCE_MAX: Final = 0.99
"""A few hundred examples cannot prove more."""


class ExamplesInvalidError(Exception):
    """examples.jsonl cannot be used; the message names the line and the mend."""


class Example(BaseModel):
    """One labelled text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1, max_length=2000)
    label: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    language: str = Field(default="en", pattern=r"^[a-z]{2}$")
    source: str = "written"
    """Where the text is from; its licence lies beside the file."""


def parse(lines: str) -> tuple[Example, ...]:
    """Read JSON lines. Raises ExamplesInvalidError."""
    try:
        return tuple(example for _, example in objects(lines, Example))
    except LineInvalidError as error:
        raise ExamplesInvalidError(str(error)) from None


def check_count(examples: int) -> None:
    """Raises ExamplesInvalidError for too few or too many."""
    if not EXAMPLES_MIN <= examples <= EXAMPLES_MAX:
        raise ExamplesInvalidError(f"there are {examples} examples: keep {EXAMPLES_MIN} to {EXAMPLES_MAX:,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What the nearest examples say."""

    label: str
    confidence: float
    """How likely the label is right, 0 to 0.99, in steps of 0.001; 0 for what is unfamiliar."""
    similarity: float
    """Cosine to the nearest example."""
    familiar: bool
    """Whether any example is near enough for the vote to mean anything."""
    shares: Mapping[str, float]
    """Of the votes, by label; 1 in all."""


class Examples:
    """Labelled vectors, ready to be asked."""

    def __init__(self, labels: Sequence[str], vectors: Matrix) -> None:
        """`vectors` has a row of unit length for each label. Raises ExamplesInvalidError for too few or too many."""
        check_count(len(labels))
        self._names = tuple(sorted(set(labels)))
        place = {name: i for i, name in enumerate(self._names)}
        said = np.array([place[label] for label in labels])
        self._rows = vectors.astype(np.float64)
        cosines = self._rows @ self._rows.T
        self._votes, left_out = _solve(_nearness(cosines), np.eye(len(self._names))[said])
        np.fill_diagonal(cosines, -1)
        nearest = cosines.max(axis=1)
        self._sure = _fit_logistic(_signals(left_out, nearest), left_out.argmax(axis=1) == said)
        self._floor = float(np.quantile(nearest, UNFAMILIAR_SHARE))

    def vote(self, vector: Vector) -> Vote:
        """What the nearest examples say about one text; an empty text (a vector of zeros) is unfamiliar."""
        cosines = vector[None, :].astype(np.float64) @ self._rows.T
        scores, nearest = _nearness(cosines) @ self._votes + 1 / len(self._names), cosines.max(axis=1)
        chance = float(1 / (1 + np.exp(-(_signals(scores, nearest) @ self._sure)[0])))
        best, familiar = int(scores[0].argmax()), bool(nearest[0] >= self._floor)
        positive = np.maximum(scores[0], 0)
        shares = np.round(positive / positive.sum(), 3).tolist()
        return Vote(
            label=self._names[best],
            confidence=round(min(chance, _CONFIDENCE_MAX), 3) if familiar else 0.0,
            similarity=round(float(nearest[0]), 3),
            familiar=familiar,
            shares={name: share for name, share in zip(self._names, shares, strict=True) if share},
        )


def _nearness(cosines: Numbers) -> Numbers:
    near: Numbers = np.exp(2 * WIDTH * (cosines - 1))
    return near


def _solve(nearness: Numbers, wanted: Numbers) -> tuple[Numbers, Numbers]:
    """What each example's vote counts for each label, and what all others together say about it."""
    inverse = np.linalg.inv(nearness + RIDGE * np.eye(len(wanted)))
    votes = inverse @ (wanted - 1 / wanted.shape[1])
    return votes, wanted - votes / np.diag(inverse)[:, None]


def _signals(scores: Numbers, nearest: Numbers) -> Numbers:
    """One, the first label's score, the nearest cosine, and the first label's lead over the second."""
    ordered = np.sort(scores, axis=1)
    lead = ordered[:, -1] - (ordered[:, -2] if scores.shape[1] > 1 else 0)
    return np.column_stack([np.ones(len(scores)), ordered[:, -1], nearest, lead])


def _fit_logistic(signals: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Newton's method with a small ridge; it always ends and always at the same weights."""
    weights = np.zeros(signals.shape[1])
    ridge = np.eye(signals.shape[1]) * 1e-2
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(signals @ weights, -30, 30)))
        slope = signals.T @ (chance - right) + ridge @ weights
        curve = (signals * (chance * (1 - chance))[:, None]).T @ signals + ridge
        step = np.linalg.solve(curve, slope)
        weights -= step
        if float(np.abs(step).max()) < 1e-9:  # noqa: PLR2004  # nothing moves any more
            break
    return weights
