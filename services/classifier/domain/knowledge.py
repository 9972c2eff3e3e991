"""Which passages of a process's knowledge fit a question. Pure: equal knowledge and question give equal passages."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import repeat
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.base import Json
from contracts.decision import FactAnswer
from contracts.knowledge import ANY_BRAND, Passage, Question
from services.classifier.domain.examples import Matrix, Vector
from services.classifier.domain.lines import fault_of, line_of

FACT: Final = "knowledge"
"""The name under which the passages stand among the facts that rules see."""
PASSAGES_MAX: Final = 8
FILE_CHARACTERS_MAX: Final = 4000
LABEL_WEIGHT: Final = 2.0
"""A passage of the label that all neighbours vote for goes before any that only sounds like the question."""
_FILE = re.compile(r"\+\+\+\n(?P<head>.*?)\n\+\+\+\n(?P<text>.*?)(?:\n## Reply\n(?P<reply>.*))?", re.DOTALL)


class KnowledgeInvalidError(Exception):
    """A file of knowledge/ cannot be used; the message names the line and the mend."""


class _Head(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=200)
    intents: tuple[str, ...] = Field(min_length=1)
    brand: str = Field(default=ANY_BRAND, min_length=1)
    language: str = Field(pattern=r"^[a-z]{2}$")
    when: tuple[str, ...] = ()


def parse(passage_id: str, content: str) -> Passage:
    """Read one file: TOML between two lines of `+++`, what is true, and a reply after the line `## Reply`.

    Raises KnowledgeInvalidError.
    """
    if len(content) > FILE_CHARACTERS_MAX:
        line = content.count("\n", 0, FILE_CHARACTERS_MAX) + 1
        raise KnowledgeInvalidError(f"line {line}: keep a passage to {FILE_CHARACTERS_MAX} characters: make two of it")
    file = _FILE.fullmatch(content)
    if file is None:
        raise KnowledgeInvalidError("line 1: begin with TOML between two lines of +++")
    toml = f"\n{file['head']}"  # as in the file, where it is the second line
    try:
        head = _Head.model_validate(tomllib.loads(toml))
    except tomllib.TOMLDecodeError as error:
        raise KnowledgeInvalidError(f"this is no TOML: {error}") from error
    except ValidationError as error:
        first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
        line = line_of(toml, [*map(str, first["loc"])])
        raise KnowledgeInvalidError(f"line {line}: {fault_of(first, _Head)}") from error
    return Passage(
        id=passage_id,
        title=head.title,
        intents=head.intents,
        brand=head.brand,
        language=head.language,
        when=head.when,
        text=file["text"].strip(),
        reply=(file["reply"] or "").strip(),
        version=sha256(content.encode()).hexdigest(),
    )


def words_of(passage: Passage) -> str:
    """What a passage is found by."""
    return f"{passage.title}\n{passage.text}\n{passage.reply}"


def index_version(embedder: str, passages: Iterable[Passage]) -> str:
    """Digest of everything that decides which passages are found."""
    listed = sorted((passage.id, passage.version) for passage in passages)
    return sha256(json.dumps([embedder, PASSAGES_MAX, LABEL_WEIGHT, listed]).encode()).hexdigest()


def choose(
    passages: Sequence[Passage],
    vectors: Matrix,
    asked: Vector,
    question: Question,
    shares: Mapping[str, float],
    default_language: str,
) -> tuple[Passage, ...]:
    """The best PASSAGES_MAX of the question's brand and language, best first; other languages follow the default one.

    `shares` says how likely each label is; `vectors` has a row of unit length for each passage.
    """
    brands, languages = (ANY_BRAND, question.brand), (question.language, default_language)
    scores: list[float] = (vectors @ asked).tolist()
    ranked = sorted(
        (-(score + LABEL_WEIGHT * sum(map(shares.get, passage.intents, repeat(0.0)))), passage.id, i)
        for i, (passage, score) in enumerate(zip(passages, scores, strict=True))
        if passage.brand in brands and passage.language in languages
    )
    return tuple(passages[i] for *_, i in ranked[:PASSAGES_MAX])


def as_fact(passages: Sequence[Passage]) -> FactAnswer:
    """The passages as rules see them: a row each, with `id`."""
    return FactAnswer.model_construct(name=FACT, ok=True, rows=tuple(map(_row, passages)))  # JSON, and parsed by us


def _row(passage: Passage) -> Json:
    return {"id": passage.id, "title": passage.title, "text": passage.text, "reply": passage.reply}
