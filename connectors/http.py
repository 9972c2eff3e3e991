"""Facts from a JSON API: named GET requests, each a template of path and query string below one address.

[sources.shop.queries]
order = "/orders/{order_id}"
invoices = "/invoices?customer={customer_id}&limit=20"
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from string import Formatter
from urllib.parse import quote

import httpx
import orjson

from connectors.http_failures import body_of, failure_of, sending, timeouts
from connectors.queries import ANSWER_BYTES_MAX, ROWS_MAX, InvalidQueryError, complete, known
from contracts.base import Json
from contracts.failures import PermanentError

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$'()*+,;=:@%/?&-]*")
_DOTS = frozenset({".", ".."})
_HEADERS = {"accept": "application/json", "accept-encoding": "identity"}


class HttpSource:
    """LooksUp. An answer is an array of objects, or one object; what is not found (404) is PermanentError("gone")."""

    def __init__(
        self, *, client: httpx.AsyncClient, base_url: str, queries: Mapping[str, str], timeout_seconds: float
    ) -> None:
        """`base_url` may hold user and password. Raises InvalidQueryError."""
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._templates = {name: _parse(name, template) for name, template in queries.items()}
        self._timeout_seconds = timeout_seconds

    async def look_up(self, query: str, params: Json) -> Sequence[Json]:
        """At most 100 rows; what comes after them is left out.

        Raises LaterError, or PermanentError: unknown_query, bad_parameter, unreadable, too_large, or the answer's own.
        """
        known(query, self._templates)
        what = f"query {query!r}"
        address = self._base_url + _render(query, self._templates[query], params)
        with sending(what, has_effect=False):
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream(
                    "GET", address, headers=_HEADERS, follow_redirects=False, timeout=timeouts(self._timeout_seconds)
                ) as response,
            ):
                if (failure := failure_of(response, what=what)) is not None:
                    raise failure
                body = await body_of(response, what=what, bytes_max=ANSWER_BYTES_MAX)
        return _rows(what, body)


_Template = list[tuple[str, str | None]]
"""Literal text and the parameter after it, in turn."""


def _parse(name: str, template: str) -> _Template:
    """Raises InvalidQueryError for what could leave the source's own address or is no plain `{name}`."""
    try:
        parsed = [(literal, field, spec, convert) for literal, field, spec, convert in Formatter().parse(template)]
    except ValueError as error:
        raise InvalidQueryError(name, "a brace is not closed; a parameter is {name}") from error
    path = template.partition("?")[0]
    if not template.startswith("/") or path.startswith("//") or _DOTS & set(path.split("/")):
        raise InvalidQueryError(name, "write a path that begins with one / and has no . or .. in it")
    for literal, field, spec, convert in parsed:
        if not _LITERAL.fullmatch(literal):
            raise InvalidQueryError(name, "percent-encode what is no plain character of an address; # has no use here")
        if field is not None and (spec or convert or not _NAME.fullmatch(field)):
            raise InvalidQueryError(name, "a parameter is {name}: small letters, digits and _")
    return [(literal, field) for literal, field, _, _ in parsed]


def _render(query: str, template: _Template, params: Json) -> str:
    """The address, with each parameter percent-encoded to stay one value of one segment or one query field."""
    complete(query, [field for _, field in template if field is not None], params)
    rendered = ""
    for literal, field in template:
        rendered += literal
        if field is None:
            continue
        value = _plain(query, field, params[field])
        if not value and "?" not in rendered:
            raise PermanentError("bad_parameter", f"query {query!r}: {field} is empty, and names another path")
        rendered += quote(value, safe="")
    if _DOTS & set(rendered.partition("?")[0].split("/")):
        raise PermanentError("bad_parameter", f"query {query!r}: a parameter would climb the path")
    return rendered


def _plain(query: str, field: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise PermanentError("bad_parameter", f"query {query!r}: {field} is no text, number or truth value")
    return str(value).encode(errors="replace").decode()  # half a surrogate pair is found nowhere anyway


def _rows(what: str, body: bytes) -> list[Json]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:  # its message would quote the body
        raise PermanentError("unreadable", f"{what} answered no JSON") from None
    rows = answer if isinstance(answer, list) else [answer]
    if not all(isinstance(row, dict) for row in rows[:ROWS_MAX]):
        raise PermanentError("unreadable", f"{what} answered neither an object nor an array of objects")
    return rows[:ROWS_MAX]
