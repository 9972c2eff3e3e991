"""/metrics in both formats, and exemplars."""

import httpx
import pytest
from prometheus_client import Histogram

from services.runtime.health import HealthApp
from services.runtime.telemetry import exemplar

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
