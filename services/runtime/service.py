"""The life of a service: start its parts, serve HTTP, and on SIGTERM finish what is in hand and leave in time."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import structlog
import uvicorn
import uvloop

from services.runtime.connection import Connection
from services.runtime.stop import Stop

GARBAGE_MIN = 50_000
"""What was loaded lives for ever: looking through it again and again for cycles cost a quarter of all the work."""

log = structlog.get_logger()

Part = Callable[[Stop], Awaitable[None]]
"""Runs until stopped: a relay, a worker, the link to the broker."""


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: the service has one place for them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            log.info("ready", host=host, port=port)


def main(run: Callable[[], Awaitable[None]]) -> None:
    """Run a service's `run` on uvloop."""
    uvloop.run(run())  # type: ignore[arg-type]  # it is a coroutine function's result


async def serve(
    *,
    app: Any,
    host: str,
    port: int,
    parts: Sequence[Part],
    grace_seconds: float,
    http: type[Connection] = Connection,
) -> None:
    """Serve `app` and run `parts` until SIGTERM or SIGINT; then everything ends within `grace_seconds`.

    A part that fails ends the service with its error: the supervisor starts it again.
    """
    gc.collect()
    gc.set_threshold(GARBAGE_MIN)
    gc.freeze()
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = _Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="uvloop",
            http=http,
            ws="none",
            proxy_headers=False,  # nobody here asks who the peer is
            server_header=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=max(1, int(grace_seconds) - 2),
            timeout_keep_alive=75,
            backlog=4096,
        )
    )
    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(_until_stopped(part, stop))
            group.create_task(server.serve())
            await stop.wait()
            log.info("stopping")
            server.should_exit = True
            loop.call_later(grace_seconds, _give_up, group)


async def _until_stopped(part: Part, stop: Stop) -> None:
    await part(stop)
    if not stop.is_set():
        raise RuntimeError(f"a part of the service ended by itself: {part!r}")


def _give_up(group: asyncio.TaskGroup) -> None:
    """The grace is over: cancel what still runs. Leases expire, nothing is lost."""
    for task in list(group._tasks):  # noqa: SLF001  # TaskGroup has no public way to cancel its tasks
        task.cancel()
