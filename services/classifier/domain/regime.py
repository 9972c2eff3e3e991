"""A regime: all that an answer depends on, the case and its facts apart; and the record that it passed its evals."""

import hashlib
import json
import re
from typing import Final

from pydantic import BaseModel, ConfigDict

RECORDS: Final = "evals.*.json"
"""Of the records in a process's folder, one a model."""
NEAREST: Final = "nearest"
"""The model that is code: ours, and the process's."""
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def regime_of(
    *, model: str, code: str, prompt: str, output_schema: str, examples: str, knowledge: str, retrieval: str
) -> str:
    """Digest of the model's name, the settings by which passages are found, and the digests of the rest.

    `code`: what makes the question, and of `nearest` the answer.

    Equal regimes answer alike, as far as a model does. Limits of the rules are no part: they change what is done about
    an answer, and are tested as rules.
    """
    parts = {
        "model": model,
        "code": code,
        "prompt": prompt,
        "output_schema": output_schema,
        "examples": examples,
        "knowledge": knowledge,
        "retrieval": retrieval,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def record_of(model: str) -> str:
    """The file's name: `evals.claude-claude-haiku-4-5.json` of `claude:claude-haiku-4-5`."""
    return f"evals.{_NOT_IN_A_NAME.sub('-', model)}.json"


class Passed(BaseModel):
    """Nothing stood against it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    against: str | None
    """The regime that it was compared with; none was there before the first."""
    accepted: tuple[str, ...] = ()
    """Evals that a person let newly fail, by id."""


class Record(BaseModel):
    """What a classifier asks of a result of `nightshift eval`; the rest is for people."""

    model_config = ConfigDict(frozen=True)

    process: str
    model: str
    regime: str
    passed: Passed | None = None
