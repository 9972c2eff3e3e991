"""`python -m nightshift.world`: the simulated outside world as a process of its own; prints `listening http://…`."""

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import uvicorn

from nightshift.world.app import build
from nightshift.world.deliveries import Mischief
from nightshift.world.store import StateUnreadableError
from nightshift.world.world import World
from services.runtime.config import named_setting

TOKEN = "NIGHTSHIFT_ZENDESK_TOKEN"  # noqa: S105  # the name of a setting
SECRET = "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET"  # noqa: S105  # as above


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals to us: uvicorn would raise them again before the state is saved."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            print(f"listening http://{host}:{port}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nightshift.world", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--state", type=Path, help="folder of the saved state; without it nothing is kept")
    parser.add_argument("--webhook-url", help="where webhooks go; without it none are sent")
    parser.add_argument("--cases-url", help="what a ticket's page links to, its id put behind; without it, no link")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--email", default="nightshift@shop.example", help="the API user's address")
    parser.add_argument("--slack-token", default="demo", help="last part of the Slack webhook's path")
    parser.add_argument("--copies-max", type=int, default=1, help="send each webhook up to so often")
    parser.add_argument("--shuffled-percent", type=float, default=0)
    parser.add_argument("--forged-percent", type=float, default=0)
    parser.add_argument("--stale-percent", type=float, default=0)
    parser.add_argument("--trigger-percent", type=float, default=0)
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace, token: str, secret: str) -> None:
    mischief = Mischief(
        copies_max=arguments.copies_max,
        shuffled_percent=arguments.shuffled_percent,
        forged_percent=arguments.forged_percent,
        stale_percent=arguments.stale_percent,
        trigger_percent=arguments.trigger_percent,
    )
    with socket.create_server((arguments.host, arguments.port), backlog=1024) as listener:
        async with httpx.AsyncClient(trust_env=False) as client:
            world = World(
                clock=lambda: datetime.now(UTC),
                token=token,
                secret=secret,
                client=client,
                email=arguments.email,
                webhook_url=arguments.webhook_url,
                seed=arguments.seed,
                folder=arguments.state,
                mischief=mischief,
            )
            config = uvicorn.Config(
                build(world, slack_token=arguments.slack_token, cases_url=arguments.cases_url),
                log_level="critical",
                access_log=False,
                date_header=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
            async with asyncio.TaskGroup() as group:
                running = group.create_task(world.run())
                await _Server(config).serve(sockets=[listener])
                running.cancel()


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; 2 when a setting is missing or the state cannot be read."""
    arguments = _arguments()
    token, secret = named_setting(TOKEN), named_setting(SECRET)
    if not token or not secret:
        print(f"set {TOKEN} and {SECRET}: what the API asks for, and what signs the webhooks", file=sys.stderr)
        return 2
    try:
        asyncio.run(_serve(arguments, token, secret))
    except (StateUnreadableError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
