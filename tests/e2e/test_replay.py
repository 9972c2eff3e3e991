"""The night of the demo, run again while it stays up: the same reporter, the same decisions, and nobody hears of it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import orjson
import pytest

from nightshift.demo import ours
from services.runtime.postgres import Connection
from tests.e2e.conftest import RunningDemo, typed
from tests.readme import from_readme
from tests.waiting import until

DAY = timedelta(days=1)
_DONE = """
SELECT (SELECT count(*) FROM actor.effects) AS effects, (SELECT count(*) FROM actor.outbox) AS told,
       (SELECT count(*) FROM classifier.outbox) AS proposed
"""


@contextmanager
def nobody_may_call() -> Iterator[dict[str, str]]:
    """Settings of an outside that answers nobody; a call of it, in the block, fails the test."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        address = f"127.0.0.1:{door.getsockname()[1]}"
        yield {
            **{f"NIGHTSHIFT_{name}_URL": f"http://{address}" for name in ("ZENDESK", "SLACK", "ANTHROPIC", "OTLP")},
            "NIGHTSHIFT_SHOP_URL": f"postgresql://shop@{address}/shop",
            "NIGHTSHIFT_ZENDESK_EMAIL": "nightshift@shop.example",
            "NIGHTSHIFT_ZENDESK_TOKEN": "a-token",
            "NIGHTSHIFT_ANTHROPIC_API_KEY": "a-key",
        }
        door.settimeout(0)
        with pytest.raises(BlockingIOError):
            door.accept()


async def test_the_reporter_made_of_the_topics_is_the_live_one_and_takes_its_place(
    night: RunningDemo, operator: Connection
) -> None:
    async def all_is_in_the_log() -> bool:
        return "events to log" not in await ours.waiting(operator)

    await until(all_is_in_the_log)  # a test before this one may have stopped the broker
    again = from_readme("nightshift replay topics")
    with nobody_may_call() as outside:
        compared = typed(f"{again} {from_readme('--json')}", night.state, **outside)
        switched = typed(f"{again} {from_readme('--switch')}", night.state, **outside)

    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert orjson.loads(compared.stdout)["differing"] == {}
    assert switched.returncode == 0, switched.stdout + switched.stderr
    assert "switched: the projections made from the topics are the live ones" in switched.stdout
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{night.told['urls']['reporter']}/readyz")).status_code == 200
    assert night.answer("status")["cases"] is not None
    assert await operator.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'projections'") == (
        "nightshift_reporter"
    )
    assert night.answer("rebuild")["digest_before"] == night.answer("rebuild")["digest"]


async def test_every_decision_of_the_night_comes_out_the_same_and_a_model_may_be_asked_again(
    night: RunningDemo, operator: Connection
) -> None:
    before = await operator.fetchrow(_DONE)

    today = datetime.now(UTC).date()
    november = from_readme("nightshift replay decisions --since 2026-11-01 --until 2026-12-01 --process support")
    again = november.replace("2026-11-01", str(today - DAY)).replace("2026-12-01", str(today + DAY))
    with nobody_may_call() as outside:
        by_rules = typed(f"{again} --json", night.state, **outside)
        by_model = typed(f"{again} {from_readme('--repropose nearest')} --json", night.state, **outside)

    assert by_rules.returncode == 0, by_rules.stdout + by_rules.stderr
    told = orjson.loads(by_rules.stdout)
    assert told["cases"] == []
    assert told["not_replayable"] == {}
    assert told["counts"]["same"] >= 30
    assert by_model.returncode == 0, by_model.stdout + by_model.stderr
    assert orjson.loads(by_model.stdout)["counts"] == told["counts"]
    assert await operator.fetchrow(_DONE) == before
