"""/metrics in both formats, and exemplars."""

from typing import cast

import httpx
import pytest
from prometheus_client import REGISTRY, Histogram

from services.actor.app import expiring
from services.classifier.handlers.ask_model import count_from_zero
from services.runtime.health import HealthApp
from services.runtime.inbox import Inbox
from services.runtime.postgres import Database
from services.runtime.telemetry import exemplar
from tests.fakes.acting import tiny

TRACE = "0af7651916cd43dd8448eb211c80319c"
seen_seconds = Histogram("nightshift_test_seen_seconds", "Of this test")


@pytest.mark.parametrize(
    ("accept", "content_type", "told"),
    [
        ("application/openmetrics-text;version=1.0.0,*/*;q=0.1", "application/openmetrics-text", True),
        ("text/plain", "text/plain", False),
    ],
)
async def test_a_trace_is_told_to_whoever_asks_for_openmetrics(accept: str, content_type: str, *, told: bool) -> None:
    seen_seconds.observe(0.3, exemplar(f"00-{TRACE}-b7ad6b7169203331-01"))
    transport = httpx.ASGITransport(app=HealthApp(alive={}, ready={}))  # type: ignore[arg-type]  # bare ASGI

    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        answer = await client.get("/metrics", headers={"accept": accept})

    assert answer.headers["content-type"].startswith(content_type)
    assert (f'# {{trace_id="{TRACE}"}} 0.3' in answer.text) is told


def test_without_a_trace_there_is_no_exemplar() -> None:
    assert exemplar(None) is None


def test_what_is_counted_is_told_from_zero_on() -> None:
    """A counter that appears with its first event has not increased, as far as Prometheus knows."""
    nobodys = cast("Database", None)

    Inbox(nobodys, "counted", {})
    count_from_zero("counted")
    expiring(nobodys, tiny(), [])

    for name, labels in (
        ("events_known", {"service": "counted"}),
        ("events_unknown", {"service": "counted"}),
        ("model_asks", {"provider": "counted", "outcome": "invalid"}),
        ("model_asks", {"provider": "counted", "outcome": "refused"}),
        ("approvals_put_off", {"process": "tiny"}),
    ):
        assert REGISTRY.get_sample_value(f"nightshift_{name}_total", labels) is not None, name
