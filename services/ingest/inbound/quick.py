"""The usual webhook, answered without a task and without ASGI, which together cost more than all that is done for it.

Quick is a request that came whole, in one read, after the answer to the one before it, to a door that is open. Whatever
is unusual in any way, and whatever is refused, goes to uvicorn and the ASGI callable, as if this file did not exist: it
can only accept, or say that nothing can be stored now.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from services.ingest.inbound.http import Answer, WebhookApp
from services.runtime.connection import Connection

_FIRST_LINE = re.compile(r"POST (/webhooks/[a-zA-Z0-9_/-]{1,300}) HTTP/1\.1")
_HEAD_BYTES_MAX = 16_000
_NAMES_PUNCTUATION = str.maketrans("", "", "-_")
_UNUSUAL = frozenset({"transfer-encoding", "expect", "upgrade", "trailer", "te"})


class Request(NamedTuple):
    """Header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


def whole_request(data: bytes) -> Request | None:
    """The one usual request that `data` is, exactly; none if it is anything else."""
    end = data.find(b"\r\n\r\n", 0, _HEAD_BYTES_MAX)
    if end < 0 or not data.startswith(b"POST ") or not (head := data[:end]).isascii():
        return None
    first, *lines = head.decode("ascii").split("\r\n")
    target = _FIRST_LINE.fullmatch(first)
    if target is None:
        return None
    headers = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        if not colon:
            return None
        headers[name.lower()] = value.lstrip(" ")
    body = data[end + 4 :]
    usual = (
        len(headers) == len(lines)  # none came twice
        and headers.get("content-length") == str(len(body))
        and headers.get("connection", "keep-alive").lower() == "keep-alive"
        and _UNUSUAL.isdisjoint(headers)
        and "".join(headers).translate(_NAMES_PUNCTUATION).isalnum()
        and "" not in headers
        and "".join(lines).isprintable()  # no folded lines, no lone line ends: everybody reads this head alike
    )
    return Request(target[1], headers, body) if usual else None


@lru_cache(maxsize=8)
def _head(status: int, default_headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """What each answer of one second begins with: uvicorn's headers hold its date."""
    lines = b"".join([b"%b: %b\r\n" % header for header in default_headers])
    return STATUS_LINE[status] + lines + b"content-type: application/json\r\n"


class QuickProtocol(Connection):
    """The services' connection, for a server whose app is a WebhookApp."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        assert isinstance(self.app, WebhookApp), "nothing is wrapped around it"
        self._webhooks = self.app
        self._between = True
        """Uvicorn's parser has seen no part of a further request."""
        self._in_hand = False
        self._later = b""
        self._leaves = False
        self._answered_at_seconds = 0.0

    def data_received(self, data: bytes) -> None:
        if self._in_hand:  # the next request was sent before the answer to this one
            self._later += data
            self.flow.pause_reading()
            return
        if not self._between or super().is_busy():
            super().data_received(data)
            return
        self._in_hand = True
        self.loop.call_soon(self._take, data)

    def _take(self, data: bytes) -> None:
        """Called once all sockets were read: what came in one turn of the loop is one group."""
        try:
            request = whole_request(data)
            if request is not None and self._webhooks.take(request.path, request.headers, request.body, self._answer):
                self.request_ended()
                return
        except Exception:
            self.transport.close()  # as the loop does when reading fails: the sender delivers again
            raise
        self._in_hand = False
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._later:
            self._go_on()
        if self._leaves:
            self.shutdown()

    def is_busy(self) -> bool:
        return self._in_hand or super().is_busy()

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()

    def shutdown(self) -> None:
        """Answer what is in hand first."""
        if self._in_hand:
            self._leaves = True
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """The timer runs on while requests are answered: it looks when the last one was."""
        idle_seconds = 0.0 if self._in_hand else self.loop.time() - self._answered_at_seconds
        if idle_seconds < self.timeout_keep_alive:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive - idle_seconds, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _answer(self, answer: Answer) -> None:
        """Called by whoever stored the delivery, who must not suffer for what comes next on this connection."""
        if self.transport.is_closing():
            return
        status, body, headers = answer
        head = _head(status, tuple(self.server_state.default_headers))
        for name, value in headers.items():
            head += f"{name}: {value}\r\n".encode()
        if self._leaves:
            head += b"connection: close\r\n"
        self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        if self._leaves:
            self.transport.close()
            return
        self._answered_at_seconds = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if self._later:
            self.loop.call_soon(self._go_on)
        else:
            self._in_hand = False

    def _go_on(self) -> None:
        later, self._later = self._later, b""
        self._in_hand = False
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.data_received(later)
