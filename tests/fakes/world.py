"""The simulated outside world for tests: virtual time, and a real server where a connection must break."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from connectors.zendesk import Zendesk as Connector
from nightshift.world.model import OUR_USER_ID
from nightshift.world.world import World

TOKEN = "token"
SECRET = "secret"
EMAIL = "nightshift@shop.example"
START = datetime(2026, 11, 25, 6, 0, 0, tzinfo=UTC)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def connector(client: httpx.AsyncClient, base_url: str = "http://world", *, timeout_seconds: float = 5.0) -> Connector:
    return Connector(
        base_url=base_url,
        email=EMAIL,
        token=TOKEN,
        our_user_id=str(OUR_USER_ID),
        client=client,
        timeout_seconds=timeout_seconds,
    )


def world(clock: Callable[[], datetime], client: httpx.AsyncClient, **settings: Any) -> World:
    return World(clock=clock, token=TOKEN, secret=SECRET, client=client, **settings)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """The application behind a real server on a free port; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", date_header=False, timeout_graceful_shutdown=1
        )
        server = _Server(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(server._serve([listener]))
            await server.listens.wait()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True
