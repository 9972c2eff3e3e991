"""What makes an orchestrator end a service, and what only keeps work from it."""

import httpx
import orjson
import pytest

from services.runtime.health import Check, HealthApp


def failing(error: Exception) -> Check:
    async def check() -> str | None:
        raise error

    return check


async def stands_still() -> str | None:
    return "nothing is claimed"


async def asked(path: str, check: Check) -> tuple[int, dict[str, str]]:
    transport = httpx.ASGITransport(app=HealthApp(alive={"work": check}, ready={"work": check}))  # type: ignore[arg-type]  # httpx types the scope as a dict
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.get(path)
    return answer.status_code, orjson.loads(answer.content)["wrong"]


@pytest.mark.parametrize("away", [ConnectionRefusedError(), TimeoutError()])
async def test_while_postgres_is_away_a_service_is_alive_and_not_ready(away: Exception) -> None:
    assert await asked("/healthz", failing(away)) == (200, {})
    assert (await asked("/readyz", failing(away)))[0] == 503


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_who_stands_still_is_neither(path: str) -> None:
    assert await asked(path, stands_still) == (503, {"work": "nothing is claimed"})


async def test_a_check_of_ours_that_fails_is_no_excuse() -> None:
    assert (await asked("/healthz", failing(KeyError("x"))))[0] == 503
