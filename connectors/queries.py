"""What systems of record share: named queries, checked when they are made and again when they are asked."""

from collections.abc import Collection

from contracts.base import Json
from contracts.failures import PermanentError

ROWS_MAX = 100
ANSWER_BYTES_MAX = 256 * 1024
"""Of one look-up: what is read becomes part of an event, and the broker's limit is not far."""


class InvalidQueryError(ValueError):
    """A query of process.toml that cannot be asked. `query` is its name, `mend` says what to write instead."""

    def __init__(self, query: str, mend: str) -> None:
        super().__init__(f"query {query!r}: {mend}")
        self.query = query
        self.mend = mend


def known(query: str, queries: Collection[str]) -> None:
    """Raises PermanentError("unknown_query")."""
    if query not in queries:
        raise PermanentError("unknown_query", f"there is no query {query!r} (there: {', '.join(sorted(queries))})")


def complete(query: str, wanted: Collection[str], params: Json) -> None:
    """Raises PermanentError("bad_parameter") unless exactly the wanted parameters are there."""
    missing, unwanted = sorted(set(wanted) - set(params)), sorted(set(params) - set(wanted))
    if missing or unwanted:
        told = [f"{word} {', '.join(names)}" for word, names in (("misses", missing), ("has no", unwanted)) if names]
        raise PermanentError("bad_parameter", f"query {query!r} {' and '.join(told)}")
