"""httpx over aiohttp's sockets: a call takes a quarter of the CPU that it takes over httpx's own.

Every connector speaks httpx (its requests, answers and exceptions); only the bytes take another way. What matters most
here is what an exception says: `ConnectError` and `ConnectTimeout` mean that the request never left, and nothing else
may raise them (`http_failures.sending` builds on it).
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from urllib.request import getproxies

import aiohttp
import httpx
from yarl import URL

CONNECTIONS_MAX = 100
KEEP_SECONDS = 15.0
ANSWER_HEAD_BYTES_MAX = 100_000
"""Of a line, and of a header: httpx's own limit. One that is too long is told as a cut answer."""
ANSWER_HEADERS_MAX = 2000


def client() -> httpx.AsyncClient:
    """A client that keeps its connections; each call names its own time limit. Needs a running event loop.

    Where HTTPS_PROXY or its kind is set, httpx's own transport goes through that proxy.
    """
    transport = None if getproxies() else AiohttpTransport()
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=KEEP_SECONDS)
    return httpx.AsyncClient(transport=transport, limits=limits, timeout=30)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends each request once: never again by itself, not even where a kept connection was cut."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_SECONDS, ssl=httpx.create_ssl_context()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx does
            max_line_size=ANSWER_HEAD_BYTES_MAX,
            max_field_size=ANSWER_HEAD_BYTES_MAX,
            max_headers=ANSWER_HEADERS_MAX,
        )
        # A PUT that aiohttp sends again may earn a 409, which would hide that the first one was carried out. There is
        # no public name for this; tests/contract/test_http_transport.py fails where it stops working.
        self._session._retry_connection = False  # noqa: SLF001  # see above

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport."""
        limits = request.extensions.get("timeout", {})
        with _told_as_httpx(request):
            answer = await self._session.request(
                request.method,
                URL(str(request.url.copy_with(userinfo=b"")), encoded=True),  # httpx made a header of it
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    connect=limits.get("pool"), sock_connect=limits.get("connect"), sock_read=limits.get("read")
                ),
            )
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(request, answer))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, request: httpx.Request, answer: aiohttp.ClientResponse) -> None:
        self._request = request
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_as_httpx(self._request):
            async for piece in self._answer.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        """An answer that was read to its end gives its connection back; another's connection is closed."""
        self._answer.release()


@contextmanager
def _told_as_httpx(request: httpx.Request) -> Iterator[None]:
    """Aiohttp's exceptions as httpx's. Only what failed while connecting is told as never sent."""
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(type(error).__name__, request=request) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(type(error).__name__, request=request) from error
    except (aiohttp.NonHttpUrlClientError, aiohttp.InvalidURL) as error:
        raise httpx.UnsupportedProtocol(type(error).__name__, request=request) from error
    except TimeoutError as error:
        raise httpx.ReadTimeout(type(error).__name__, request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(type(error).__name__, request=request) from error
    except ValueError as error:  # a header that cannot be
        raise httpx.LocalProtocolError(type(error).__name__, request=request) from error
