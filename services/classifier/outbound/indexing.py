"""A process's passages written into Postgres: what is new and what is gone, in one transaction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Final

from contracts.base import Json
from contracts.knowledge import Passage
from services.classifier.domain import knowledge
from services.classifier.domain.words import STEMMER, terms_of
from services.classifier.outbound.embeddings import WordLlamaEmbedder
from services.runtime.postgres import Connection

WRITTEN_AT_ONCE_MAX: Final = 1000
LENGTH_DRIFT_MAX: Final = 1.1
"""Impacts are computed anew once the average length is so many times another; till then more is read than need be."""

_LOCK = """
INSERT INTO knowledge (process) VALUES ($1) ON CONFLICT (process) DO UPDATE SET process = excluded.process
RETURNING index_version, terms, k1, b, impacts_length
"""
_CURRENT = """
SELECT p.passage_id, p.source, p.digest, s.length FROM passages p JOIN searchable s USING (passage_id)
WHERE p.process = $1 AND p.removed_at IS NULL
"""
_REMOVE = """
WITH gone AS (DELETE FROM postings WHERE passage_id = ANY ($2::integer[]) RETURNING term_id),
     fewer AS (SELECT term_id, count(*) AS passages FROM gone GROUP BY term_id),
     counted AS (UPDATE terms t SET passages = t.passages - f.passages FROM fewer f WHERE t.term_id = f.term_id),
     unsearched AS (DELETE FROM searchable WHERE passage_id = ANY ($2))
UPDATE passages SET removed_at = clock_timestamp() WHERE process = $1 AND passage_id = ANY ($2)
"""
_FORGET_TERMS = "DELETE FROM terms WHERE process = $1 AND passages = 0"
_IMPACTS = """
UPDATE postings p SET impact = impact_of(p.times, p.length, $2, $3, $4) FROM terms t
WHERE t.term_id = p.term_id AND t.process = $1
"""
_ADD = """
INSERT INTO passages (process, source, version, digest, content)
SELECT $1, source, version, digest, content
FROM jsonb_to_recordset($2) AS t (source text, version text, digest text, content jsonb)
"""
_ADD_POSTINGS = """
WITH told AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::integer[], $5::integer[]) t (source, term, times, length)
), known AS (
    INSERT INTO terms (process, term, passages) SELECT $1, term, count(*) FROM told GROUP BY term ORDER BY term
    ON CONFLICT (process, term) DO UPDATE SET passages = terms.passages + excluded.passages RETURNING term_id, term
)
INSERT INTO postings (passage_id, term_id, times, length, impact)
SELECT p.passage_id, k.term_id, t.times, t.length, impact_of(t.times, t.length, $6, $7, $8)
FROM told t JOIN known k USING (term)
JOIN passages p ON p.process = $1 AND p.source = t.source AND p.removed_at IS NULL
"""
_ADD_SEARCHABLE = """
INSERT INTO searchable (passage_id, process, language, brand, intents, length, terms, times, embedding)
SELECT p.passage_id, $1, t.language, t.brand, t.intents, t.length, h.terms, h.times, t.embedding::public.halfvec
FROM jsonb_to_recordset($2)
    AS t (source text, language text, brand text, intents text[], length integer, embedding text)
JOIN passages p ON p.process = $1 AND p.source = t.source AND p.removed_at IS NULL
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(o.term_id), '{}') AS terms, coalesce(array_agg(o.times), '{}') AS times
    FROM postings o WHERE o.passage_id = p.passage_id
) h
"""
_WRITTEN = """
UPDATE knowledge SET index_version = $2, passages = $3, terms = $4, k1 = $5, b = $6, impacts_length = $7
WHERE process = $1
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What an update came to."""

    added: int
    removed: int


async def write(
    connection: Connection,
    process: str,
    passages: Sequence[Passage],
    *,
    embedder: WordLlamaEmbedder,
    index_version: str,
    k1: float,
    b: float,
) -> Written:
    """Make `passages` the process's knowledge. In a transaction; another writer of the process waits for its end."""
    known = await connection.fetchrow(_LOCK, process)
    assert known is not None, "it is inserted or updated"
    if known["index_version"] == index_version:
        return Written(0, 0)
    current = {row["source"]: row for row in await connection.fetch(_CURRENT, process)}
    digests = {passage.id: _digest(passage, embedder) for passage in passages}
    gone = [row for source, row in current.items() if digests.get(source) != row["digest"]]
    fresh = [p for p in passages if p.id not in current or current[p.id]["digest"] != digests[p.id]]
    counted = [Counter(terms_of(knowledge.words_of(passage), passage.language)) for passage in fresh]

    terms = known["terms"] + sum(c.total() for c in counted) - sum(row["length"] for row in gone)
    average = max(terms, 1) / max(len(passages), 1)
    if gone:
        await connection.execute(_REMOVE, process, [row["passage_id"] for row in gone])
        await connection.execute(_FORGET_TERMS, process)
    impacts = (known["k1"], known["b"], known["impacts_length"])
    drift = max(average, impacts[2]) / max(min(average, impacts[2]), 1e-9)
    if impacts[:2] != (k1, b) or drift > LENGTH_DRIFT_MAX:
        impacts = (k1, b, average)
        await connection.execute(_IMPACTS, process, *impacts)
    for start in range(0, len(fresh), WRITTEN_AT_ONCE_MAX):
        some = slice(start, start + WRITTEN_AT_ONCE_MAX)
        await _add(connection, process, fresh[some], counted[some], embedder, impacts)
    await connection.execute(_WRITTEN, process, index_version, len(passages), terms, *impacts)
    return Written(len(fresh), len(gone))


async def _add(
    connection: Connection,
    process: str,
    passages: Sequence[Passage],
    counted: Sequence[Counter[str]],
    embedder: WordLlamaEmbedder,
    impacts: tuple[float, float, float],
) -> None:
    vectors = embedder.embed([knowledge.words_of(passage) for passage in passages]).tolist()
    rows: list[Json] = [
        {
            "source": passage.id,
            "version": passage.version,
            "digest": _digest(passage, embedder),
            "content": {name: value for name, value in asdict(passage).items() if name not in ("id", "version")},
            "language": passage.language,
            "brand": passage.brand,
            "intents": list(passage.intents),
            "length": terms.total(),
            "embedding": str(vector),
        }
        for passage, terms, vector in zip(passages, counted, vectors, strict=True)
    ]
    await connection.execute(_ADD, process, rows)
    postings = [
        (passage.id, term, times, terms.total())
        for passage, terms in zip(passages, counted, strict=True)
        for term, times in terms.items()
    ]
    columns = [list(column) for column in zip(*postings, strict=True)] or [[], [], [], []]
    await connection.execute(_ADD_POSTINGS, process, *columns, *impacts)
    await connection.execute(_ADD_SEARCHABLE, process, rows)


def _digest(passage: Passage, embedder: WordLlamaEmbedder) -> str:
    """Of what a passage is found by."""
    return sha256(f"{passage.version} {embedder.name} {STEMMER}".encode()).hexdigest()
