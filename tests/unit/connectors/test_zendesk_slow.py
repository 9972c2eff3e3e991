"""An answer that drips outlasts every limit of a step, and none of the whole call."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from connectors.zendesk import Zendesk
from contracts.decision import Request
from contracts.failures import LaterError, OutcomeUnknownError
from tests.virtual import VirtualTime, live

BEGINS_AT = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
TIMEOUT_SECONDS = 10.0


async def _drops() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(TIMEOUT_SECONDS / 2)


def dripping() -> Zendesk:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=_drops()))
    client = httpx.AsyncClient(transport=transport)
    return Zendesk(
        base_url="http://desk.test",
        email="e",
        token="t",
        our_user_id="1",
        client=client,
        timeout_seconds=TIMEOUT_SECONDS,
    )


def test_a_read_that_drips_is_given_up_in_time_and_tried_later() -> None:
    async def scenario(time: VirtualTime) -> None:
        with pytest.raises(LaterError) as caught:
            await dripping().read("42")

        assert caught.value.code == "timeout"
        assert TIMEOUT_SECONDS <= time.seconds < TIMEOUT_SECONDS + 1

    live(scenario, begins_at=BEGINS_AT)


def test_a_write_whose_answer_drips_is_of_unknown_outcome() -> None:
    async def scenario(time: VirtualTime) -> None:
        request = Request(
            kind="reply", connector="zendesk", object_id="42", semantics="conditional", body={"ticket": {}}
        )
        with pytest.raises(OutcomeUnknownError):
            await dripping().send(request, effect_key="k", stamp="2026-11-22T04:00:00Z")

        assert TIMEOUT_SECONDS <= time.seconds < TIMEOUT_SECONDS + 1

    live(scenario, begins_at=BEGINS_AT)
