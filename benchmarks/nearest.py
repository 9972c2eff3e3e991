"""How often `nearest` is right, whether its confidence means it, and how long it takes.

    python -m benchmarks.nearest

Three sets that no example contains: held-out messages of the same data set as many examples, the evals (most of them
worded otherwise than it), and the hostile messages of the tests. Beside it what else could be picked: the plain nearest
neighbour by cosine, and the most common label. ECE is the expected calibration error over ten equal bins of confidence.
Of few texts even a confidence that is exactly right shows one: beside it stands what that shows by chance, on average
and at most in 95 of 100 draws.

The second table is what the shipped rules execute without a person, and how much of that is wrong by label, with the
least confidence that keeps this below WRONG_MAX on every other held-out message (fitted), and with the shipped one. The
third shows how often each confidence was right on held-out messages.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.bitext import HELD_OUT, SUPPORT
from contracts.base import Contract
from contracts.decision import FactAnswer
from contracts.events.cases import CaseChanged
from contracts.sealed import SealedText
from nightshift.evals import examples as evals
from nightshift.evals.run import run_evals
from processes.support import case as cases
from services.classifier.domain.examples import Example, parse
from services.classifier.outbound.desk import KnowledgeDesk, Library, library_of
from services.classifier.outbound.embeddings import WordLlamaEmbedder
from services.classifier.outbound.nearest import Nearest
from services.runtime.process import Process, load

THRESHOLDS = (0.5, 0.65, 0.8, 0.9)
WRONG_MAX = 0.01
OUT_OF_SCOPE = "out_of_scope"
INJECTIONS = Path(__file__).parents[1] / "tests" / "data" / "injections.jsonl"
TIMED_MAX = 500
DRAWS = 1_000


def main() -> None:
    """Print both tables."""
    library = library_of(load("support"))
    sets = {
        "held out": parse(HELD_OUT.read_text(encoding="utf-8")),
        "evals, from the data set": [e for e in labelled_evals() if e.source == "bitext"],
        "evals, written": [e for e in labelled_evals() if e.source == "written"],
    }
    table = Table(
        title="nearest: right by confidence",
        caption=f"{len(library.passages)} passages; index {library.index_version[:12]}",
    )
    for name in (
        "set",
        "texts",
        "right",
        "1-NN cosine",
        "most common",
        "ECE",
        "of it by chance",
        *(f"at {t}: answered / right" for t in THRESHOLDS),
    ):
        table.add_column(name, justify="right" if name != "set" else "left")
    for name, examples in sets.items():
        table.add_row(name, *_row(library, examples))
    console = Console(width=160)
    console.print(table)
    console.print(asyncio.run(_executed(sets)))
    console.print(_reliability(library, sets["held out"]))
    console.print(_out_of_scope(library, sets))
    console.print(asyncio.run(_speed(sets["held out"])))


def labelled_evals() -> Sequence[Example]:
    """The evals of the support process, as examples are."""
    return [
        Example(text=one.text, label=one.expected["intent"], language=one.expected["language"], source=one.source)
        for one in evals.read(SUPPORT / evals.FILE, load("support").Proposal)
    ]


def _row(library: Library, examples: Sequence[Example]) -> list[str]:
    votes = [library.vote(example.text) for example in examples]
    said = [vote.label if vote.familiar else OUT_OF_SCOPE for vote in votes]
    right = np.array([label == example.label for label, example in zip(said, examples, strict=True)])
    sure = np.array([vote.confidence for vote in votes])
    labels = [example.label for example in examples]
    return [
        str(len(examples)),
        f"{right.mean():.1%}",
        f"{_plain_cosine(examples):.1%}",
        f"{max(labels.count(label) for label in set(labels)) / len(labels):.1%}",
        f"{calibration_error(sure, right):.3f}",
        "{:.3f}, up to {:.3f}".format(*chance_of_error(sure)),
        *(f"{(sure >= t).mean():.0%} / {right[sure >= t].mean() if (sure >= t).any() else 0:.1%}" for t in THRESHOLDS),
    ]


def calibration_error(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Mean distance between confidence and share of right answers over ten bins, weighted by their size."""
    bins = np.minimum((sure * 10).astype(int), 9)
    return float(
        sum(abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    )


def chance_of_error(sure: NDArray[np.float64]) -> tuple[float, float]:
    """The calibration error of so many texts if each confidence is exactly right: the mean, and the 95th percentile."""
    draws = np.random.default_rng(1).random((DRAWS, len(sure))) < sure
    errors = [calibration_error(sure, right) for right in draws]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def _plain_cosine(examples: Sequence[Example]) -> float:
    embedder = WordLlamaEmbedder()
    known = parse((SUPPORT / "examples.jsonl").read_text(encoding="utf-8"))
    nearest = (embedder.embed([e.text for e in examples]) @ embedder.embed([e.text for e in known]).T).argmax(axis=1)
    return float(np.mean([known[i].label == e.label for i, e in zip(nearest, examples, strict=True)]))


async def _executed(sets: Mapping[str, Sequence[Example]]) -> Table:
    """Every message once under rules that ask for no confidence; who is sure enough is counted afterwards."""
    shipped = load("support").settings.policy
    open_to_all = load("support", overrides={"policy": {"confidence_min": 0.0, "refunds": {"confidence_min": 0.0}}})
    fitting, *reported = {
        "held out, every other (fitted)": sets["held out"][::2],
        "held out, the rest": sets["held out"][1::2],
        "evals": [*sets["evals, from the data set"], *sets["evals, written"]],
    }.items()
    answers = {name: await _answers(open_to_all, examples) for name, examples in (fitting, *reported)}
    grid = [step / 100 for step in range(50, 100)]
    fitted = next(t for t in grid if _wrong(answers[fitting[0]], t)[1] <= WRONG_MAX)
    table = Table(title="executed under the shipped rules without a person / wrong of that")
    table.add_column("set")
    least = {"fitted": fitted, "shipped": _confidence_min(shipped)}
    for name, threshold in least.items():
        table.add_column(f"{name}: {threshold:.2f}", justify="right")
    for name, answered in answers.items():
        table.add_row(name, *("{:.1%} / {:.1%}".format(*_wrong(answered, threshold)) for threshold in least.values()))
    return table


def _confidence_min(policy: Mapping[str, object]) -> float:
    least = policy["confidence_min"]
    assert isinstance(least, float), "policy.py checks it"
    return least


async def _answers(process: Process, examples: Sequence[Example]) -> list[tuple[float, bool]]:
    """Confidence of each answer that the rules would execute, and whether it is right; 0.0 of each other."""
    asked = [
        evals.Eval(text=one.text, expected={"intent": one.label, "language": one.language}, source=one.source)
        for one in examples
    ]
    rows = (await run_evals(process, asked, Nearest(process), times=1)).result.rows
    said = [(row, row.answers[0]) for row in rows]
    return [(a.confidence if a.verdict == "execute" else 0.0, a.got == row.expected) for row, a in said]


def _wrong(answered: Sequence[tuple[float, bool]], threshold: float) -> tuple[float, float]:
    """The share that is executed, and the share of it that is wrong."""
    right = [ok for sure, ok in answered if sure >= threshold]
    return len(right) / len(answered), 1 - sum(right) / len(right) if right else 0.0


def _reliability(library: Library, examples: Sequence[Example]) -> Table:
    votes = [library.vote(example.text) for example in examples]
    table = Table(title="held out: how often each confidence was right")
    for column in ("confidence", "messages", "mean", "right", ""):
        table.add_column(column, justify="right" if column else "left")
    for low in range(10):
        of_bin = [
            (v.confidence, v.label == e.label)
            for v, e in zip(votes, examples, strict=True)
            if min(int(v.confidence * 10), 9) == low
        ]
        if of_bin:
            mean, right = (sum(column) / len(of_bin) for column in zip(*of_bin, strict=True))
            bar = "█" * round(20 * right)
            table.add_row(f"{low / 10:.1f}-{(low + 1) / 10:.1f}", str(len(of_bin)), f"{mean:.2f}", f"{right:.2f}", bar)
    return table


def _out_of_scope(library: Library, sets: Mapping[str, Sequence[Example]]) -> str:
    """How well confidence tells what is none of the process' business: 1.0 always, 0.5 by chance."""
    hostile = [json.loads(line)["text"] for line in INJECTIONS.read_text(encoding="utf-8").splitlines()]
    of_evals = [*sets["evals, from the data set"], *sets["evals, written"]]
    outside = [_in_scope(library, text) for text in [*hostile, *(e.text for e in of_evals if e.label == OUT_OF_SCOPE)]]
    lines = []
    for name, examples in (("held out", sets["held out"]), ("evals", of_evals)):
        inside = np.array([_in_scope(library, e.text) for e in examples if e.label != OUT_OF_SCOPE])[:, None]
        area = float(np.mean((inside > outside) + 0.5 * (inside == np.array(outside))))
        lines.append(f"{name} against {len(outside)} hostile or out of scope: AUROC {area:.3f}")
    return "\n".join(lines)


def _in_scope(library: Library, text: str) -> float:
    vote = library.vote(text)
    return vote.confidence if vote.familiar and vote.label != OUT_OF_SCOPE else 0.0


async def _speed(examples: Sequence[Example]) -> str:
    process = load("support")
    desk, provider = KnowledgeDesk(process), Nearest(process)
    facts = {"customer": FactAnswer(name="customer", ok=True, rows=({"name": "Ada Adler"},))}
    took: list[float] = []
    for example in examples[:TIMED_MAX]:
        case = _case(example.text)
        started = time.perf_counter()
        await provider.propose(await desk.ask(case, facts))
        took.append((time.perf_counter() - started) * 1000)
    p50, p99 = np.percentile(took, 50), np.percentile(took, 99)
    per_second = 1000 * len(took) / sum(took)
    return f"one proposal, passages included: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {per_second:.0f}/s on one core"


def _case(text: str) -> Contract:
    stamp = "2026-11-25T09:00:00.000000Z"
    change = CaseChanged.model_validate(
        {
            "door": "zendesk",
            "object_id": "42",
            "kind": "created",
            "identity": "benchmark",
            "version": stamp,
            "author": "customer",
            "fields": {"comment_public": True, "comment_created_at": stamp, "requester_id": "501"},
            "texts": {"body": "sealed:1:1:AA"},
            "occurred_at": stamp,
            "received_at": stamp,
        }
    )
    return cases.reveal(cases.fold(None, change), lambda _: SealedText(text))


if __name__ == "__main__":
    main()
