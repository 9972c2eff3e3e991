"""A process's passages, searched in Postgres by words, meaning and labels at once.

The rankings are fused by reciprocal rank: a passage gets `weight / (60 + place)` of each. All is read by one statement:
a question sees the knowledge as it was before a change or after it, never between.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from pydantic import TypeAdapter

from contracts.base import Json
from contracts.knowledge import ANY_BRAND, Passage, Question
from services.classifier.domain import knowledge
from services.classifier.domain.examples import Vector
from services.classifier.domain.words import STEMMER, terms_of
from services.classifier.outbound import indexing
from services.classifier.outbound.desk import DEFAULT_LANGUAGE, Library
from services.classifier.ports import Found
from services.runtime.postgres import Connection, Database
from services.runtime.process import Retrieval

DEPTH: Final = 30
"""How far down each ranking is read."""
WRITTEN_AGAIN_SECONDS: Final = 300.0
_PASSAGE = TypeAdapter(Passage)

_SEARCH = """
WITH words AS (
    SELECT found_id, row_number() OVER (ORDER BY found_score DESC, found_id) AS place
    FROM search_words($1, $2, $4, $6) WHERE $7 > 0::float8
), near AS MATERIALIZED (
    SELECT found_id, likeness FROM search_meaning($1, $3::real[]::public.halfvec, $4, $5, $6)
    WHERE $8 > 0::float8 OR $9 > 0::float8
), meaning AS (
    SELECT found_id, row_number() OVER (ORDER BY likeness DESC, found_id) AS place FROM near WHERE $8 > 0::float8
), voted AS (
    SELECT s.passage_id AS found_id, -(s.embedding OPERATOR(public.<#>) $3::real[]::public.halfvec) AS likeness
    FROM searchable s
    WHERE s.process = $1 AND s.brand = ANY ($4) AND s.language = ANY ($5)
        AND s.intents && $10::text[] AND $9 > 0::float8
    UNION SELECT found_id, likeness FROM near WHERE $9 > 0::float8
), labels AS (
    SELECT v.found_id, row_number() OVER (ORDER BY v.likeness + coalesce(l.votes, 0) DESC, v.found_id) AS place
    FROM voted v JOIN searchable s ON s.passage_id = v.found_id
    CROSS JOIN LATERAL (
        SELECT $12 * sum(share) AS votes FROM unnest($10::text[], $11::float8[]) l (label, share)
        WHERE label = ANY (s.intents)
    ) l
), fused AS (
    SELECT found_id, sum(weight / (60::float8 + place)) AS score FROM (
        SELECT found_id, place, $7 AS weight FROM words
        UNION ALL SELECT found_id, place, $8 FROM meaning
        UNION ALL SELECT found_id, place, $9 FROM labels WHERE place <= $6
    ) legs GROUP BY found_id ORDER BY score DESC, found_id LIMIT $13
)
SELECT k.index_version, p.source, p.version, p.content
FROM knowledge k LEFT JOIN (fused f JOIN passages p ON p.passage_id = f.found_id) ON true
WHERE k.process = $1 ORDER BY f.score DESC, f.found_id
"""


class PassageIndex:
    """Implements ports.Finds. What changed is written before the first question of this process's life.

    While one version replaces another, both write; so what is found to be another's is written again, now and then.
    """

    def __init__(
        self,
        database: Database,
        process: str,
        library: Library,
        settings: Retrieval,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._process = process
        self._library = library
        self._settings = settings
        self._clock = clock
        self._version = version_of(library, settings)
        self._writing = asyncio.Lock()
        self._written_at = -math.inf
        self._is_ours = False

    async def find(self, question: Question) -> Found:
        """See Finds. Raises what Postgres raises."""
        await self._write()
        async with self._database.connection() as connection:
            found = await search(
                connection,
                self._process,
                question,
                self._library.embedder.embed([question.text])[0],
                self._library.vote(question.text).shares,
                self._settings,
            )
        self._is_ours = found.index_version == self._version
        return found

    async def _write(self) -> None:
        async with self._writing:
            if self._is_ours or self._clock() - self._written_at < WRITTEN_AGAIN_SECONDS:
                return
            async with self._database.transaction() as connection:
                await indexing.write(
                    connection,
                    self._process,
                    self._library.passages,
                    embedder=self._library.embedder,
                    index_version=self._version,
                    k1=self._settings.k1,
                    b=self._settings.b,
                )
            self._written_at = self._clock()


def version_of(library: Library, settings: Retrieval) -> str:
    """Digest of everything that decides which passages are found."""
    return sha256(f"{library.index_version} {STEMMER} {settings.model_dump_json()}".encode()).hexdigest()


async def search(
    connection: Connection,
    process: str,
    question: Question,
    vector: Vector,
    shares: Mapping[str, float],
    settings: Retrieval,
    *,
    wanted: int = knowledge.PASSAGES_MAX,
) -> Found:
    """The best passages of the question's brand and language, or of the default language."""
    languages = sorted({question.language, DEFAULT_LANGUAGE})
    rows = await connection.fetch(
        _SEARCH,
        process,
        [term for language in languages for term in terms_of(question.text, language)],
        vector.tolist(),
        sorted({ANY_BRAND, question.brand or ANY_BRAND}),
        languages,
        DEPTH,
        settings.words,
        settings.meaning,
        settings.labels,
        list(shares),
        list(shares.values()),
        knowledge.LABEL_WEIGHT,
        wanted,
    )
    passages = tuple(_passage(row["source"], row["version"], row["content"]) for row in rows if row["source"])
    return Found(passages=passages, index_version=rows[0]["index_version"] if rows else "")


def _passage(source: str, version: str, content: Json) -> Passage:
    return _PASSAGE.validate_python({"id": source, "version": version, **content})
