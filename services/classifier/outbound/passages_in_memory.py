"""A process's passages searched without a database, as `passages.py` searches them in Postgres: the same rankings."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from contracts.knowledge import ANY_BRAND, Question
from services.classifier.domain import knowledge
from services.classifier.domain.examples import Matrix
from services.classifier.domain.words import terms_of
from services.classifier.outbound.desk import DEFAULT_LANGUAGE, Library
from services.classifier.outbound.passages import DEPTH, version_of
from services.classifier.ports import Found
from services.runtime.process import Retrieval

FUSED_FROM: Final = 60
"""A passage gets `weight / (60 + place)` of each ranking."""
TERMS_MAX: Final = 64
"""Of a long question, the rarest: as `search_words` takes them."""

Scores = Mapping[int, float]
"""By a passage's place in the library; passages that are not there are not in the ranking."""


class PassagesInMemory:
    """Implements ports.Finds for evals, trials and replays: what they show is what the service would show."""

    def __init__(self, library: Library, settings: Retrieval) -> None:
        self._library = library
        self._settings = settings
        self._terms = [Counter(terms_of(knowledge.words_of(p), p.language)) for p in library.passages]
        self._held = Counter(term for terms in self._terms for term in terms)
        self._vectors = _halved(library.vectors)
        self._version = version_of(library, settings)

    async def find(self, question: Question) -> Found:
        """See Finds. Never waits."""
        scores = defaultdict[int, float](float)
        for weight, ranking in self._rankings(question):
            for place, passage in enumerate(_best(ranking), start=1):
                scores[passage] += weight / (FUSED_FROM + place)
        found = _best(scores)[: knowledge.PASSAGES_MAX]
        return Found(passages=tuple(self._library.passages[i] for i in found), index_version=self._version)

    def _rankings(self, question: Question) -> Iterator[tuple[float, Scores]]:
        brands, languages = {ANY_BRAND, question.brand}, {question.language, DEFAULT_LANGUAGE}
        ours = [i for i, passage in enumerate(self._library.passages) if passage.brand in brands]
        if self._settings.words > 0:
            yield self._settings.words, self._by_words(question.text, languages, ours)
        asked = _halved(self._library.embedder.embed([question.text]))[0]
        likeness = (self._vectors @ asked).tolist()
        spoken = {i: likeness[i] for i in ours if self._library.passages[i].language in languages}
        near = {i: spoken[i] for i in _best(spoken)}
        if self._settings.meaning > 0:
            yield self._settings.meaning, near
        if self._settings.labels > 0:
            shares = self._library.vote(question.text).shares
            votes = {i: [shares[name] for name in self._library.passages[i].intents if name in shares] for i in spoken}
            voted = {i: spoken[i] + knowledge.LABEL_WEIGHT * sum(votes[i]) for i in spoken if votes[i] or i in near}
            yield self._settings.labels, voted

    def _by_words(self, text: str, languages: set[str], ours: list[int]) -> Scores:
        """BM25 as Lucene computes it."""
        asked = Counter(term for language in sorted(languages) for term in terms_of(text, language))
        rarest = sorted((self._held[term], term) for term in asked if term in self._held)[:TERMS_MAX]
        count, k1, b = len(self._terms), self._settings.k1, self._settings.b
        average = sum(terms.total() for terms in self._terms) / (count or 1)
        weights = {term: asked[term] * math.log(1 + (count - held + 0.5) / (held + 0.5)) for held, term in rarest}
        scores = dict[int, float]()
        for i in ours:
            found = self._terms[i]
            if held := weights.keys() & found.keys():
                paid = k1 * (1 - b + b * found.total() / average)
                scores[i] = math.fsum(weights[term] * found[term] / (found[term] + paid) for term in held)
        return scores


def _best(scores: Scores) -> list[int]:
    return sorted(scores, key=lambda i: (-scores[i], i))[:DEPTH]


def _halved(vectors: Matrix) -> Matrix:
    """As Postgres keeps them."""
    return vectors.astype(np.float16).astype(np.float32)
