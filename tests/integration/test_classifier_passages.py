"""Passages in Postgres: what is written, and what is found; and that a search without it finds the same."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import bm25s
import numpy as np
import pytest

from contracts.knowledge import Passage, Question
from nightshift.evals.examples import FILE, read as read_evals
from services.classifier.app import _finds
from services.classifier.domain.examples import parse
from services.classifier.domain.knowledge import words_of
from services.classifier.domain.words import terms_of
from services.classifier.outbound import indexing
from services.classifier.outbound.desk import KnowledgeDesk, Library, library_of
from services.classifier.outbound.embeddings import WordLlamaEmbedder
from services.classifier.outbound.indexing import Written
from services.classifier.outbound.nearest import Nearest
from services.classifier.outbound.passages import WRITTEN_AGAIN_SECONDS, PassageIndex
from services.classifier.outbound.passages_in_memory import PassagesInMemory
from services.runtime.postgres import Database, connect
from services.runtime.process import Retrieval, load
from tests.conftest import MigratedDatabase
from tests.fakes.anthropic import FakeAnthropic
from tests.unit.support.tickets import created, facts, revealed

SUPPORT = load("support").folder
EMBEDDER = WordLlamaEmbedder()
WANTED = 30


@pytest.fixture
async def database(migrated: MigratedDatabase) -> AsyncIterator[Database]:
    async with connect(migrated.url("nightshift_classifier"), schema="classifier") as database:
        yield database


def passage(name: str, text: str, *, language: str = "en", brand: str = "any") -> Passage:
    return Passage(
        id=name,
        title="",
        intents=("any",),
        brand=brand,
        language=language,
        text=text,
        reply="",
        version=f"{text} {brand} {language}",
    )


async def write(
    database: Database, passages: Sequence[Passage], version: str = "1", *, k1: float = 1.2, b: float = 0.75
) -> Written:
    async with database.transaction() as connection:
        return await indexing.write(
            connection, "tested", passages, embedder=EMBEDDER, index_version=version, k1=k1, b=b
        )


async def by_words(
    database: Database, text: str, *, brands: Sequence[str] = ("any",), wanted: int = WANTED
) -> list[tuple[str, float]]:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT p.source, w.found_score FROM search_words('tested', $1, $2, $3) w "
            "JOIN passages p ON p.passage_id = w.found_id ORDER BY w.found_score DESC, w.found_id",
            terms_of(text, "en"),
            brands,
            wanted,
        )
    return [(row["source"], row["found_score"]) for row in rows]


def invented(count: int, *, seed: int = 1) -> list[Passage]:
    """Passages about forty subjects, of frequent words and rare ones."""
    random = np.random.default_rng(seed)
    words = np.array([f"{a}{b}{c}" for a in ("ba", "du", "ki", "lo", "me") for b in "abcdefgh" for c in "mnrst"])
    return [
        passage(
            f"{seed}-{i:05}",
            " ".join(words[np.minimum(random.zipf(1.3, 40), 150) - 1])
            + " "
            + " ".join(words[160 + i % 40] for _ in range(1 + i % 3)),
        )
        for i in range(count)
    ]


async def check(database: Database, passages: Sequence[Passage], questions: Sequence[str], **bm25: float) -> None:
    """Scores and order are those of another implementation."""
    reference = bm25s.BM25(**{"k1": 1.2, "b": 0.75, **bm25}, method="lucene", dtype="float64")
    reference.index([terms_of(words_of(p), p.language) for p in passages], show_progress=False)
    place = {p.id: i for i, p in enumerate(passages)}
    for question in questions:
        scores = reference.get_scores(terms_of(question, "en"))
        found = await by_words(database, question)
        best = np.sort(scores[scores > 0])[::-1][:WANTED]
        assert [score for _, score in found] == pytest.approx(best, abs=1e-6)
        assert [score for _, score in found] == pytest.approx([scores[place[source]] for source, _ in found], abs=1e-6)


@pytest.fixture(scope="module")
def cranfield() -> tuple[list[Passage], list[str]]:
    if not (folder := os.environ.get("NIGHTSHIFT_CRANFIELD")):
        pytest.skip("NIGHTSHIFT_CRANFIELD names no folder with the Cranfield collection, which nobody may ship")
    texts = (Path(folder) / "cran.all.1400").read_text().split(".I ")[1:]
    asked = (Path(folder) / "cran.qry").read_text().split(".I ")[1:]
    return (
        [passage(text.split("\n", 1)[0].strip(), text.split(".W\n", 1)[1]) for text in texts],
        [text.split(".W\n", 1)[1] for text in asked],
    )


async def test_scores_are_those_of_bm25_on_cranfield(
    database: Database, cranfield: tuple[list[Passage], list[str]]
) -> None:
    passages, questions = cranfield

    assert await write(database, passages) == Written(1400, 0)

    await check(database, passages, questions)


async def test_what_is_left_unread_changes_no_score(database: Database) -> None:
    passages = invented(1200)

    await write(database, passages)

    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM postings") > 20_000
    questions = [" ".join(p.text.split()[-6:]) for p in passages[:40]] + [p.text for p in passages[:5]]
    await check(database, passages, questions)


async def test_telling_many_apart_by_terms_that_all_are_alike_changes_no_score(database: Database) -> None:
    random = np.random.default_rng(3)
    words = [f"{a}{b}m" for a in ("ba", "du", "ki", "lo", "me", "ra") for b in "abcdefghij"]
    passages = [passage(f"{i:04}", " ".join(random.choice(words, 8))) for i in range(3000)]

    await write(database, passages)

    await check(database, passages, [" ".join(random.choice(words, 30, replace=False)) for _ in range(20)])


async def test_an_index_that_changed_scores_like_one_made_anew(database: Database) -> None:
    passages = invented(1200)
    await write(database, passages)
    longer = [passage(p.id, f"{p.text} {p.text} more") for p in passages[:100]]
    changed = [*longer, *passages[200:], *invented(300, seed=2)]

    assert await write(database, changed, "2") == Written(400, 200)

    await check(database, changed, [p.text for p in passages[:10]])
    assert await write(database, changed, "3", k1=2.0, b=0.3) == Written(0, 0)
    await check(database, changed, [p.text for p in passages[:10]], k1=2.0, b=0.3)


async def test_only_what_changed_is_written_and_what_was_there_is_kept(database: Database) -> None:
    await write(database, [passage("stays", "one"), passage("changes", "two"), passage("goes", "three")])

    assert await write(database, [passage("stays", "one"), passage("changes", "four")], "2") == Written(1, 2)

    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT source, version, removed_at IS NULL AS current FROM passages ORDER BY passage_id"
        )
        terms = await connection.fetch("SELECT term, passages FROM terms ORDER BY term")
    assert [tuple(row) for row in rows] == [
        ("stays", "one any en", True),
        ("changes", "two any en", False),
        ("goes", "three any en", False),
        ("changes", "four any en", True),
    ]
    assert [tuple(row) for row in terms] == [("en:four", 1), ("en:one", 1)]


async def test_two_that_write_at_once_write_once(database: Database) -> None:
    passages = invented(50)

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(write(database, passages)) for _ in range(4)]

    assert sorted(writer.result().added for writer in writers) == [0, 0, 0, 50]
    await check(database, passages, [passages[0].text])


async def test_another_brands_passage_is_not_found(database: Database) -> None:
    await write(database, [passage("ours", "parcel"), passage("theirs", "parcel", brand="7002")])

    assert [source for source, _ in await by_words(database, "parcels")] == ["ours"]
    assert {source for source, _ in await by_words(database, "parcels", brands=["any", "7002"])} == {"ours", "theirs"}


async def test_words_without_a_passage_find_nothing(database: Database) -> None:
    assert await by_words(database, "parcel") == []
    await write(database, [passage("one", "parcel"), passage("empty", "")])

    assert await by_words(database, "nothing of it") == []
    assert await write(database, [], "2") == Written(0, 2)
    assert await by_words(database, "parcel") == []


async def test_labels_alone_find_what_is_found_in_memory(database: Database) -> None:
    support = load("support")
    library = library_of(support)
    searched = PassageIndex(database, "support", library, Retrieval(words=0, meaning=0, labels=1))

    for text, language in (("Where is my order?", "en"), ("Wo ist meine Bestellung?", "de"), ("je veux payer", "fr")):
        question = Question(text=text, brand="7002", language=language)
        in_memory, found = await library.find(question), await searched.find(question)
        assert found.passages == in_memory.passages


async def test_a_passage_found_by_words_and_meaning_is_the_files_own(database: Database) -> None:
    support = load("support")
    library = library_of(support)
    question = Question(text="Wie lange dauert die Lieferung?", brand=None, language="de")

    found = await PassageIndex(database, "support", library, Retrieval(labels=0)).find(question)

    assert found.passages[0] == next(p for p in library.passages if p.id == "de-delivery-period")
    assert {p.language for p in found.passages} == {"de", "en"}
    again = await PassageIndex(database, "support", library, Retrieval(labels=0)).find(question)
    assert again == found
    assert len(found.index_version) == 64


async def test_a_proposal_says_which_passages_it_saw_and_they_can_be_read(database: Database) -> None:
    support = load("support")
    searched = PassageIndex(database, "support", library_of(support), support.settings.retrieval)
    desk = KnowledgeDesk(support, searched)

    ask = await desk.ask(revealed(created("Where is my order?")), facts())

    made = desk.made_from("claude:one", ask)
    async with database.connection() as connection:
        kept = await connection.fetch(
            "SELECT source, version, content->>'text' AS text FROM passages WHERE process = 'support'"
        )
        known = await connection.fetchval("SELECT index_version FROM knowledge WHERE process = 'support'")
    texts = {(row["source"], row["version"]): row["text"] for row in kept}
    assert made.index_version == known
    assert [texts[used.source, used.version] for used in made.passages] == [p.text for p in ask.passages]
    assert "track-order" in {used.source for used in made.passages}


async def test_what_another_version_wrote_is_written_again_but_not_at_once(database: Database) -> None:
    support, now = load("support"), 0.0
    library, question = library_of(support), Question(text="Where is my order?", brand=None, language="en")
    ours = PassageIndex(database, "support", library, Retrieval(), clock=lambda: now)
    others = PassageIndex(database, "support", library, Retrieval(k1=2))
    own = (await ours.find(question)).index_version
    another = (await others.find(question)).index_version

    found = [(await ours.find(question)).index_version for _ in range(2)]
    now += WRITTEN_AGAIN_SECONDS
    found += [(await ours.find(question)).index_version for _ in range(2)]

    assert found == [another, another, own, own]


@pytest.mark.parametrize(
    "settings",
    [load("support").settings.retrieval, Retrieval(), Retrieval(words=1, meaning=0, labels=0), Retrieval(labels=0)],
    ids=["shipped", "all alike", "words", "words and meaning"],
)
async def test_what_is_found_without_a_database_is_what_postgres_finds(database: Database, settings: Retrieval) -> None:
    library = library_of(load("support"))
    there, here = PassageIndex(database, "support", library, settings), PassagesInMemory(library, settings)
    evals = [(one.text, "en") for one in read_evals(SUPPORT / FILE, load("support").Proposal)]
    examples = [(one.text, one.language) for one in parse((SUPPORT / "examples.jsonl").read_text())]
    asked = [
        Question(text=text, brand=brand, language=language)
        for text, language in [*evals, *examples[::29], ("Wo ist meine Bestellung?", "de"), ("", "en"), ("€", "fr")]
        for brand in (None, "kids")
    ]

    async with database.connection() as connection:  # the one that is taken again for each question
        await connection.execute("SET enable_indexscan = off")  # an index of vectors may leave out what is near
    for question in asked:
        assert await here.find(question) == await there.find(question), question


def test_whatever_reads_passages_searches_and_nearest_alone_finds_in_memory(database: Database) -> None:
    support = load("support")
    claude, nearest = FakeAnthropic("{}").claude(), Nearest(support)

    assert isinstance(_finds([claude], support, database), PassageIndex)
    assert isinstance(_finds([claude, nearest], support, database), PassageIndex)
    assert _finds([nearest], support, database) is None


@pytest.mark.parametrize("known", ["nothing", "no word"])
async def test_where_there_is_nothing_to_find_nothing_is_found(database: Database, tmp_path: Path, known: str) -> None:
    (folder := tmp_path / "knowledge").mkdir()
    if known == "no word":
        (folder / "x.md").write_text('+++\ntitle = "!"\nintents = ["review"]\nlanguage = "en"\n+++\n?\n')
    library = Library(SUPPORT / "examples.jsonl", folder, EMBEDDER)
    asked = Question(text="Where is my order?", brand=None, language="en")
    settings = Retrieval(words=1, meaning=0, labels=0)

    there = await PassageIndex(database, "support", library, settings).find(asked)

    assert there.passages == ()
    assert await PassagesInMemory(library, settings).find(asked) == there
