"""Stands between the services and one of their servers: slows what passes, and strikes at a chosen moment of it."""

import asyncio
import contextlib
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.stacks import Broker, Postgres, WheelPostgres

CHUNK_BYTES = 1 << 16
_PRODUCE, _OFFSET_COMMIT = b"\x00\x00", b"\x00\x08"

Upstream = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


@dataclass(frozen=True, slots=True)
class Strike:
    """What is done once, to whoever sends what matches; the connection ends with it."""

    matches: Callable[[bytes], bool]
    answered: bool
    """After the server carried it out and before the client hears of that; else before the server gets it."""
    do: Callable[[int], Awaitable[None]]
    """Called with the client's port."""


def publishes(sent: bytes) -> bool:
    """A request to Kafka that holds records."""
    return _is_request(sent, _PRODUCE)


def commits_offsets(sent: bytes) -> bool:
    """A request to Kafka by which a consumer is done with what it read."""
    return _is_request(sent, _OFFSET_COMMIT)


def commits(sent: bytes) -> bool:
    """The end of a transaction in Postgres."""
    return b"COMMIT;\x00" in sent


def _is_request(sent: bytes, kind: bytes) -> bool:
    return len(sent) == int.from_bytes(sent[:4]) + 4 and sent[4:6] == kind


class Proxy:
    """Carries bytes both ways."""

    def __init__(self, upstream: Upstream) -> None:
        self.delay_seconds = 0.0
        """Of each piece, on its way there."""
        self.strike: Strike | None = None
        """Gone once it has struck."""
        self._upstream = upstream
        self._open: set[StreamWriter] = set()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One client, until either side ends."""
        port: int = writer.get_extra_info("peername")[1]
        try:
            there, to_there = await self._upstream()
        except OSError:
            writer.close()
            return
        self._open |= {writer, to_there}
        pending: list[Strike] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry_there(reader, to_there, writer, port, pending))
                group.create_task(self._carry_back(there, writer, to_there, port, pending))
        finally:
            self._open -= {writer, to_there}
            writer.close()
            to_there.close()

    def close(self) -> None:
        """End every connection."""
        for writer in self._open:
            writer.close()

    async def _carry_there(
        self, reader: StreamReader, to_there: StreamWriter, back: StreamWriter, port: int, pending: list[Strike]
    ) -> None:
        with contextlib.suppress(OSError):
            while sent := await reader.read(CHUNK_BYTES):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if (strike := self.strike) is not None and strike.matches(sent):
                    self.strike = None
                    if not strike.answered:
                        await strike.do(port)
                        break
                    pending.append(strike)
                to_there.write(sent)
                await to_there.drain()
        to_there.close()
        back.close()

    async def _carry_back(
        self, there: StreamReader, writer: StreamWriter, to_there: StreamWriter, port: int, pending: list[Strike]
    ) -> None:
        with contextlib.suppress(OSError):
            while answer := await there.read(CHUNK_BYTES):
                if pending:
                    await pending.pop().do(port)
                    break
                writer.write(answer)
                await writer.drain()
        to_there.close()
        writer.close()


@asynccontextmanager
async def listening(proxy: Proxy, port: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """It listens on this port of 127.0.0.1, for the length of the block."""
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port, backlog=1024, ssl=tls)
    try:
        yield
    finally:
        server.close()
        proxy.close()


def to_broker(broker: Broker) -> Upstream:
    """How a broker is reached that tells its clients another port."""
    return lambda: asyncio.open_connection("127.0.0.1", broker.port)


def to_postgres(postgres: Postgres) -> Upstream:
    """How a server is reached, embedded or not."""
    if isinstance(postgres, WheelPostgres):
        socket = postgres.socket_folder / f".s.PGSQL.{postgres.port}"
        return lambda: asyncio.open_unix_connection(socket)
    address = urlsplit(postgres.url(postgres.admin, "postgres"))
    return lambda: asyncio.open_connection(address.hostname, address.port)


def through(url: str, port: int | None) -> str:
    """An address of Postgres, by the port of a proxy, where there is one."""
    if port is None:
        return url
    address = urlsplit(url)
    login = address.netloc.rpartition("@")[0]
    query = "&".join(part for part in address.query.split("&") if part.startswith("role="))
    return f"postgresql://{login}@127.0.0.1:{port}{address.path}{query and '?'}{query}"
