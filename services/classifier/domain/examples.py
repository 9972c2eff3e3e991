"""k nearest labelled examples, and a confidence that means how often such an answer is right.

Vectors are centred and whitened by the scatter within the labels (as in linear discriminant analysis), so that what
tells labels apart counts and what varies inside every label does not; then the cosine. The confidence is a logistic
function of the vote, fitted by five-fold cross-validation on the examples themselves: whoever adds examples has it
fitted anew at the next start, and there is no file to keep in step. Equal examples give equal answers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]

# Chosen by cross-validation on the shipped examples, where half or double of each changes nothing beyond chance.
NEIGHBOURS: Final = 9
SHARPNESS: Final = 4
"""A neighbour's vote is its cosine to this power."""
RIDGE: Final = 0.003
"""Of the largest eigenvalue of the scatter: what lies below it is noise and is not blown up."""
FOLDS: Final = 5
UNFAMILIAR_SHARE: Final = 0.01
"""So many of the examples themselves would be called unfamiliar when they are left out."""
EXAMPLES_MIN: Final = 50
EXAMPLES_MAX: Final = 20_000
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
    found: list[Example] = []
    for number, line in enumerate(lines.splitlines(), start=1):
        try:
            found.append(Example.model_validate(json.loads(line)))
        except (json.JSONDecodeError, ValidationError) as error:
            raise ExamplesInvalidError(f"line {number}: {error}") from error
    return tuple(found)


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


@dataclass(frozen=True, slots=True)
class _Metric:
    mean: Vector
    whiten: Matrix

    def apply(self, vectors: Matrix) -> Matrix:
        turned = ((vectors - self.mean) @ self.whiten).astype(np.float32)
        lengths = np.linalg.norm(turned, axis=1, keepdims=True)
        known = np.linalg.norm(vectors, axis=1, keepdims=True) > 0
        unit: Matrix = turned / np.maximum(lengths, np.float32(1e-9)) * known.astype(np.float32)
        return unit


class Examples:
    """Labelled vectors, ready to be asked."""

    def __init__(self, labels: Sequence[str], vectors: Matrix) -> None:
        """`vectors` has a row of unit length for each label. Raises ExamplesInvalidError for too few or too many."""
        if not EXAMPLES_MIN <= len(labels) <= EXAMPLES_MAX:
            raise ExamplesInvalidError(f"there are {len(labels)} examples: keep {EXAMPLES_MIN} to {EXAMPLES_MAX:,}")
        self._names = tuple(sorted(set(labels)))
        place = {name: i for i, name in enumerate(self._names)}
        self._labels = np.array([place[label] for label in labels])
        self._metric = _fit_metric(vectors, self._labels)
        self._rows = self._metric.apply(vectors)
        signals, right = self._leave_out(vectors)
        self._weights = _fit_logistic(signals, right)
        self._floor = float(np.quantile(signals[:, 2], UNFAMILIAR_SHARE))

    def vote(self, vector: Vector) -> Vote:
        """What the nearest examples say about one text; an empty text (a vector of zeros) is unfamiliar."""
        shares, nearest = _votes(self._metric.apply(vector[None, :]), self._rows, self._labels, len(self._names))
        chance = float(1 / (1 + np.exp(-(_signals(shares, nearest) @ self._weights)[0])))
        best, familiar = int(shares[0].argmax()), bool(nearest[0] >= self._floor)
        return Vote(
            label=self._names[best],
            confidence=round(min(chance, _CONFIDENCE_MAX), 3) if familiar else 0.0,
            similarity=round(float(nearest[0]), 3),
            familiar=familiar,
            shares={self._names[i]: round(float(shares[0, i]), 3) for i in np.flatnonzero(shares[0])},
        )

    def _leave_out(self, vectors: Matrix) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Each example's vote signals when its fold was not learnt from, and whether the vote was right."""
        folds = np.arange(len(self._labels)) % FOLDS
        signals = np.zeros((len(self._labels), 4))
        right = np.zeros(len(self._labels), dtype=np.bool_)
        for fold in range(FOLDS):
            out = folds == fold
            metric = _fit_metric(vectors[~out], self._labels[~out])
            rows = metric.apply(vectors[~out])
            shares, nearest = _votes(metric.apply(vectors[out]), rows, self._labels[~out], len(self._names))
            signals[out] = _signals(shares, nearest)
            right[out] = shares.argmax(axis=1) == self._labels[out]
        return signals, right


def _fit_metric(vectors: Matrix, labels: NDArray[np.int_]) -> _Metric:
    within = vectors.astype(np.float64)
    for label in np.unique(labels):
        within[labels == label] -= within[labels == label].mean(axis=0)
    values, directions = np.linalg.eigh(within.T @ within / len(vectors))
    scale = 1 / np.sqrt(np.maximum(values, 0) + RIDGE * values[-1] + 1e-12)
    return _Metric(vectors.mean(axis=0), ((directions * scale) @ directions.T).astype(np.float32))


def _votes(
    asked: Matrix, rows: Matrix, labels: NDArray[np.int_], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the votes (asked x labels), and the cosine to the nearest example."""
    cosines = (asked @ rows.T).astype(np.float64)
    near = min(NEIGHBOURS, len(rows))
    top = np.argpartition(-cosines, near - 1, axis=1)[:, :near]
    weights = np.maximum(np.take_along_axis(cosines, top, axis=1), 1e-6)
    shares = np.zeros((len(asked), count))
    np.add.at(shares, (np.arange(len(asked))[:, None], labels[top]), weights**SHARPNESS)
    return shares / shares.sum(axis=1, keepdims=True), weights.max(axis=1)


def _signals(shares: NDArray[np.float64], nearest: NDArray[np.float64]) -> NDArray[np.float64]:
    """One, the first label's share, the nearest cosine, and the first label's lead over the second."""
    ordered = np.sort(shares, axis=1)
    lead = ordered[:, -1] - (ordered[:, -2] if shares.shape[1] > 1 else 0)
    return np.column_stack([np.ones(len(shares)), ordered[:, -1], nearest, lead])


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
