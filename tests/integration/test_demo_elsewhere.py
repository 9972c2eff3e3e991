"""A demo on a stack that runs already lets nothing act that is no demo."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import asyncpg
import pytest

from contracts.events.control import RegimeAdmitted
from nightshift.demo.outside import WorldError
from nightshift.demo.play import NotADemoError, Order, elsewhere
from nightshift.world.night import POOL
from tests.conftest import MigratedDatabase

_AN_EVENT = """
INSERT INTO reporter.event_log (event_id, topic, type, case_id, process, time, headers, body)
SELECT gen_random_uuid(), 'nightshift.cases', 'case.opened.v1', 'support:zendesk:1', 'support', now(), '{}', ''
"""
QUIET = b'{"seed": 1, "state": "quiet", "done": 0, "total": 0, "webhooks_pending": 0, "due": 0, "facts": null}'


class HelpDesk(BaseHTTPRequestHandler):
    """Answers /night.json as the simulated world does, and /real/… as a help desk that knows no nights."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path.startswith("/real") else 200)
        self.end_headers()
        self.wfile.write(QUIET)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def help_desk() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), HelpDesk) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch, migrated: MigratedDatabase, help_desk: str) -> Order:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", migrated.admin_url)
    monkeypatch.setenv("NIGHTSHIFT_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("NIGHTSHIFT_ZENDESK_URL", help_desk)
    monkeypatch.setenv("NIGHTSHIFT_ZENDESK_TOKEN", "token")
    monkeypatch.setenv("NIGHTSHIFT_SHOP_URL", "postgresql://shop_reader:secret@db/shop")
    return Order(state=Path("unused"), tickets=1)


async def modes(migrated: MigratedDatabase) -> int:
    connection = await asyncpg.connect(migrated.admin_url)
    try:
        count: int = await connection.fetchval("SELECT count(*) FROM control.modes")
        return count
    finally:
        await connection.close()


async def test_a_new_stack_is_made_a_demo(order: Order, migrated: MigratedDatabase) -> None:
    async with elsewhere(order) as played:
        connection = await asyncpg.connect(played.admin_url)
        customers = await connection.fetchval("SELECT count(*) FROM shop.customers")
        paused = await connection.fetchval("SELECT paused FROM control.switches WHERE process = 'support'")
        await connection.close()

    assert (customers, paused) == (POOL, False)
    assert await modes(migrated) > 0
    async with elsewhere(order):
        pass  # and stays one


async def test_a_real_help_desk_is_left_alone(
    order: Order, monkeypatch: pytest.MonkeyPatch, help_desk: str, migrated: MigratedDatabase
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_ZENDESK_URL", f"{help_desk}/real")

    with pytest.raises(WorldError, match="no simulated world"):
        async with elsewhere(order):
            pass
    assert await modes(migrated) == 0


async def test_a_database_that_works_for_somebody_is_left_alone(order: Order, migrated: MigratedDatabase) -> None:
    connection = await asyncpg.connect(migrated.admin_url)
    await connection.execute(_AN_EVENT)
    await connection.close()

    with pytest.raises(NotADemoError, match="is no demo"):
        async with elsewhere(order):
            pass
    assert await modes(migrated) == 0


async def test_a_demo_lets_its_own_model_be_asked_whatever_evals_are_on_record(
    order: Order, migrated: MigratedDatabase
) -> None:
    connection = await asyncpg.connect(migrated.admin_url)
    try:
        await connection.execute(
            "INSERT INTO control.regimes (process, model, regime) VALUES ('support', 'm', 'x'), ('other', 'm', 'y')"
        )
        async with elsewhere(order):
            rows = await connection.fetch("SELECT regime, admitted_by FROM control.regimes ORDER BY regime")
            said = await connection.fetchval(
                "SELECT count(*) FROM control.outbox WHERE headers->>'ce_type' = $1", RegimeAdmitted.TYPE
            )
    finally:
        await connection.close()

    assert [tuple(row) for row in rows] == [("x", "demo"), ("y", None)]
    assert said == 1
