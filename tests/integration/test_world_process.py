"""The simulated world as the demo starts it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from nightshift.world import store

ROOT = Path(__file__).parents[2]
SECRETS = {"NIGHTSHIFT_ZENDESK_TOKEN": "token", "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET": "secret"}


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nightshift.world",
        *arguments,
        cwd=ROOT,
        env={**os.environ, **SECRETS},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("listening http://127.0.0.1:")
        yield process, line.split()[1]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0)])
async def test_a_stopped_world_goes_on_where_it_was(tmp_path: Path, number: signal.Signals, code: int) -> None:
    async with running("--state", str(tmp_path)) as (process, url), httpx.AsyncClient() as client:
        await client.post(f"{url}/new", data={"email": "eve@example.com", "subject": "Order", "body": "Where?"})
        process.send_signal(number)
        async with asyncio.timeout(10):
            assert await process.wait() == code

    async with running("--state", str(tmp_path)) as (_, url), httpx.AsyncClient() as client:
        books = (await client.get(f"{url}/books.json")).json()
    assert books["tickets"] == 1


async def test_a_killed_world_leaves_a_state_that_can_be_read(tmp_path: Path) -> None:
    async with running("--state", str(tmp_path)) as (process, url), httpx.AsyncClient() as client:
        started = await client.post(f"{url}/control/night", json={"tickets": 30, "seconds": 0})
        assert started.status_code == 202
        async with asyncio.timeout(30):
            while not (tmp_path / store.FILE).exists():
                await client.get(f"{url}/night.json")
        process.kill()
        await process.wait()

    saved = store.load(tmp_path)
    assert saved is not None
    assert saved.state.seed == 1


async def test_a_night_is_played_and_its_webhooks_are_sent(free_port: int) -> None:
    received: list[bytes] = []

    async def intake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length"))
        received.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(intake, "127.0.0.1", free_port)
    address = f"http://127.0.0.1:{free_port}/"
    async with server, running("--webhook-url", address) as (_, url), httpx.AsyncClient() as client:
        await client.post(f"{url}/control/night", json={"tickets": 20, "seconds": 0})
        async with asyncio.timeout(60):
            while (night := (await client.get(f"{url}/night.json")).json())["state"] != "played" or night[
                "webhooks_pending"
            ]:
                await asyncio.sleep(0)
        deliveries = (await client.get(f"{url}/deliveries.json")).json()

    assert night["facts"]["tickets_total"] == 20
    assert len(received) == len(deliveries["deliveries"]) == deliveries["counts"]["answered_202"]


async def test_a_world_without_its_secrets_says_which_to_set() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nightshift.world",
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()

    assert process.returncode == 2
    assert b"NIGHTSHIFT_ZENDESK_TOKEN" in complaint
