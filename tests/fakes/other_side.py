"""The other side of an HTTP call: a real local server that answers as it is told, cuts the line, or is silent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

LINES_MAX = 100


@dataclass(frozen=True)
class Asked:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What to say."""

    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)


class Cut:
    """Read the request, then close the line without a word."""


class Silence:
    """Read the request and never answer."""


class OtherSide:
    """Serves on a free port; the last answer of `answers` repeats."""

    def __init__(self) -> None:
        self.answers: Sequence[Answer | Cut | Silence] = (Answer(),)
        self.asked: list[Asked] = []
        self.connections = 0
        self.url = ""
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        async with _closed(writer):
            keeps = True
            while keeps:
                self.asked.append(await _request(reader))
                keeps = await self._answer(self.answers[min(len(self.asked), len(self.answers)) - 1], writer)

    async def _answer(self, answer: Answer | Cut | Silence, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection is kept for another request: where the answer's headers say so."""
        match answer:
            case Answer(status, body, headers):
                lines = {"content-length": str(len(body)), "connection": "close", **headers}
                head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
                writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)
                with contextlib.suppress(ConnectionError):  # the client had enough
                    await writer.drain()
                return lines["connection"] == "keep-alive"
            case Silence():
                await self._closing.wait()
            case Cut():
                pass
        return False


@contextlib.asynccontextmanager
async def _closed(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> Asked:
    method, target, _ = (await reader.readline()).decode().split(" ")
    headers: dict[str, str] = {}
    for _ in range(LINES_MAX):
        name, _, value = (await reader.readline()).decode().strip().partition(": ")
        if not name:
            break
        headers[name.lower()] = value
    return Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
