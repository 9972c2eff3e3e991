"""A list of updates that cannot be understood is no list: nobody shall take what it holds for all there is."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from contracts.failures import LaterError, PermanentError
from tests.fakes.world import connector

SINCE = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)
START = int(SINCE.timestamp())
EVENT = {"id": 7, "ticket_id": 42, "created_at": "2026-11-25T06:00:00Z", "child_events": []}
PAGE = {"ticket_events": [EVENT], "end_time": START + 9, "end_of_stream": False}


async def listed(answer: Mapping[str, Any], status: int = 200, **headers: str) -> Any:
    async def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.params["start_time"] == str(START)
        return httpx.Response(status, json=answer, headers=headers)

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        return await connector(client).list_updates(SINCE, None)


async def test_a_page_says_where_the_next_one_begins() -> None:
    page = await listed(PAGE)

    assert (page.cursor, page.end) == (str(START + 9), False)
    assert [(one.object_id, one.update_id, one.parts) for one in page.updates] == [("42", "audit:7", ())]


async def test_a_page_of_one_second_alone_is_followed_by_the_next_second() -> None:
    assert (await listed({**PAGE, "end_time": START})).cursor == str(START + 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"ticket_events": None},
        {"end_of_stream": None},
        {"end_time": None},  # it does not end, and goes on nowhere
        {"ticket_events": [{**EVENT, "created_at": "soon"}]},
        {"ticket_events": [{**EVENT, "ticket_id": "x"}]},
        {"ticket_events": [{**EVENT, "child_events": [{"event_type": "Comment", "id": []}]}]},
    ],
)
async def test_a_page_that_is_not_whole_is_unreadable(changed: Mapping[str, Any]) -> None:
    with pytest.raises(PermanentError) as unreadable:
        await listed({name: value for name, value in {**PAGE, **changed}.items() if value is not None})

    assert unreadable.value.code == "unreadable_answer"


@pytest.mark.parametrize(("status", "code", "seconds"), [(429, "rate_limited", 93), (503, "unavailable", 93)])
async def test_a_refusal_says_how_long_to_wait(status: int, code: str, seconds: float) -> None:
    with pytest.raises(LaterError) as later:
        await listed({}, status, **{"retry-after": "93"})

    assert (later.value.code, later.value.seconds) == (code, seconds)


async def test_who_is_no_admin_may_not_list() -> None:
    with pytest.raises(LaterError) as later:
        await listed({}, 403)

    assert later.value.code == "forbidden"
