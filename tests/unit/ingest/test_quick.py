"""The usual webhook takes a shorter way, and nobody can tell from the answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

import httptools
import orjson
import pytest
import uvicorn
from hypothesis import given, settings, strategies as st

from services.ingest.domain.delivery import Delivery, Outcome
from services.ingest.inbound.http import WebhookApp
from services.ingest.inbound.quick import QuickProtocol, whole_request
from services.ingest.ports import IntakeUnavailableError, Told
from services.runtime.health import HealthApp
from tests.integration.ingest_app import NOW, SECRET, TRACE, change, door, hmac_headers, outside
from tests.waiting import until

SIGNED = "/webhooks/support/signed"
OPEN = "/webhooks/support/open"


class Parsed:
    """What uvicorn's own parser makes of bytes."""

    def __init__(self, data: bytes) -> None:
        self.url, self.body, self.complete = b"", b"", 0
        self.headers: list[tuple[str, str]] = []
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().lower(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def request(path: str, body: bytes, **headers: str) -> bytes:
    lines = {"host": "x", "content-type": "application/json", "content-length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def test_a_usual_request_is_read_at_once() -> None:
    read = whole_request(request(OPEN, b"{}", Connection="Keep-Alive", traceparent=" 00"))

    assert read is not None
    assert (read.path, read.body, read.headers["traceparent"]) == (OPEN, b"{}", "00")


# fmt: off
PIECES = st.sampled_from([
    b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b": ", b"\0", b"\xe9", b"0", b"1", b"{}", b"a", b"%41", b"?a=b",
    b"\r\n\r\n",
    b"transfer-encoding: chunked\r\n", b"content-length: 2\r\n", b"connection: close\r\n", b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\n", b"X-Thing:no space\r\n", b"x-empty: \r\n", b"x-a: b \r\n c\r\n", b"POST ",
])
# fmt: on


@settings(max_examples=400)
@given(st.data())
def test_what_is_read_at_once_is_what_the_server_s_parser_reads(data: st.DataObject) -> None:
    raw = request(OPEN, b"{}", traceparent=TRACE)
    for _ in range(data.draw(st.integers(0, 3))):
        place, cut = data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, 3))
        raw = raw[:place] + data.draw(PIECES | st.just(b"")) + raw[place + cut :]

    read = whole_request(raw)

    if read is not None:
        parsed = Parsed(raw)
        assert (parsed.complete, parsed.url.decode(), parsed.body) == (1, read.path, read.body)
        assert dict(parsed.headers) == read.headers
        assert len(parsed.headers) == len(read.headers)
        assert parsed.parser.should_keep_alive()
        assert parsed.parser.get_method() == b"POST"


@dataclass
class HeldIntake:
    """Stores when it is told to."""

    waiting: list[Callable[[Told], None]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: Told | None = None

    async def store(self, delivery: Delivery) -> Outcome:
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self.submit(delivery, future.set_result)
        told = await future
        if isinstance(told, IntakeUnavailableError):
            raise told
        return told

    def submit(self, delivery: Delivery, reply: Callable[[Told], None]) -> None:
        del delivery
        if self.at_once is not None:
            return reply(self.at_once)
        self.waiting.append(reply)
        return self.arrived.set()

    async def one(self) -> Callable[[Told], None]:
        await self.arrived.wait()
        self.arrived.clear()
        return self.waiting.pop(0)


@dataclass
class Serving:
    intake: HeldIntake
    server: uvicorn.Server
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    intake = HeldIntake()
    app = WebhookApp(
        [door("open", "none", outside()), door("signed", "hmac", outside(), SECRET)],
        intake=intake,
        clock=lambda: NOW,
        trace=lambda header: header or TRACE,
        other=HealthApp(alive={}, ready={}),
    )
    config = uvicorn.Config(
        app,
        http=QuickProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        port=0,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield Serving(intake, server, server.servers[0].sockets[0].getsockname()[1])
    finally:
        await server.shutdown()


async def answer(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], object]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = dict(line.split(": ", 1) for line in lines)
    return first.split(" ")[1], headers, orjson.loads(await reader.readexactly(int(headers["content-length"])))


async def test_every_way_gives_the_same_answers() -> None:
    body = change("c1")
    sent = request(SIGNED, body, **hmac_headers(body))
    async with serving() as serves:
        serves.intake.at_once = "accepted"
        reader, writer = await serves.connect()
        with closing(writer):
            writer.write(sent)
            whole = await answer(reader)
            writer.write(sent[:50])
            await asyncio.sleep(0)
            writer.write(sent[50:-5])
            serves.intake.at_once = None
            writer.write(sent[-5:])
            (await serves.intake.one())("accepted")
            in_pieces = await answer(reader)

    assert whole[0] == in_pieces[0] == "202"
    assert whole[2] == in_pieces[2]
    assert whole[1].keys() == in_pieces[1].keys()


async def test_what_is_refused_is_refused_and_the_connection_goes_on() -> None:
    async with serving() as serves:
        serves.intake.at_once = "duplicate"
        reader, writer = await serves.connect()
        with closing(writer):
            answers = []
            for headers in ({"x-signature": "00"}, hmac_headers(b"{"), {"content-type": "text/plain"}):
                writer.write(request(SIGNED, b"{", **headers))
                answers.append(await answer(reader))
            writer.write(request("/webhooks/support/none", b"{}"))
            answers.append(await answer(reader))
            writer.write(request(OPEN, change("c1")))
            answers.append(await answer(reader))

    assert [status for status, _, _ in answers] == ["401", "400", "415", "404", "202"]
    assert isinstance(answers[-1][2], dict)
    assert answers[-1][2]["duplicate"] is True


async def test_what_cannot_be_stored_is_503_with_a_time_to_come_back() -> None:
    async with serving() as serves:
        reader, writer = await serves.connect()
        with closing(writer):
            writer.write(request(OPEN, change("c1")))
            (await serves.intake.one())(IntakeUnavailableError("storage_unavailable", "later", retry_after_seconds=5))
            status, headers, body = await answer(reader)

    assert (status, headers["retry-after"]) == ("503", "5")
    assert body == {"error": "storage_unavailable", "mend": "later"}


async def test_a_request_sent_before_the_answer_waits_for_its_turn() -> None:
    async with serving() as serves:
        reader, writer = await serves.connect()
        with closing(writer):
            writer.write(request(OPEN, change("c1")))
            first = await serves.intake.one()
            writer.write(request(OPEN, change("c2")) + request(OPEN, change("c3")))
            await writer.drain()
            first("accepted")
            (await serves.intake.one())("duplicate")
            (await serves.intake.one())("accepted")
            told = [(await answer(reader))[2] for _ in range(3)]

    assert [one["duplicate"] for one in told if isinstance(one, dict)] == [False, True, False]


async def test_what_is_in_hand_is_answered_before_the_server_leaves() -> None:
    async with serving() as serves:
        reader, writer = await serves.connect()
        with closing(writer):
            writer.write(request(OPEN, change("c1")))
            tell = await serves.intake.one()
            async with asyncio.TaskGroup() as group:
                group.create_task(serves.server.shutdown())
                await asyncio.sleep(0)
                tell("accepted")
                status, headers, _ = await answer(reader)
            rest = await reader.read()

    assert (status, headers["connection"], rest) == ("202", "close", b"")


async def test_a_sender_that_left_is_not_answered_and_hurts_nobody() -> None:
    async with serving() as serves:
        _, writer = await serves.connect()
        writer.write(request(OPEN, change("c1")))
        tell = await serves.intake.one()
        writer.transport.abort()
        await until(lambda: not serves.server.server_state.connections)

        tell("accepted")


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async with serving() as serves:
        reader, writer = await serves.connect()
        with closing(writer):
            writer.write(request(OPEN, change("c1")))
            tell = await serves.intake.one()
            (connection,) = serves.server.server_state.connections
            assert isinstance(connection, QuickProtocol)

            connection.timeout_keep_alive_handler()
            tell("accepted")
            status, _, _ = await answer(reader)
            connection._answered_at_seconds -= connection.timeout_keep_alive
            connection.timeout_keep_alive_handler()

            assert (status, await reader.read()) == ("202", b"")


async def test_a_fault_of_ours_closes_the_connection_so_that_the_sender_delivers_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> bool:
        raise ZeroDivisionError

    async with serving() as serves:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
        monkeypatch.setattr(WebhookApp, "take", fails)
        reader, writer = await serves.connect()
        with closing(writer):
            writer.write(request(OPEN, change("c1")))

            assert await reader.read() == b""
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
