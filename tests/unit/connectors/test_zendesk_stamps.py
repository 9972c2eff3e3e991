"""Zendesk's stamps have a resolution of a second, and one second has room for several updates."""

from datetime import UTC, datetime

import httpx
import pytest

from connectors.zendesk import Zendesk
from tests.virtual import VirtualTime, live

BEGINS_AT = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
STAMP = "2026-11-25T09:00:00Z"


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Wed, 25 Nov 2026 08:59:59 GMT", 1.0),
        ("Wed, 25 Nov 2026 09:00:00 GMT", 1.0),
        ("Wed, 25 Nov 2026 09:00:01 GMT", 0.0),
        ("soon", 0.0),
    ],
)
def test_a_stamp_is_told_when_its_second_is_over_there(date: str, seconds: float) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"date": date}, json={"ticket": {"id": 42, "updated_at": STAMP}})

    async def scenario(time: VirtualTime) -> None:
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        zendesk = Zendesk(base_url="http://desk.test", email="e", token="t", our_user_id="1", client=client)

        assert await zendesk.current_stamp("42") == STAMP
        assert seconds <= time.seconds < seconds + 0.5

    live(scenario, begins_at=BEGINS_AT)
