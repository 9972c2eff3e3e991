"""Notices to a Slack channel through an incoming webhook. Nothing can be read back there, so every request is blind."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import httpx

from connectors.http_failures import failure_of, http_date, sending, timeouts
from connectors.protocol import Acknowledged
from contracts.decision import Request
from contracts.failures import PermanentError

_WHAT = "slack"


class Slack:
    """Sends. The webhook's address is itself the secret: it is in no message, log or repr of ours."""

    def __init__(
        self, *, client: httpx.AsyncClient, url: str, timeout_seconds: float, clock: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._clock = clock

    async def send(self, request: Request, *, effect_key: str, stamp: str | None) -> Acknowledged:
        """Post `request.body` (Slack's own form: `text`, `blocks` …) once.

        Slack names no id for what it wrote, so the reference is our own `effect_key`; the time is that of its answer.
        Raises PermanentError, LaterError, OutcomeUnknownError (5xx, a cut, a timeout: the notice may have appeared).
        """
        if request.semantics != "blind" or stamp is not None:
            raise PermanentError("malformed", f"{_WHAT}: an incoming webhook takes blind requests alone")
        with sending(_WHAT, has_effect=True):
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream(
                    "POST",
                    self._url,
                    json=request.body,
                    follow_redirects=False,
                    timeout=timeouts(self._timeout_seconds),
                ) as response,
            ):  # the status says everything; the body is not waited for
                answer = response
        if (failure := failure_of(answer, what=_WHAT)) is not None:
            raise failure
        return Acknowledged(reference=effect_key, at=http_date(answer.headers.get("date", "")) or self._clock())
