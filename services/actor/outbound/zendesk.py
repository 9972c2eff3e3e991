"""Zendesk as a destination that starts while Zendesk is down: who we are there is asked before the first call."""

from collections.abc import Sequence

import httpx

from connectors.protocol import Acknowledged, PlainChange, Written
from connectors.zendesk import Zendesk
from contracts.decision import Request


class ZendeskDestination:
    """Sends, ReadsBack and Reads."""

    def __init__(
        self,
        *,
        base_url: str,
        email: str,
        token: str,
        our_user_id: str | None,
        client: httpx.AsyncClient,
        timeout_seconds: float,
    ) -> None:
        self._account = {"base_url": base_url, "email": email, "token": token}
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._zendesk = None if our_user_id is None else self._as(our_user_id)

    async def send(self, request: Request, *, effect_key: str, stamp: str | None) -> Acknowledged:
        return await (await self._known()).send(request, effect_key=effect_key, stamp=stamp)

    async def current_stamp(self, object_id: str) -> str:
        return await (await self._known()).current_stamp(object_id)

    async def written(self, object_id: str) -> Sequence[Written]:
        return await (await self._known()).written(object_id)

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        return await (await self._known()).read(object_id)

    async def _known(self) -> Zendesk:
        """Raises what a read-only call raises: nothing was sent yet."""
        if self._zendesk is None:
            self._zendesk = self._as(await self._as("").user_id())
        return self._zendesk

    def _as(self, our_user_id: str) -> Zendesk:
        return Zendesk(
            **self._account, our_user_id=our_user_id, client=self._client, timeout_seconds=self._timeout_seconds
        )
