"""No sender holds a connection for ever or fills it without end, and none that is merely slow to be answered is cut."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest

from services.runtime.connection import HEAD_BYTES_MAX, Connection
from services.runtime.health import HealthApp, respond
from tests.serving import served

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
APP = HealthApp(alive={}, ready={})


class Hasty(Connection):
    request_seconds_max = 0.2


async def told(url: str, *pieces: bytes) -> bytes:
    """Everything that is answered until the server hangs up."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with closing(writer):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
        except ConnectionError:
            return b"reset"


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /heal", id="half a line"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\n", id="half a head"),
        pytest.param(b"\r\n\r\n", id="empty lines"),
        pytest.param(HEALTH.replace(b"\r\n\r\n", b"\r\ncontent-length: 9\r\n\r\n"), id="a body that nobody reads"),
        pytest.param(HEALTH + b"GET", id="half of the next one"),
    ],
)
async def test_a_request_that_has_no_end_is_cut_off(start: bytes) -> None:
    async with served(APP, http=Hasty) as url, asyncio.timeout(20):
        answer = await told(url, start)

    assert answer.count(b"HTTP/1.1 200") == (start[:12] == HEALTH[:12] and b"\r\n\r\n" in start)
    assert (b"HTTP/1.1 408" in answer) == (b"GET" in start and not start.endswith(b"\r\n\r\n"))


@pytest.mark.parametrize("drop", [b"a", b"\r\n"], ids=["a header", "empty lines"])
async def test_dripping_does_not_help(drop: bytes) -> None:
    """A drop at a time: no pause between two of them is ever long."""
    start = b"" if drop == b"\r\n" else b"GET /healthz HTTP/1.1\r\nx: "
    async with served(APP, http=Hasty) as url, asyncio.timeout(20):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with closing(writer):
            writer.write(start)
            answering = asyncio.ensure_future(reader.read())
            while not answering.done():
                writer.write(drop)
                await asyncio.wait([answering], timeout=0.02)
            answer = b"" if answering.exception() else answering.result()

    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


TOO_LARGE = {
    "10,000 headers": b"".join(b"x-%d: a\r\n" % n for n in range(10_000)),
    "a header of 1 MB": b"x: " + b"a" * 1_000_000 + b"\r\n",
    "a name of 1 MB": b"x" * 1_000_000 + b": a\r\n",
    "an address of 1 MB": b"",
}


@pytest.mark.parametrize("case", TOO_LARGE)
@pytest.mark.parametrize("pieces", [1, 500])
async def test_a_head_that_is_too_large_is_refused_and_read_no_further(case: str, pieces: int) -> None:
    address = b"/healthz?" + (b"a" * 1_000_000 if case == "an address of 1 MB" else b"")
    sent = b"GET %b HTTP/1.1\r\nhost: x\r\n%b\r\n" % (address, TOO_LARGE[case])
    size = -(-len(sent) // pieces)
    async with served(APP) as url, asyncio.timeout(20):
        answer = await told(url, *(sent[at : at + size] for at in range(0, len(sent), size)))

    assert answer == b"reset" or answer.startswith(b"HTTP/1.1 431")


async def test_both_sides_of_the_limit_of_a_head() -> None:
    rest = len(b"/healthz" + b"hostx" + b"connectionclose" + b"x")
    async with served(APP) as url:
        for over, status in ((0, b"200"), (1, b"431")):
            value = b"a" * (HEAD_BYTES_MAX - rest + over)
            sent = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: %b\r\n\r\n" % value
            assert (await told(url, sent)).startswith(b"HTTP/1.1 " + status), over


async def test_a_request_that_waits_for_its_answer_is_not_cut_off_nor_the_next_one() -> None:
    asked, goes = asyncio.Event(), asyncio.Event()

    async def slow(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        del scope, receive
        asked.set()
        await goes.wait()
        await respond(send, 200, b"{}")

    async with served(slow, http=Hasty) as url, asyncio.timeout(20):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with closing(writer):
            writer.write(HEALTH + HEALTH[:9])
            await asked.wait()
            await asyncio.sleep(3 * Hasty.request_seconds_max)  # what must not happen takes its time
            goes.set()
            writer.write(HEALTH[9:])
            for _ in range(2):
                assert b"200" in await reader.readuntil(b"\r\n\r\n{}")
