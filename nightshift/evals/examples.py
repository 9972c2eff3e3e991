"""evals.jsonl of a process: what a customer writes and what the model should see in it, a JSON object a line."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contracts.proposed import Proposed
from nightshift import MendableError

FILE = "evals.jsonl"
CANDIDATE = "candidate"
"""A line with this field is from the log, and nobody has said yet what is right."""
FILL_IN = "?"
"""Stands in a candidate where a person says what is expected."""


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
    try:
        content = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EvalsInvalidError(f"{file} is not there: write labelled cases, a JSON object a line") from None
    except UnicodeDecodeError as error:
        at = error.object[: error.start].count(b"\n") + 1
        raise EvalsInvalidError(f"{file}, line {at}: this is no UTF-8: save the file as UTF-8") from None
    found: dict[str, Eval] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            one = Eval.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            raise EvalsInvalidError(f"{file}, line {number}: no JSON ({error.msg}): one object a line") from None
        except ValidationError as error:
            raise EvalsInvalidError(f"{file}, line {number}: {'; '.join(_told(error))}") from None
        for fault in _faults(one, proposal):
            raise EvalsInvalidError(f"{file}, line {number}: {fault}")
        if one.id in found:
            raise EvalsInvalidError(f"{file}, line {number}: this text was there before: keep one of them")
        found[one.id] = one
    if not found:
        raise EvalsInvalidError(f"{file} is empty: write labelled cases, a JSON object a line")
    return tuple(found.values())


def _told(error: ValidationError) -> Iterator[str]:
    for one in error.errors(include_url=False):
        if one["loc"] == (CANDIDATE,):
            yield f"a candidate from the log: say in `expected` what is right, then take `{CANDIDATE}` away"
            continue
        mend = f"; fields are {', '.join(Eval.model_fields)}" if one["type"] == "extra_forbidden" else ""
        yield f"{'.'.join(map(str, one['loc']))}: {one['msg']}{mend}"


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
