"""The one place where what happens to an HTTP call becomes one of `contracts.failures`.

    with sending("slack", has_effect=True):
        response = await client.post(url, json=body)
    if failure := failure_of(response, what="slack"):
        raise failure

Codes: rate_limited, unavailable, unreachable, timeout, cut, server_error, gone, unprocessable, forbidden, rejected,
malformed, too_large. Messages hold `what` and the status, never an address, a header or a body.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx

from contracts.failures import ConflictError, LaterError, OutcomeUnknownError, PermanentError

RETRY_DEFAULT_SECONDS = 5.0
"""How long to wait where the other side names no time."""
RETRY_MAX_SECONDS = 3600.0
"""A longer wait is cut to this: asking once an hour costs nothing, and a typo there cannot silence us for a year."""
CREDENTIALS_SECONDS = 60.0
"""How long to wait where we are refused: a person has to act, and a wrong password sent often gets a user locked."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_OUR_MISTAKE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)


def failure_of(response: httpx.Response, *, what: str) -> Exception | None:
    """What to raise for an answer; none for 2xx. `what` names the call in the message.

    A 5xx after anything but GET, HEAD or OPTIONS leaves open whether the request was carried out. A redirect is a
    refusal: it is not followed, for the address is a setting and a body must not go where nobody sent it. 401 and 403
    speak of our credentials, not of this request: whatever waits can go once they work again.
    """
    status = response.status_code
    if response.is_success:
        return None
    message = f"{what} answered {status}"
    retry_seconds = retry_after_seconds(response)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return LaterError("rate_limited", message, seconds=retry_seconds or RETRY_DEFAULT_SECONDS)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and retry_seconds is not None:
        return LaterError("unavailable", message, seconds=retry_seconds or RETRY_DEFAULT_SECONDS)
    if response.is_server_error:
        if response.request.method in _SAFE_METHODS:
            return LaterError("server_error", message, seconds=RETRY_DEFAULT_SECONDS)
        return OutcomeUnknownError("server_error", message)
    match status:
        case HTTPStatus.CONFLICT:
            return ConflictError(message)
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return PermanentError("gone", message)
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            return PermanentError("unprocessable", message)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return LaterError("forbidden", message, seconds=CREDENTIALS_SECONDS)
        case _:
            return PermanentError("rejected", message)


@contextmanager
def sending(what: str, has_effect: bool) -> Iterator[None]:  # noqa: FBT001  # the interface of every caller
    """Turn httpx's exceptions and TimeoutError into failures.

    What never left is LaterError; what may have arrived is OutcomeUnknownError, or LaterError without an effect.
    """
    try:
        yield
    except _NEVER_SENT as error:
        raise LaterError("unreachable", f"{what} cannot be reached", seconds=RETRY_DEFAULT_SECONDS) from error
    except _OUR_MISTAKE as error:
        raise PermanentError("malformed", f"{what}: the request cannot be sent as it is") from error
    except (TimeoutError, httpx.TimeoutException) as error:
        raise _unfinished("timeout", f"{what} did not answer in time", has_effect=has_effect) from error
    except httpx.HTTPError as error:
        raise _unfinished("cut", f"{what}: the connection was cut", has_effect=has_effect) from error


def _unfinished(code: str, message: str, *, has_effect: bool) -> Exception:
    if has_effect:
        return OutcomeUnknownError(code, message)
    return LaterError(code, message, seconds=RETRY_DEFAULT_SECONDS)


def retry_after_seconds(response: httpx.Response) -> float | None:
    """What Retry-After asks for, in seconds from now; none where it is missing or unreadable.

    A date is measured against the answer's own Date, so that only one clock counts.
    """
    asked = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(asked)
    except ValueError:
        until, now = http_date(asked), http_date(response.headers.get("date", ""))
        if until is None or now is None:
            return None
        seconds = (until - now).total_seconds()
    if not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), RETRY_MAX_SECONDS)


def http_date(text: str) -> datetime | None:
    """A date of an HTTP header; none where it is missing or unreadable."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def body_of(response: httpx.Response, *, what: str, bytes_max: int) -> bytes:
    """Read a streamed answer, at most `bytes_max` as decompressed. Raises PermanentError("too_large")."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > bytes_max:
            raise PermanentError("too_large", f"{what} answered more than {bytes_max} bytes")
    return bytes(body)


def timeouts(seconds: float) -> httpx.Timeout:
    """Limits of each step of a call. Connecting gets half: a call that fails there was certainly not sent.

    A whole call is limited by `asyncio.timeout` around it: an answer that drips would outlast any limit of its steps.
    """
    return httpx.Timeout(seconds, connect=seconds / 2, pool=seconds / 2)
