"""What a run of the evals found: a file that git can hold, and its comparison with the one before."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nightshift import MendableError
from services.classifier.domain.regime import Passed, Record

EVALS_MIN = 20
"""Fewer say next to nothing of a model."""
SIGNIFICANT_ABOVE = 200
"""So many evals are needed for a test of significance to say more than a person who reads what changed."""
SIGNIFICANT_P = 0.05
_Z = 1.959964
"""Of a 95 % interval."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Answered(_Strict):
    """One answer to one eval."""

    got: Mapping[str, Any]
    """The expected fields, as they were proposed; none where the output failed the schema."""
    confidence: float
    verdict: str
    """What the rules did about it."""


class Row(_Strict):
    """One eval and its answers, one a run."""

    id: str
    must_pass: bool
    expected: Mapping[str, Any]
    answers: tuple[Answered, ...] = Field(min_length=1)

    @property
    def right(self) -> bool:
        """Whether more than half of the answers have every field as expected."""
        return sum(answer.got == self.expected for answer in self.answers) * 2 > len(self.answers)

    @property
    def is_let_out(self) -> bool:
        """Whether the rules let more than half of the answers out."""
        return sum(answer.verdict == "execute" for answer in self.answers) * 2 > len(self.answers)

    @property
    def flickers(self) -> bool:
        """Whether the same question got different answers."""
        return any(one.got != other.got for one, other in pairwise(self.answers))


class Share(NamedTuple):
    """So many of so many."""

    right: int
    of: int

    @property
    def value(self) -> float:
        return self.right / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of 95 %."""
        if not self.of:
            return math.nan, math.nan
        n, p, z2 = self.of, self.value, _Z * _Z
        middle, half = p + z2 / (2 * n), _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)


class Result(Record):
    """One run of all evals of a process; the record by which a classifier serves the regime, where it passed."""

    model_config = ConfigDict(extra="forbid")

    evals: str
    """Digest of the evals."""
    times: int
    cost_usd: Decimal
    rows: tuple[Row, ...] = Field(min_length=1)

    def fields(self) -> dict[str, Share]:
        """How often each field was as expected, over all answers."""
        asked, right = Counter[str](), Counter[str]()
        for row in self.rows:
            for answer in row.answers:
                asked.update(row.expected.keys())
                right.update(name for name, value in row.expected.items() if answer.got.get(name) == value)
        return {name: Share(right[name], count) for name, count in asked.items()}

    def verdicts(self) -> dict[str, Share]:
        """What the rules did: how many of those answers were right in every field, of how many."""
        all_of, right = Counter[str](), Counter[str]()
        for row in self.rows:
            for answer in row.answers:
                all_of[answer.verdict] += 1
                right[answer.verdict] += answer.got == row.expected
        return {name: Share(right[name], count) for name, count in all_of.most_common()}

    def confused(self, field: str) -> list[tuple[str, str, int]]:
        """(expected, got, how often), the most frequent first."""
        pairs = Counter(
            (str(row.expected[field]), str(answer.got.get(field, "nothing")))
            for row in self.rows
            if field in row.expected
            for answer in row.answers
            if answer.got.get(field) != row.expected[field]
        )
        return [(expected, got, count) for (expected, got), count in pairs.most_common()]

    def worst(self) -> list[tuple[Row, Answered]]:
        """Wrong answers, the surest first."""
        wrong = [(row, a) for row in self.rows for a in row.answers[:1] if a.got != row.expected]
        return sorted(wrong, key=lambda pair: -pair[1].confidence)

    def as_passed(self, before: "Result | None", accepted: frozenset[str]) -> "Result":
        """As it goes on record. The same regime asked again is still the one that was compared with another."""
        if before is not None and before.passed is not None and before.regime == self.regime:
            against, accepted = before.passed.against, accepted | {*before.passed.accepted}
        else:
            against = None if before is None else before.regime
        return self.model_copy(update={"passed": Passed(against=against, accepted=tuple(sorted(accepted)))})

    def to_lines(self) -> str:
        """JSON with a row a line: a change of one answer is a change of one line."""
        head = self.model_dump_json(exclude={"rows"})[:-1]
        rows = ",\n".join(row.model_dump_json() for row in sorted(self.rows, key=lambda row: row.id))
        return f'{head},"rows":[\n{rows}\n]}}\n'


class ResultInvalidError(MendableError):
    """A result file cannot be read."""


def from_lines(content: str, name: str) -> Result:
    """Of to_lines. Raises ResultInvalidError."""
    try:
        return Result.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise ResultInvalidError(
            f"{name} is no result of `nightshift eval` ({where}: {first['msg']}): put back the one of git, or of one "
            "side of a merge, then write it anew with --write"
        ) from None


class Flip(NamedTuple):
    """An eval that is answered otherwise than before."""

    row: Row
    better: bool


class Comparison(NamedTuple):
    """What stands against a result, and what changed."""

    blocks: Sequence[str]
    """Why it does not pass; nothing where it does."""
    flips: Sequence[Flip]
    newly_held: Sequence[Row]
    """What the rules let out before, and do not now; a person judges that, for limits of the rules may be meant so."""
    need_not_pass: Sequence[str]
    """By id: what had to pass before, and is gone, or need not now. Who reviews the change judges that."""

    @property
    def newly_wrong(self) -> frozenset[str]:
        """By id."""
        return frozenset(flip.row.id for flip in self.flips if not flip.better)


def compare(
    result: Result, before: Result | None, *, floors: Mapping[str, float], accepted: frozenset[str] = frozenset()
) -> Comparison:
    """Whether a result passes: against its floors, and against the result of the regime that is live.

    An eval that must pass and newly fails blocks. Of others each one that newly fails blocks until a person accepts it
    by its id; above SIGNIFICANT_ABOVE evals McNemar's test decides about them together.
    """
    known = {} if before is None else {row.id: row for row in before.rows}
    flips = [Flip(row, better=row.right) for row in result.rows if row.id in known and known[row.id].right != row.right]
    held = [row for row in result.rows if row.id in known and known[row.id].is_let_out and not row.is_let_out]
    must_pass = {row.id for row in result.rows if row.must_pass}
    need_not = [row.id for row in known.values() if row.must_pass and row.id not in must_pass]
    blocks = [*_below(result, floors), *_broken(result, known), *_worse(result, flips, accepted)]
    return Comparison(blocks, flips, held, need_not)


def _below(result: Result, floors: Mapping[str, float]) -> Iterator[str]:
    shares = result.fields()
    for field, floor in floors.items():
        share = shares.get(field)
        if share is None:
            yield f"{field}: no eval expects it, and it has a floor of {floor:.0%}"
        elif share.value < floor:
            yield f"{field}: {share.right} of {share.of} right ({share.value:.1%}), and the floor is {floor:.0%}"


def _broken(result: Result, known: Mapping[str, Row]) -> Iterator[str]:
    for row in result.rows:
        if row.must_pass and not row.right and (row.id not in known or known[row.id].right):
            yield f"{row.id} must pass and does not: expected {_said(row.expected)}, got {_said(row.answers[0].got)}"


def _worse(result: Result, flips: Sequence[Flip], accepted: frozenset[str]) -> Iterator[str]:
    worse = [flip.row for flip in flips if not flip.better and not flip.row.must_pass]
    if len(result.rows) > SIGNIFICANT_ABOVE:
        p = mcnemar(len(worse), sum(flip.better for flip in flips))
        if p < SIGNIFICANT_P:
            yield f"{len(worse)} newly wrong, and that is no chance (McNemar's test: p = {p:.4f})"
        return
    for row in worse:
        if row.id not in accepted:
            yield (
                f"{row.id} was right and is wrong: expected {_said(row.expected)}, got {_said(row.answers[0].got)}; "
                f"`--accept {row.id}` where that is meant"
            )


def mcnemar(worse: int, better: int) -> float:
    """How likely so many, or more, would be newly wrong among those that changed, were it chance (exact, one-sided)."""
    changed = worse + better
    return sum(math.comb(changed, k) for k in range(worse, changed + 1)) / (1 << changed)


def _said(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items()) or "nothing that fits the schema"
