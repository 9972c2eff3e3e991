"""evals.jsonl of a process: what a customer writes and what the model should see in it, a JSON object a line."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contracts.proposed import Proposed
from nightshift import MendableError
from services.classifier.domain.lines import LineInvalidError, objects
from services.classifier.outbound.files import text_of
from services.runtime.process import ProcessInvalidError

FILE = "evals.jsonl"
CANDIDATE = "candidate"
"""A line with this field is from the log, and nobody has said yet what is right."""
FILL_IN = "?"
"""Stands in a candidate where a person says what is expected."""
_MENDS = {CANDIDATE: f"a candidate from the log: say in `expected` what is right, then take `{CANDIDATE}` away"}


class EvalsInvalidError(MendableError):
    """The file cannot be used; the message names the line and the mend."""


class Eval(BaseModel):
    """One labelled case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1, max_length=60_000)
    subject: str = ""
    expected: Mapping[str, Any] = Field(min_length=1)
    """Fields of the proposal, as they should be."""
    must_pass: bool = False
    """A change that gets this one wrong does not go live."""
    source: str = "written"
    """Where the text is from; its licence lies beside the file."""

    @property
    def id(self) -> str:
        """By which a person accepts that this one is answered otherwise."""
        return hashlib.sha256(f"{self.subject}\0{self.text}".encode()).hexdigest()[:10]


def read(file: Path, proposal: type[Proposed]) -> tuple[Eval, ...]:
    """The evals of a process. Raises EvalsInvalidError."""
    found: dict[str, Eval] = {}
    try:
        for number, one in objects(text_of(file), Eval, _MENDS):
            for fault in _faults(one, proposal):
                raise EvalsInvalidError(f"{file}, line {number}: {fault}")
            if one.id in found:
                raise EvalsInvalidError(f"{file}, line {number}: this text was there before: keep one of them")
            found[one.id] = one
    except ProcessInvalidError as error:
        raise EvalsInvalidError(str(error)) from None
    except LineInvalidError as error:
        raise EvalsInvalidError(f"{file}, {error}") from None
    if not found:
        raise EvalsInvalidError(f"{file} is empty: write labelled cases, a JSON object a line")
    return tuple(found.values())


def _faults(one: Eval, proposal: type[Proposed]) -> Iterator[str]:
    for name, value in one.expected.items():
        if value == FILL_IN:
            yield f"expected.{name}: say what is right in place of {FILL_IN!r}, or leave it out"
            continue
        field = proposal.model_fields.get(name)
        if field is None:
            yield f"expected.{name}: no field of the proposal: it has {', '.join(proposal.model_fields)}"
            continue
        try:
            TypeAdapter[Any](field.rebuild_annotation()).validate_json(json.dumps(value))
        except ValidationError as error:
            yield f"expected.{name}: {error.errors(include_url=False)[0]['msg']}"
