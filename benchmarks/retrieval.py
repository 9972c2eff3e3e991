"""How good the search for passages is, and how long it takes.

    python -m benchmarks.retrieval [--cranfield FOLDER] [--sizes 1000 10000 100000]

Quality: nDCG@10 and recall@30 of each ranking alone, of all fused, and of what else there is, in memory: bm25s, and the
cosine alone. On the support process's knowledge with its own settings; on the same as if nobody had labelled examples;
and on Cranfield, where FOLDER (or NIGHTSHIFT_CRANFIELD) has it: it may be measured with and not shipped. Weights that
process.toml does not say are chosen on other questions than they are measured on.

Speed: p50 and p99 of whole searches, embedding included, on invented passages of two thousand subjects.
"""

import argparse
import asyncio
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import bm25s
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.bitext import HELD_OUT
from benchmarks.nearest import labelled_evals
from contracts.knowledge import ANY_BRAND, Passage, Question
from nightshift.embedded.postgres import EmbeddedPostgres
from services.classifier.domain.examples import Example, Matrix, parse
from services.classifier.domain.knowledge import words_of
from services.classifier.domain.words import terms_of
from services.classifier.outbound import indexing
from services.classifier.outbound.desk import DEFAULT_LANGUAGE, library_of
from services.classifier.outbound.embeddings import WordLlamaEmbedder
from services.classifier.outbound.passages import DEPTH, search
from services.runtime.migrate import migrate
from services.runtime.postgres import Connection, connect
from services.runtime.process import Retrieval, load

TOP = 10
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
SUBJECTS, WORDS, ASKED_WORDS, QUESTIONS = 2000, 50_000, 10, 300
EMBEDDER = WordLlamaEmbedder()
Ranked = list[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, how much each passage answers it, and what the labelled examples vote."""

    question: Question
    grades: Mapping[str, int]
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages with questions: `tuning` ones to choose weights by, `questions` to measure."""

    name: str
    passages: Sequence[Passage]
    questions: Sequence[Asked]
    tuning: Sequence[Asked]
    settings: Sequence[Retrieval]
    """Of which the best on `tuning` is measured."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cranfield", type=Path, default=os.environ.get("NIGHTSHIFT_CRANFIELD"))
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000])
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightshift-") as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            asyncio.run(_measure(server, told.cranfield, told.sizes))


async def _measure(server: EmbeddedPostgres, cranfield: Path | None, sizes: Sequence[int]) -> None:
    await migrate(server.admin_url)
    console = Console(width=140)
    async with connect(server.url("nightshift_classifier"), schema="classifier") as database:
        corpora = _support() + ([] if cranfield is None else [_cranfield(Path(cranfield))])
        table = Table(title=f"nDCG@{TOP} / recall@{DEPTH}")
        for column in ("corpus", "questions", "words", "meaning", "labels", "fused", "weights", "bm25s", "cosine"):
            table.add_column(column)
        for corpus in corpora:
            async with database.connection() as connection:
                table.add_row(*await _quality(connection, corpus))
        console.print(table)
        if cranfield is None:
            console.print("Cranfield: left out, for --cranfield names no folder")
        table = Table(title="milliseconds, p50 / p99")
        for column in ("passages", "written in", "words", "meaning", "fused", "bm25s", "cosine"):
            table.add_column(column)
        for size in sizes:
            async with database.connection() as connection:
                table.add_row(*await _speed(connection, size))
        console.print(table)


async def _write(connection: Connection, process: str, passages: Sequence[Passage]) -> None:
    async with connection.transaction():
        await indexing.write(
            connection, process, passages, embedder=EMBEDDER, index_version="benchmark", k1=1.2, b=0.75
        )


async def _quality(connection: Connection, corpus: Corpus) -> list[str]:
    await _write(connection, corpus.name, corpus.passages)
    await connection.execute("ANALYZE")

    async def told(settings: Retrieval, asked: Sequence[Asked]) -> tuple[float, float]:
        found = [
            await search(
                connection,
                corpus.name,
                one.question,
                EMBEDDER.embed([one.question.text])[0],
                one.shares,
                settings,
                wanted=DEPTH,
            )
            for one in asked
        ]
        return _judged(asked, [[passage.id for passage in f.passages] for f in found])

    best = corpus.settings[0]
    if corpus.tuning:
        tried = {settings: (await told(settings, corpus.tuning))[0] for settings in corpus.settings}
        best = max(tried, key=lambda settings: tried[settings])
    labelled = best.labels > 0
    legs = [Retrieval(words=1, meaning=0, labels=0), Retrieval(words=0, meaning=1, labels=0)]
    legs += [Retrieval(words=0, meaning=0, labels=1)] if labelled else []
    cells = [_cell(await told(leg, corpus.questions)) for leg in legs] + ([] if labelled else ["-"])
    cells += [_cell(await told(best, corpus.questions)), f"{best.words} {best.meaning} {best.labels}"]
    return [
        corpus.name,
        str(len(corpus.questions)),
        *cells,
        _cell(_judged(corpus.questions, _by(corpus, _bm25s(corpus.passages)))),
        _cell(_judged(corpus.questions, _by(corpus, _cosine(corpus.passages)))),
    ]


def _cell(told: tuple[float, float]) -> str:
    return f"{told[0]:.4f} / {told[1]:.3f}"


def _judged(asked: Sequence[Asked], ranked: Sequence[Ranked]) -> tuple[float, float]:
    gains = [_gain([one.grades.get(i, 0) for i in found]) for one, found in zip(asked, ranked, strict=True)]
    most = [_gain(sorted(one.grades.values(), reverse=True)) for one in asked]
    recall = [len({*found[:DEPTH]} & {*one.grades}) / len(one.grades) for one, found in zip(asked, ranked, strict=True)]
    return float(np.mean(np.divide(gains, most))), float(np.mean(recall))


def _gain(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades[:TOP]))


def _by(corpus: Corpus, score: Callable[[Question], NDArray[np.float64]]) -> list[Ranked]:
    """The best of those that the question may be answered by, as the search's filter says."""
    found: list[Ranked] = []
    for one in corpus.questions:
        scores, languages = score(one.question), (one.question.language, DEFAULT_LANGUAGE)
        may = [p.brand == ANY_BRAND and p.language in languages for p in corpus.passages]
        best = np.argsort(-np.where(may, scores, -np.inf), kind="stable")[:DEPTH]
        found.append([corpus.passages[i].id for i in best])
    return found


def _bm25s(passages: Sequence[Passage]) -> Callable[[Question], NDArray[np.float64]]:
    index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    index.index([terms_of(words_of(p), p.language) for p in passages], show_progress=False)

    def score(question: Question) -> NDArray[np.float64]:
        languages = {question.language, DEFAULT_LANGUAGE}
        scores: NDArray[np.float64] = index.get_scores([t for la in languages for t in terms_of(question.text, la)])
        return scores

    return score


def _cosine(passages: Sequence[Passage]) -> Callable[[Question], NDArray[np.float64]]:
    vectors: Matrix = EMBEDDER.embed([words_of(passage) for passage in passages])
    return lambda question: np.asarray(vectors @ EMBEDDER.embed([question.text])[0], dtype=np.float64)


def _support() -> list[Corpus]:
    """A passage answers a question when it is for its intent, and in its language where there is any."""
    library = library_of(load("support"))

    def asked(texts: Sequence[Example]) -> list[Asked]:
        found = []
        for one in texts:
            fitting = [p for p in library.passages if one.label in p.intents and p.brand == ANY_BRAND]
            own = [p for p in fitting if p.language == one.language]
            if right := own or [p for p in fitting if p.language == DEFAULT_LANGUAGE]:
                question = Question(text=one.text, brand=None, language=one.language)
                found.append(Asked(question, {p.id: 1 for p in right}, library.vote(one.text).shares))
        return found

    evals, held_out = asked(labelled_evals()), asked(parse(HELD_OUT.read_text(encoding="utf-8")))
    shipped = [load("support").settings.retrieval]
    unlabelled = [Retrieval(words=words, meaning=1, labels=0) for words in WEIGHTS]
    return [
        Corpus("support, evals", library.passages, evals, (), shipped),
        Corpus("support, held out", library.passages, held_out, (), shipped),
        Corpus("support without labels, held out", library.passages, held_out, evals, unlabelled),
    ]


def _cranfield(folder: Path) -> Corpus:
    """Weights are chosen by the even questions and measured on the odd ones."""
    passages = [
        _passage(text.split("\n", 1)[0].strip(), text.split(".W\n", 1)[1])
        for text in (folder / "cran.all.1400").read_text().split(".I ")[1:]
    ]
    grades: dict[int, dict[str, int]] = {}
    for line in (folder / "qrel").read_text().splitlines():
        query, _, passage, grade = line.split()
        grades.setdefault(int(query), {})[passage] = int(grade)
    asked = [
        Asked(Question(text=text.split(".W\n", 1)[1], brand=None, language="en"), grades[number], {})
        for number, text in enumerate((folder / "cran.qry").read_text().split(".I ")[1:], start=1)
    ]
    settings = [Retrieval(words=1, meaning=meaning, labels=0) for meaning in WEIGHTS]
    return Corpus("cranfield, odd questions", passages, asked[::2], asked[1::2], settings)


def _passage(name: str, text: str) -> Passage:
    return Passage(
        id=name, title="", intents=("any",), brand=ANY_BRAND, language="en", text=text, reply="", version=name
    )


async def _speed(connection: Connection, size: int) -> list[str]:
    passages, questions = _invented(size)
    process = f"of {size}"
    started = time.perf_counter()
    await _write(connection, process, passages)
    written_seconds = time.perf_counter() - started
    await connection.execute("VACUUM ANALYZE", timeout=300)
    legs = [Retrieval(meaning=0, labels=0), Retrieval(words=0, labels=0), Retrieval(labels=0)]
    took: dict[Retrieval, list[float]] = {leg: [] for leg in legs}
    for text in questions:
        question = Question(text=text, brand=None, language="en")
        for leg in legs:
            began = time.perf_counter()
            await search(connection, process, question, EMBEDDER.embed([text])[0], {}, leg)
            took[leg].append(time.perf_counter() - began)
    cells = [_percentiles(took[leg]) for leg in legs]
    for score in (_bm25s(passages), _cosine(passages)):
        alone = []
        for text in questions:
            began = time.perf_counter()
            scores = score(Question(text=text, brand=None, language="en"))
            np.argpartition(-scores, DEPTH)[:DEPTH]
            alone.append(time.perf_counter() - began)
        cells.append(_percentiles(alone))
    return [f"{size:,}", f"{written_seconds:.1f} s", *cells]


def _percentiles(seconds: Sequence[float]) -> str:
    return f"{np.percentile(seconds, 50) * 1000:.1f} / {np.percentile(seconds, 99) * 1000:.1f}"


def _invented(size: int) -> tuple[list[Passage], list[str]]:
    """Half of a text's words are everybody's, half its subject's; few words are frequent, as in any language."""
    random = np.random.default_rng(7)
    syllables = [f"{a}{b}" for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = np.array(["".join(random.choice(syllables, 4)) for _ in range(WORDS)])
    share, own_share = 1 / np.arange(1, WORDS + 1), 1 / np.arange(1, 201)
    everybodys, owns = np.cumsum(share / share.sum()), np.cumsum(own_share / own_share.sum())
    subjects = random.integers(200, WORDS, (SUBJECTS, 200))

    def text(length: int) -> str:
        subject = subjects[random.integers(SUBJECTS)]
        common = np.searchsorted(everybodys[:-1], random.random(length))
        own = subject[np.searchsorted(owns[:-1], random.random(length))]
        return " ".join(words[np.where(random.random(length) < 0.5, common, own)])  # noqa: PLR2004  # half of them

    passages = [_passage(f"{i:06}", text(max(8, int(random.lognormal(4, 0.4))))) for i in range(size)]
    return passages, [text(ASKED_WORDS) for _ in range(QUESTIONS)]


if __name__ == "__main__":
    main()
