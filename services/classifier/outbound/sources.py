"""The digest of a process's own code that makes a question or an answer: what it does, whatever its layout."""

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

Plain = list["Plain"] | str


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
    plain = {name: _plain(ast.parse(source)) for name, source in sources.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _imports(module: ModuleType, source: str) -> Iterator[str]:
    """Names of the modules that it imports; what is imported from one may be one as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in sys.modules)
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), module.__package__)
            within = (f"{origin}.{alias.name}" for alias in node.names)
            yield from (name for name in (origin, *within) if name in sys.modules)


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
