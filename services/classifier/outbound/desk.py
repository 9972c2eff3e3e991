"""Prepares the question for a model from a process's folder: prompt, examples and knowledge, read once and checked."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import cast

from contracts.base import Contract
from contracts.decision import Facts
from contracts.events.proposals import MadeFrom, PassageUsed
from contracts.knowledge import Passage, Question
from services.classifier.domain import knowledge, prompt
from services.classifier.domain.examples import (
    METHOD,
    Example,
    Examples,
    ExamplesInvalidError,
    Matrix,
    Vote,
    check_count,
    parse,
)
from services.classifier.domain.regime import NEAREST, regime_of
from services.classifier.outbound import sources
from services.classifier.outbound.embeddings import WordLlamaEmbedder
from services.classifier.outbound.files import text_of
from services.classifier.ports import Ask, Finds, Found
from services.runtime.process import Process, ProcessInvalidError

VOTES_KEPT_MAX = 256
DEFAULT_LANGUAGE = "en"


class Library:
    """Implements ports.Finds in memory: a process's examples and passages, read at once and embedded when asked."""

    def __init__(self, examples: Path, passages: Path, embedder: WordLlamaEmbedder) -> None:
        """Raises ProcessInvalidError that names the file, its line and the mend."""
        self.embedder = embedder
        content = text_of(examples)
        try:
            self._labelled: Sequence[Example] = parse(content)
            check_count(len(self._labelled))
        except ExamplesInvalidError as error:
            raise ProcessInvalidError(f"{examples}, {error}") from error
        self.examples_digest = prompt.digest(content)
        self.passages = tuple(map(_passage, sorted(passages.glob("*.md"))))
        self.index_version = knowledge.index_version(embedder.name, self.passages)
        self.vote: Callable[[str], Vote] = lru_cache(maxsize=VOTES_KEPT_MAX)(self._vote)
        """What the nearest examples say about a text; asked for the passages, and again by `nearest`."""

    def prepare(self) -> None:
        """Embed and solve now, in about a second, and not while the first question waits."""
        _ = self._examples, self.vectors

    @cached_property
    def vectors(self) -> Matrix:
        """Of the passages, in their order."""
        return self.embedder.embed([knowledge.words_of(passage) for passage in self.passages])

    @cached_property
    def _examples(self) -> Examples:
        vectors = self.embedder.embed([example.text for example in self._labelled])
        return Examples([example.label for example in self._labelled], vectors)

    def _vote(self, text: str) -> Vote:
        return self._examples.vote(self.embedder.embed([text])[0])

    async def find(self, question: Question) -> Found:
        """By label and meaning. Never waits."""
        passages = knowledge.choose(
            self.passages,
            self.vectors,
            self.embedder.embed([question.text])[0],
            question,
            self.vote(question.text).shares,
            DEFAULT_LANGUAGE,
        )
        return Found(passages=passages, index_version=self.index_version)


def _passage(file: Path) -> Passage:
    try:
        return knowledge.parse(file.stem, text_of(file))
    except knowledge.KnowledgeInvalidError as error:
        raise ProcessInvalidError(f"{file}, {error}") from error


def library_of(process: Process) -> Library:
    """One for the same examples and passages, shared by whoever asks."""
    return _library(process.path("examples.jsonl"), process.path("knowledge"))


@lru_cache(maxsize=16)
def _library(examples: Path, passages: Path) -> Library:
    return Library(examples, passages, _embedder())


@lru_cache(maxsize=1)
def _embedder() -> WordLlamaEmbedder:
    return WordLlamaEmbedder()


class KnowledgeDesk:
    """Implements ports.Desk for a process whose last step has `prompt.md` and `question.py`."""

    def __init__(self, process: Process, finds: Finds | None = None) -> None:
        """Without `finds` passages are found in memory. Raises ProcessInvalidError."""
        self._process = process
        step = process.settings.steps[-1].name
        self._question = cast("Callable[[Contract], Question]", process.step_module(step, "question").question)
        file = process.path(f"steps/{step}/prompt.md")
        try:
            self._instructions = prompt.render(text_of(file), process.settings.policy)
        except prompt.PromptInvalidError as error:
            raise ProcessInvalidError(f"{file}, {error}") from error
        self._library = library_of(process)
        self._finds: Finds = finds or self._library

    async def ask(self, case: Contract, facts: Facts) -> Ask:
        """Under a millisecond for a text of usual length, where passages are found in memory."""
        question = self._question(case)
        found = await self._finds.find(question)
        return Ask(
            instructions=self._instructions,
            data=partial(prompt.data_of, question, facts, found.passages),
            output=self._process.Proposal,
            question=question,
            facts={**facts, knowledge.FACT: knowledge.as_fact(found.passages)},
            passages=found.passages,
            index_version=found.index_version,
            tokens_out_max=self._process.settings.model.tokens_out_max,
        )

    def made_from(self, model: str, ask: Ask) -> MadeFrom:
        """The process's own files and settings as they were loaded, and the passages of this question."""
        return MadeFrom(
            model=model,
            prompt=_digest(ask.instructions),
            output_schema=self._schema_digest,
            examples=self._library.examples_digest,
            settings=self._process.policy_digest,
            index_version=ask.index_version,
            passages=tuple(map(_used, ask.passages)),
        )

    def regime(self, model: str, weights: str | None = None) -> str:
        """Of the process's own files as they were loaded, and a model by the name it is asked for with.

        `weights`: see Provider.
        """
        return regime_of(
            model=model if weights is None else f"{model}@{weights}",
            code=self._code_of(model),
            prompt=_digest(self._instructions),
            output_schema=self._schema_digest,
            examples=self._library.examples_digest,
            knowledge=self._library.index_version,
            retrieval=self._process.settings.retrieval.model_dump_json(),
        )

    def _code_of(self, model: str) -> str:
        """What shows a model its question; of `nearest`, whose proof costs nothing, also all that this rests on."""
        step = partial(self._process.step_module, self._process.settings.steps[-1].name)
        if model != NEAREST:
            return prompt.digest({"form": prompt.FORM, "question": sources.digest_of(step("question"))})
        used = {part: sources.digest_with_imports(step(part), "processes") for part in ("question", "nearest")}
        return prompt.digest({"method": METHOD, **used})

    @cached_property
    def _schema_digest(self) -> str:
        return prompt.digest(prompt.schema_of(self._process.Proposal))


_digest = lru_cache(maxsize=16)(prompt.digest)
"""Every proposal of a process names the same instructions."""


@lru_cache(maxsize=1024)
def _used(passage: Passage) -> PassageUsed:
    return PassageUsed(source=passage.id, version=passage.version, digest=passage.version)
