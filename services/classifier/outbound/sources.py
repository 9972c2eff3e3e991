"""The digest of a process's own code that makes a question or an answer: what it does, whatever its layout."""

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

Plain = list["Plain"] | str


class _Read(NamedTuple):
    """What of a module's source is asked for, whatever else imports it."""

    does: str
    """As JSON."""
    imports: tuple[tuple[str, tuple[str, ...]], ...]
    """Where from, with leading dots, and what; nothing where the whole module is imported."""


def digest_of(module: ModuleType) -> str:
    """Of one module. Comments, docstrings and layout do not count: nobody has to prove that they change nothing."""
    return _digest({module.__name__: source_of(module)})


def digest_with_imports(module: ModuleType, package: str) -> str:
    """Of a module and all that it uses of `package`, near and far."""
    found, ahead = dict[str, str](), [module]
    while ahead:
        one = ahead.pop()
        if one.__name__ in found:
            continue
        found[one.__name__] = source_of(one)
        ahead += [sys.modules[name] for name in _imports(one, found[one.__name__]) if name.startswith(f"{package}.")]
    return _digest(found)


def source_of(module: ModuleType) -> str:
    """As it stands in its file; nothing of a folder that has none."""
    return "" if module.__file__ is None else Path(module.__file__).read_text(encoding="utf-8")


def _digest(sources: dict[str, str]) -> str:
    each = (f"{json.dumps(name)}: {_read(source).does}" for name, source in sorted(sources.items()))
    return hashlib.sha256(f"{{{', '.join(each)}}}".encode()).hexdigest()


def _imports(module: ModuleType, source: str) -> Iterator[str]:
    """Names of the modules that it imports; what is imported from one may be one as well."""
    for name, what in _read(source).imports:
        origin = importlib.util.resolve_name(name, module.__package__)
        yield from (one for one in (origin, *(f"{origin}.{part}" for part in what)) if one in sys.modules)


@lru_cache(maxsize=64)
def _read(source: str) -> _Read:
    tree = ast.parse(source)
    imports: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append(("." * node.level + (node.module or ""), tuple(alias.name for alias in node.names)))
    return _Read(json.dumps(_plain(tree)), tuple(imports))


def _plain(node: object) -> Plain:
    """A tree of names and constants, the same for every version of Python that can read it."""
    match node:
        case ast.AST():
            fields = [[name, _plain(value)] for name, value in ast.iter_fields(node)]
            return [type(node).__name__, *(field for field in fields if field[1] not in ([], "None"))]
        case list():
            return [_plain(one) for one in node if not _is_said_for_people(one)]
        case _:
            return repr(node)


def _is_said_for_people(node: object) -> bool:
    """A text that stands alone: a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
