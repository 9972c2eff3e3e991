"""What the doctor says of the account that Nightshift works with."""

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from nightshift.doctor.outside import zendesk
from nightshift.doctor.verdict import Place
from nightshift.world.app import build
from tests.fakes.world import EMAIL, TOKEN, served, world as new_world


@pytest.mark.parametrize(("refused", "levels"), [(0, ["ok"]), (403, ["ok", "warning"]), (429, ["ok"])])
async def test_a_user_who_may_not_list_ticket_events_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refused: int, levels: list[str]
) -> None:
    async with httpx.AsyncClient() as client:
        world = new_world(lambda: datetime.fromtimestamp(time.time(), UTC), client)
        world.api.faults.list_refused = refused
        async with served(build(world)) as url:
            monkeypatch.setenv("NIGHTSHIFT_ZENDESK_URL", url)
            monkeypatch.setenv("NIGHTSHIFT_ZENDESK_EMAIL", EMAIL)
            monkeypatch.setenv("NIGHTSHIFT_ZENDESK_TOKEN", TOKEN)

            verdicts = await zendesk(Place(state=tmp_path, told=None))

    told = [verdict for verdict in verdicts if EMAIL in verdict.text]
    assert [verdict.level for verdict in told] == levels
