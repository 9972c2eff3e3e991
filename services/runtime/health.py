"""Health that means progress: a heartbeat alone proves nothing."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from services.runtime.postgres import UNAVAILABLE
from services.runtime.tasks import Worker

STALLED_SECONDS = 60.0
BATCH_SECONDS_MAX = 300.0
"""Of work in hand: a slow model may take so long for a whole batch."""

Check = Callable[[], Awaitable[str | None]]
"""Answers none when all is well, else what is wrong."""

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


def progress_of(worker: Worker) -> Check:
    """Fails when work may be claimed for longer than the limit and the worker claims nothing, though nobody paused.

    However much there is to do, one that goes on is well: to end it would only make the rest wait longer.
    """

    async def check() -> str | None:
        if worker.still_seconds <= (BATCH_SECONDS_MAX if worker.in_hand else STALLED_SECONDS):
            return None
        waiting = await worker.oldest_claimable_seconds()
        if waiting <= STALLED_SECONDS:
            return None
        return f"{worker.kind}: work waits since {waiting:.0f} s (limit {STALLED_SECONDS:.0f} s) and is not claimed"

    return check


class HealthApp:
    """`/healthz` (restart me when it fails), `/readyz` (send me nothing while it fails), `/metrics`: bare ASGI."""

    def __init__(self, *, alive: Mapping[str, Check], ready: Mapping[str, Check]) -> None:
        self._checks = {"/healthz": alive, "/readyz": ready}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["type"] != "http":
            return
        if scope["path"] == "/metrics":
            accept = dict(scope.get("headers", ())).get(b"accept", b"").decode("latin-1")
            encode, content_type = choose_encoder(accept)  # exemplars are told in OpenMetrics alone
            await respond(send, 200, encode(REGISTRY), content_type)
        elif (checks := self._checks.get(scope["path"])) is not None:
            ask = _ask_whether_alive if scope["path"] == "/healthz" else _ask
            wrong = {name: what for name, check in checks.items() if (what := await ask(check)) is not None}
            await respond(send, 503 if wrong else 200, orjson.dumps({"ok": not wrong, "wrong": wrong}))
        else:
            await respond(send, 404, b'{"error":"there is /healthz, /readyz and /metrics"}')


async def _ask(check: Check) -> str | None:
    try:
        return await check()
    except Exception as error:  # noqa: BLE001  # a check that cannot be made is a check that failed
        return f"cannot be checked: {type(error).__name__}"


async def _ask_whether_alive(check: Check) -> str | None:
    """While Postgres is away nobody can work: to be ended for that brings it back no sooner, and us later."""

    async def excused() -> str | None:
        try:
            return await check()
        except UNAVAILABLE:
            return None

    return await _ask(excused)


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    """One whole HTTP answer."""
    sent = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    sent += [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
