"""A connection that no sender can hold for ever, or fill without end: uvicorn limits neither."""

from asyncio import TimerHandle, Transport

from prometheus_client import Counter
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES_MAX = 64 * 1024
"""Address and headers of a request; of one that is not complete, one read more."""
REQUEST_SECONDS_MAX = 30.0
"""From a request's first byte to its last, unless the app has it in hand and reads it at its own pace."""

closed_total = Counter("nightshift_connections_closed_total", "Connections that were cut off", ["status"])
for _status in (408, 431):  # 0 is a figure too: what is not there cannot be seen to grow
    closed_total.labels(_status)


class _HeadTooLargeError(Exception):
    """Raised within the parser, which ends with it."""


class Connection(HttpToolsProtocol):
    """Uvicorn's connection with a limit on the head of a request (431), and on the time that a request takes (408)."""

    head_bytes_max = HEAD_BYTES_MAX
    request_seconds_max = REQUEST_SECONDS_MAX

    _since: float | None = None
    """When the request began that has not come to its end; for a new connection, when that was made."""
    _timer: TimerHandle | None = None
    _in_head = False
    _head_too_large = False
    _head_bytes = 0
    """Of a head that came in several reads, all but the first of them."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn types it
        super().connection_made(transport)
        self._begins()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._begins()
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.head_bytes_max:
                self._refuse(431)

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._begins()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.head_bytes_max:
            self._head_too_large = True
            raise _HeadTooLargeError
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.request_ended()
        super().on_message_complete()

    def request_ended(self) -> None:
        """A whole request was read: the next one has its own time."""
        self._since = None

    def send_400_response(self, msg: str) -> None:
        """Called for whatever the parser gave up."""
        if self._head_too_large:
            self._refuse(431)
        else:
            super().send_400_response(msg)

    def is_busy(self) -> bool:
        """Whether a request waits for its answer: what is read then, and when, is not the sender's doing."""
        cycle: RequestResponseCycle | None = self.cycle  # its type leaves out that there is none at first
        return cycle is not None and not cycle.response_complete

    def _begins(self) -> None:
        if self._since is None:
            self._since = self.loop.time()
            if self._timer is None:
                self._timer = self.loop.call_later(self.request_seconds_max, self._look)

    def _look(self) -> None:
        """One timer serves all requests of a connection: it is set again only while one is under way."""
        self._timer = None
        if self._since is None or self.transport.is_closing():
            return
        now = self.loop.time()
        if self.is_busy():
            self._since = now
        remaining = self._since + self.request_seconds_max - now
        if remaining > 0:
            self._timer = self.loop.call_later(remaining, self._look)
        else:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        """Answer, unless an answer was given or is under way, and read no further."""
        if self._in_head and not self.is_busy():
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        closed_total.labels(status).inc()
        self.transport.close()
