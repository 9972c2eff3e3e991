"""How often `nearest` is right, whether its confidence means it, and how long it takes.

    python -m benchmarks.nearest

Three sets that no example contains: held-out messages of the same data set as most examples, the evals (worded unlike
any example), and the hostile messages of the tests. Beside it what else could be picked: the plain nearest neighbour by
cosine, and the most common label. ECE is the expected calibration error over ten equal bins of confidence.
"""

import asyncio
import json
import time
from collections.abc import Sequence
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
from processes.support import case as cases
from services.classifier.domain.examples import Example, parse
from services.classifier.outbound.desk import KnowledgeDesk, Library, library_of
from services.classifier.outbound.embeddings import WordLlamaEmbedder
from services.classifier.outbound.nearest import Nearest
from services.runtime.process import load

THRESHOLDS = (0.5, 0.65, 0.8, 0.9)
OUT_OF_SCOPE = "out_of_scope"
INJECTIONS = Path(__file__).parents[1] / "tests" / "data" / "injections.jsonl"
TIMED_MAX = 500


def main() -> None:
    """Print both tables."""
    library = library_of(SUPPORT)
    sets = {
        "held out": parse(HELD_OUT.read_text(encoding="utf-8")),
        "evals, from the data set": [e for e in _evals() if e.source == "bitext"],
        "evals, written": [e for e in _evals() if e.source == "written"],
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
        *(f"at {t}: answered / right" for t in THRESHOLDS),
    ):
        table.add_column(name, justify="right" if name != "set" else "left")
    for name, examples in sets.items():
        table.add_row(name, *_row(library, examples))
    console = Console(width=160)
    console.print(table)
    console.print(_injections(library))
    console.print(asyncio.run(_speed(sets["held out"])))


def _evals() -> Sequence[Example]:
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
        *(f"{(sure >= t).mean():.0%} / {right[sure >= t].mean() if (sure >= t).any() else 0:.1%}" for t in THRESHOLDS),
    ]


def calibration_error(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Mean distance between confidence and share of right answers over ten bins, weighted by their size."""
    bins = np.minimum((sure * 10).astype(int), 9)
    return float(
        sum(abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    )


def _plain_cosine(examples: Sequence[Example]) -> float:
    embedder = WordLlamaEmbedder()
    known = parse((SUPPORT / "examples.jsonl").read_text(encoding="utf-8"))
    nearest = (embedder.embed([e.text for e in examples]) @ embedder.embed([e.text for e in known]).T).argmax(axis=1)
    return float(np.mean([known[i].label == e.label for i, e in zip(nearest, examples, strict=True)]))


def _injections(library: Library) -> str:
    votes = [library.vote(json.loads(line)["text"]) for line in INJECTIONS.read_text(encoding="utf-8").splitlines()]
    doubted = sum(not v.familiar or v.label == OUT_OF_SCOPE or v.confidence < THRESHOLDS[1] for v in votes)
    return f"hostile messages: {doubted} of {len(votes)} are out of scope or below {THRESHOLDS[1]}"


async def _speed(examples: Sequence[Example]) -> str:
    process = load("support")
    desk, provider = KnowledgeDesk(process), Nearest(process)
    facts = {"customer": FactAnswer(name="customer", ok=True, rows=({"name": "Ada Adler"},))}
    took: list[float] = []
    for example in examples[:TIMED_MAX]:
        case = _case(example.text)
        started = time.perf_counter()
        await provider.propose(desk.ask(case, facts))
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
