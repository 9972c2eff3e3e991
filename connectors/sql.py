"""Facts from a Postgres database: named queries with `:name` parameters, in read-only transactions with a time limit.

    [sources.shop.queries]
    orders = "SELECT id, total, ordered_at FROM orders WHERE customer = :customer AND ordered_at > :since::text::date"

A parameter has the type that Postgres infers. JSON knows no dates and no uuids: they arrive as text, so cast twice, as
above. Give the source a role that can only read.
"""

import asyncio
import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import orjson

from connectors.queries import ANSWER_BYTES_MAX, ROWS_MAX, InvalidQueryError, complete, known
from contracts.base import Json
from contracts.failures import LaterError, PermanentError

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
    _Pool = asyncpg.Pool[asyncpg.Record]
else:  # asyncpg's generics exist only in its stubs
    _Connection = asyncpg.Connection
    _Pool = asyncpg.Pool

CONNECTIONS_MAX = 4
RETRY_SECONDS = 5.0
CLOSE_SECONDS = 5.0

_PIECES = re.compile(
    r"""
      (?P<skip> (?<![\w$]) [eE] ' (?: [^'\\] | \\. | '' )* '  | ' (?: [^'] | '' )* '  | " (?: [^"] | "" )* "
        | -- [^\n]*  | /\* .*? \*/  | \$ (?P<tag> [A-Za-z_]\w* )? \$ .*? \$ (?(tag)(?P=tag)) \$  | :: | := )
    | (?P<open> ['"] | /\* | \$ [A-Za-z_]* \$ )
    | (?P<number> (?<![\w$]) \$ [0-9] )
    | (?P<end> ; )
    | : (?P<name> [A-Za-z_]\w* )
    """,
    re.VERBOSE | re.DOTALL,
)
_READS = re.compile(r"\s*(SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query as Postgres takes it: `text` with `$1` …, and the names of the parameters in that order."""

    text: str
    names: tuple[str, ...]


def prepare(name: str, sql: str) -> Prepared:
    """Turn `:name` into `$n` outside of literals, quoted names and comments. Raises InvalidQueryError."""
    sql = sql.strip().removesuffix(";")
    if not _READS.match(sql):
        raise InvalidQueryError(name, "begin with SELECT, WITH, VALUES or TABLE")
    names: list[str] = []

    def place(piece: re.Match[str]) -> str:
        if piece["open"] is not None:
            raise InvalidQueryError(name, f"close what {piece['open']} opens")
        if piece["number"] is not None:
            raise InvalidQueryError(name, "name the parameter: write :customer, not $1")
        if piece["end"] is not None:
            raise InvalidQueryError(name, "write one statement")
        if piece["name"] is None:
            return piece[0]
        if piece["name"] not in names:
            names.append(piece["name"])
        return f"${names.index(piece['name']) + 1}"

    text = _PIECES.sub(place, sql)
    return Prepared(text, tuple(names))


class SqlSource:
    """LooksUp. Connects at the first look-up, so that a source that is down holds up nothing but its facts."""

    def __init__(self, *, url: str, queries: Mapping[str, str], timeout_seconds: float) -> None:
        """Raises InvalidQueryError."""
        self._url = url
        self._queries = {name: prepare(name, sql) for name, sql in queries.items()}
        self._timeout_seconds = timeout_seconds
        self._pool: _Pool | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close every connection; what still runs after 5 s is cut."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def look_up(self, query: str, params: Json) -> Sequence[Json]:
        """At most 100 rows, in JSON's own types: exact numbers and times come as text, bytes as base64.

        Raises LaterError, or PermanentError: unknown_query, bad_parameter, bad_query, not_read_only, forbidden,
        misconfigured, too_large, rejected.
        """
        known(query, self._queries)
        prepared = self._queries[query]
        complete(query, prepared.names, params)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                records = await self._fetch(prepared, params)
        except asyncpg.PostgresError as error:
            raise _failure(query, error.sqlstate or "") from _cause(error)
        except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError) as error:
            raise _client_failure(query, error) from _cause(error)
        return _plain(query, records)

    async def _fetch(self, prepared: Prepared, params: Json) -> list[asyncpg.Record]:
        pool = await self._open()
        async with pool.acquire(timeout=self._timeout_seconds) as connection, connection.transaction(readonly=True):
            await connection.execute(f"SET LOCAL statement_timeout = {max(1, int(self._timeout_seconds * 1000))}")
            cursor = await connection.cursor(prepared.text, *(params[name] for name in prepared.names))
            return await cursor.fetch(ROWS_MAX)

    async def _open(self) -> _Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=CONNECTIONS_MAX,
                    timeout=self._timeout_seconds,
                    command_timeout=self._timeout_seconds,
                    init=_speak_json,
                )
            return self._pool


async def _speak_json(connection: _Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads, schema="pg_catalog"
        )


def _failure(query: str, sqlstate: str) -> Exception:
    """By SQLSTATE, whose first two characters are its class."""
    what = f"query {query!r} failed with SQLSTATE {sqlstate}"
    match sqlstate[:2]:
        case "08" | "40" | "53" | "55" | "57" | "58" | "XX":
            code = "slow" if sqlstate == asyncpg.QueryCanceledError.sqlstate else "unavailable"
            return LaterError(code, what, seconds=RETRY_SECONDS)
        case "22":
            return PermanentError("bad_parameter", what)
        case "25":
            return PermanentError("not_read_only", what)
        case "28":
            return PermanentError("forbidden", what)
        case "42" if sqlstate == asyncpg.InsufficientPrivilegeError.sqlstate:
            return PermanentError("forbidden", what)
        case "42" | "3F":
            return PermanentError("bad_query", what)
        case "3D":
            return PermanentError("misconfigured", what)
        case _:
            return PermanentError("rejected", what)


def _client_failure(query: str, error: Exception) -> Exception:
    """Of what failed on this side of the connection."""
    in_query = isinstance(error, asyncpg.InterfaceError) and not isinstance(error, asyncpg.ClientConfigurationError)
    if isinstance(error, ValueError) and not in_query:
        return PermanentError("misconfigured", f"query {query!r}: the address of the source is malformed")
    if isinstance(error, ValueError):
        return PermanentError("bad_parameter", f"query {query!r}: a parameter has the wrong type")
    code = "slow" if isinstance(error, TimeoutError) else "unavailable"
    return LaterError(code, f"query {query!r}: no answer from the database", seconds=RETRY_SECONDS)


def _cause(error: Exception) -> Exception | None:
    """None where the error's text quotes a parameter: those are people's data, and a cause is logged."""
    return None if isinstance(error, (ValueError, asyncpg.DataError)) else error


def _plain(query: str, records: Sequence[asyncpg.Record]) -> list[Json]:
    answer = orjson.dumps([dict(record) for record in records], default=_plain_value)
    if len(answer) > ANSWER_BYTES_MAX:
        raise PermanentError("too_large", f"query {query!r} answered more than {ANSWER_BYTES_MAX} bytes")
    rows: list[Json] = orjson.loads(answer)
    return rows


def _plain_value(value: object) -> object:
    """What JSON has no type for. A number of exact digits stays exact as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
