"""What people write line by line, read with each fault told by its line and with the mend. Pure."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

T = TypeVar("T", bound=BaseModel)


class LineInvalidError(Exception):
    """Such a file cannot be used: `line 3: ` and what is wrong there."""


def objects(content: str, kind: type[T], mends: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[int, T]]:
    """The objects of a file of JSON lines, each with its line. `mends`: of fields that `kind` does not have.

    Only a line feed ends a line: JSON may hold whatever else looks like an end. Raises LineInvalidError.
    """
    for number, line in enumerate(content.removesuffix("\n").split("\n") if content else [], start=1):
        try:
            one = kind.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            raise LineInvalidError(f"line {number}: no JSON ({error.msg}): one object a line") from None
        except RecursionError:
            raise LineInvalidError(f"line {number}: it nests too deeply: one object a line") from None
        except ValidationError as error:
            raise LineInvalidError(f"line {number}: {'; '.join(_told(error, kind, mends))}") from None
        yield number, one


def _told(error: ValidationError, kind: type[BaseModel], mends: Mapping[str, str]) -> Iterator[str]:
    for one in error.errors(include_url=False):
        where = ".".join(map(str, one["loc"]))
        if where in mends:
            yield mends[where]
            continue
        yield fault_of(one, kind)


def fault_of(one: ErrorDetails, kind: type[BaseModel]) -> str:
    """One fault of an object: the field, what is wrong with it, and of a field that is none those that are."""
    where = ".".join(map(str, one["loc"]))
    mend = f"; fields are {', '.join(kind.model_fields)}" if one["type"] == "extra_forbidden" else ""
    return f"{where}: {one['msg']}{mend}" if where else f"{one['msg']}{mend}"


def line_of(toml: str, path: Sequence[str]) -> int:
    """Where a field stands; of one that is missing, where the table begins that it belongs to, or the file."""
    if not path:
        return 1
    lines = toml.splitlines()
    for number in range(1, len(lines) + 1):
        try:
            found: object = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue  # within a value of several lines
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            return number
    return line_of(toml, path[:-1])
