"""A process's passages written into Postgres: what is new and what is gone, in one transaction."""

from collections import Counter
from collections.abc import Mapping, Sequence
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
TERMS_WRITTEN_AT_ONCE_MAX: Final = 10_000
SECONDS_MAX: Final = 600
"""What changes every posting takes minutes among a hundred thousand passages."""
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
_ADD_TERMS = """
INSERT INTO terms (process, term, passages) SELECT $1, * FROM unnest($2::text[], $3::integer[])
ON CONFLICT (process, term) DO UPDATE SET passages = terms.passages + excluded.passages RETURNING term, term_id
"""
_ADD = """
WITH told AS (
    SELECT * FROM jsonb_to_recordset($2)
        AS t (source text, version text, digest text, content jsonb, language text, brand text, intents text[],
              length integer, terms integer[], times smallint[], embedding text)
), added AS (
    INSERT INTO passages (process, source, version, digest, content)
    SELECT $1, source, version, digest, content FROM told RETURNING passage_id, source
)
INSERT INTO searchable (passage_id, process, language, brand, intents, length, terms, times, embedding)
SELECT a.passage_id, $1, t.language, t.brand, t.intents, t.length, t.terms, t.times, t.embedding::public.halfvec
FROM added a JOIN told t USING (source) RETURNING passage_id
"""
_ADD_POSTINGS = """
INSERT INTO postings (passage_id, term_id, times, length, impact)
SELECT s.passage_id, h.term_id, h.times, s.length, impact_of(h.times, s.length, $2, $3, $4)
FROM searchable s CROSS JOIN LATERAL unnest(s.terms, s.times) h (term_id, times)
WHERE s.passage_id = ANY ($1::integer[])
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
    found_by = f"{embedder.name} {STEMMER}"
    digests = {p.id: sha256(f"{p.version} {found_by}".encode()).hexdigest() for p in passages}
    gone = [row for source, row in current.items() if digests.get(source) != row["digest"]]
    fresh = [p for p in passages if p.id not in current or current[p.id]["digest"] != digests[p.id]]
    counted = [Counter(terms_of(knowledge.words_of(passage), passage.language)) for passage in fresh]

    terms = known["terms"] + sum(c.total() for c in counted) - sum(row["length"] for row in gone)
    average = max(terms, 1) / max(len(passages), 1)
    if gone:
        await connection.execute(_REMOVE, process, [row["passage_id"] for row in gone], timeout=SECONDS_MAX)
        await connection.execute(_FORGET_TERMS, process)
    impacts = (known["k1"], known["b"], known["impacts_length"])
    drift = max(average, impacts[2]) / max(min(average, impacts[2]), 1e-9)
    if impacts[:2] != (k1, b) or drift > LENGTH_DRIFT_MAX:
        impacts = (k1, b, average)
        await connection.execute(_IMPACTS, process, *impacts, timeout=SECONDS_MAX)
    term_ids = await _add_terms(connection, process, counted)
    for start in range(0, len(fresh), WRITTEN_AT_ONCE_MAX):
        some = slice(start, start + WRITTEN_AT_ONCE_MAX)
        rows = _rows(fresh[some], counted[some], digests, term_ids, embedder)
        added = await connection.fetch(_ADD, process, rows)
        await connection.execute(_ADD_POSTINGS, [row["passage_id"] for row in added], *impacts)
    await connection.execute(_WRITTEN, process, index_version, len(passages), terms, *impacts)
    return Written(len(fresh), len(gone))


async def _add_terms(connection: Connection, process: str, counted: Sequence[Counter[str]]) -> dict[str, int]:
    """Count each passage for its terms; the terms' ids."""
    passages = sorted(Counter(term for terms in counted for term in terms).items())
    ids: dict[str, int] = {}
    for start in range(0, len(passages), TERMS_WRITTEN_AT_ONCE_MAX):
        some = passages[start : start + TERMS_WRITTEN_AT_ONCE_MAX]
        rows = await connection.fetch(_ADD_TERMS, process, [term for term, _ in some], [count for _, count in some])
        ids.update({row["term"]: row["term_id"] for row in rows})
    return ids


def _rows(
    passages: Sequence[Passage],
    counted: Sequence[Counter[str]],
    digests: Mapping[str, str],
    term_ids: Mapping[str, int],
    embedder: WordLlamaEmbedder,
) -> list[Json]:
    vectors = embedder.embed([knowledge.words_of(passage) for passage in passages]).tolist()
    return [
        {
            "source": passage.id,
            "version": passage.version,
            "digest": digests[passage.id],
            "content": {name: value for name, value in asdict(passage).items() if name not in ("id", "version")},
            "language": passage.language,
            "brand": passage.brand,
            "intents": list(passage.intents),
            "length": terms.total(),
            "terms": [term_ids[term] for term in terms],
            "times": list(terms.values()),
            "embedding": str(vector),
        }
        for passage, terms, vector in zip(passages, counted, vectors, strict=True)
    ]
