"""Nobody sees the console without a session; the link with the token opens one."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from services.runtime.health import Receive, Scope, Send, respond

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with none at all, a browser would not say where a form comes from
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""On every answer of the console: no inline script or style, nothing from elsewhere, nothing kept."""

_NO_SESSION = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Nightshift: no session</title></head>
<body><h1>You need a link</h1>
<p>The console is open to whoever has its link, <code>/?token=&hellip;</code>, and your browser has no session yet, or
one that ended.</p>
<p><code>make demo</code> and <code>nightshift up</code> print the link when they start. Elsewhere the token is the
value of the setting <code>NIGHTSHIFT_CONSOLE_TOKEN</code> of the service reporter: open
<code>http://&lt;this address&gt;/?token=&lt;its value&gt;</code>.</p>
<p>You followed the link just now from another page? <a href="/">Go on to the console.</a></p>
</body></html>
"""

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
"""FastAPI and our own bare apps type their scope differently."""


class Sessions:
    """Makes and checks session cookies: an expiry, signed with a key that is made from the token."""

    def __init__(self, token: str, *, seconds: int, clock: Callable[[], float]) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"nightshift console session\0" + self._token).digest()
        # A browser sends a cookie to every port of a host: the name tells two stacks on one machine apart.
        self.cookie_name = f"nightshift_{hmac.digest(self._key, b'name', 'sha256').hex()[:12]}"
        self._seconds = seconds
        self._clock = clock

    def is_token(self, offered: str) -> bool:
        """Whether this is the token of the link, in constant time."""
        return hmac.compare_digest(offered.encode("utf-8", "surrogatepass"), self._token)

    def cookie(self, *, secure: bool) -> str:
        """A Set-Cookie header that opens a session."""
        value = self._signed(int(self._clock()) + self._seconds)
        tail = "; Secure" if secure else ""
        return f"{self.cookie_name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={self._seconds}{tail}"

    def is_open(self, cookie_header: str) -> bool:
        """Whether the request carries a session that we opened and that has not ended."""
        try:
            morsel = SimpleCookie(cookie_header).get(self.cookie_name)
        except CookieError:
            return False
        expires, _, _ = (morsel.value if morsel else "").partition(".")
        if morsel is None or not (expires.isascii() and expires.isdigit() and len(expires) < 16):  # noqa: PLR2004  # digits of a Unix time
            return False
        same = hmac.compare_digest(morsel.value.encode(), self._signed(int(expires)).encode())
        return same and int(expires) > self._clock()

    def _signed(self, expires: int) -> str:
        return f"{expires}.{hmac.digest(self._key, str(expires).encode(), 'sha256').hex()}"


class Guard:
    """Bare ASGI: health and metrics are open, the link opens a session, everything else needs one."""

    def __init__(self, console: AsgiApp, health: AsgiApp, sessions: Sessions) -> None:
        self._console = console
        self._health = health
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] in OPEN_PATHS:
            await self._health(scope, receive, send)
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        token = dict(query).get("token")
        if token is not None and scope["method"] in {"GET", "HEAD"} and self._sessions.is_token(token):
            await self._open_session(scope, send, [(name, value) for name, value in query if name != "token"])
        elif self._sessions.is_open(_header(scope, b"cookie")):
            await self._console(scope, receive, _safely(send))
        else:
            await respond(send, 401, _NO_SESSION, "text/html; charset=utf-8", SAFE)

    async def _open_session(self, scope: Scope, send: Send, query: list[tuple[str, str]]) -> None:
        """Set the cookie and go to the same page without the token: it stays in no history and no log."""
        path = "/" + scope["raw_path"].decode("latin-1").partition("?")[0].lstrip("/")
        where = path + (f"?{urlencode(query)}" if query else "")
        cookie = self._sessions.cookie(secure=scope["scheme"] == "https")
        await respond(send, 303, b"", "text/plain", {**SAFE, "location": where, "set-cookie": cookie})


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _safely(send: Send) -> Send:
    async def with_headers(message: Mapping[str, object]) -> None:
        if message["type"] == "http.response.start":
            had = message.get("headers", ())
            assert isinstance(had, list | tuple), "ASGI headers are pairs"
            more = [(name.encode(), value.encode()) for name, value in SAFE.items()]
            message = {**message, "headers": [*had, *more]}
        await send(message)

    return with_headers
