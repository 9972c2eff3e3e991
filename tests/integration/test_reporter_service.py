"""The reporter as a program of its own, with a real broker: from an order in SQL to the operator's page."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
from prometheus_client import REGISTRY

from contracts.events.control import ApprovalAnswered, RedriveRequested
from nightshift.orders import order
from services.reporter.domain.views import DeadLetterRow
from services.reporter.handlers.append import Appender, Projector
from services.reporter.handlers.own_dead_letters import own_dead_letters
from services.reporter.outbound import queries
from services.reporter.outbound.event_log import PostgresStore, digest
from services.runtime.kafka_clients import RECORD_BYTES_MAX
from services.runtime.postgres import connect
from tests.conftest import MigratedDatabase
from tests.fakes.events import event
from tests.fakes.other_side import OtherSide
from tests.stacks import Broker
from tests.unit.reporter.night import POLICY, records, tell
from tests.waiting import PATIENCE_SECONDS, until

TOKEN = "a-token-of-some-length"


@asynccontextmanager
async def program(module: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs `python -m module` for the length of the block."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env={**environment, **settings}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_switch_turned_in_sql_is_an_event_on_the_first_page_and_a_rebuild_knows_it(
    migrated: MigratedDatabase, kafka: Broker, free_port: int
) -> None:
    url = migrated.url("nightshift_reporter")
    settings = {
        "NIGHTSHIFT_DATABASE_URL": url,
        **kafka.settings,
        "NIGHTSHIFT_HTTP_PORT": str(free_port),
        "NIGHTSHIFT_CONSOLE_TOKEN": TOKEN,
    }

    async with (
        program("services.reporter", **settings) as reporter,
        connect(migrated.admin_url, schema="reporter", connections_max=1) as database,
        database.connection() as admin,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}") as browser,
    ):

        async def is_ready() -> bool:
            try:
                return (await browser.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await until(is_ready)
        await admin.execute("INSERT INTO control.switches (process, paused, reason) VALUES ('support', true, 'odd')")
        await until(
            lambda: admin.fetchval(
                "SELECT 1 FROM event_log l JOIN control.outbox o USING (event_id) WHERE l.type = 'process.paused.v1'"
            )
        )
        assert (await browser.get("/")).status_code == 401
        assert (await browser.get(f"/?token={TOKEN}")).status_code == 303
        assert "support is paused" in (await browser.get("/")).text

        async with program("services.reporter.rebuild", NIGHTSHIFT_DATABASE_URL=url) as rebuild:
            assert await rebuild.wait() == 0
        assert len(await digest(admin)) == 64

        reporter.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await reporter.wait() == 0


async def test_an_order_that_the_broker_refuses_for_good_is_a_dead_letter_that_a_person_can_redrive(
    migrated: MigratedDatabase, kafka: Broker, free_port: int
) -> None:
    settings = {
        "NIGHTSHIFT_DATABASE_URL": migrated.url("nightshift_reporter"),
        **kafka.settings,
        "NIGHTSHIFT_HTTP_PORT": str(free_port),
        "NIGHTSHIFT_CONSOLE_TOKEN": TOKEN,
    }
    answer = ApprovalAnswered(
        approval_id=UUID(int=1), answer="approved", digest="9" * 64, by="kim", reason="x" * RECORD_BYTES_MAX
    )
    async with program("services.reporter", **settings), AsyncExitStack() as stack:
        operator = await asyncpg.connect(migrated.admin_url)
        stack.push_async_callback(operator.close)
        event_id = await order(operator, answer, process="support", case_id="support:zendesk:1")

        async def letters() -> list[DeadLetterRow]:
            return await queries.dead_letters(operator)

        await until(letters)
        (letter,) = await letters()
        await operator.execute("UPDATE control.outbox SET body = 'small' WHERE event_id = $1", event_id)
        redrive = RedriveRequested(dead_letter_id=letter.dead_letter_id, service="reporter", nonce=UUID(int=2), by="k")
        await order(operator, redrive, process="support", case_id=letter.case_id)
        await until(
            lambda: operator.fetchval(
                "SELECT 1 FROM control.outbox WHERE event_id = $1 AND published_at IS NOT NULL", event_id
            )
        )

        async def none_is_left() -> bool:
            return not await letters()

        await until(none_is_left)

    assert (letter.service, letter.work, letter.code) == ("reporter", "approval.answered.v1", "refused_by_broker")


async def test_an_order_is_counted_once_by_a_reporter_that_logs_it_and_may_have_to_carry_it_out(
    migrated: MigratedDatabase,
) -> None:
    redrive = RedriveRequested(dead_letter_id=UUID(int=1), service="reporter", nonce=UUID(int=2), by="kim")
    ordered = [event("an order", redrive).to_record()]
    labels = {"service": "reporter", "type": RedriveRequested.TYPE}

    async with connect(migrated.url("nightshift_reporter"), schema="reporter", connections_max=1) as database:
        before = REGISTRY.get_sample_value("nightshift_events_handled_total", labels) or 0
        await Appender(PostgresStore(database), Projector({"support": POLICY})).take(ordered)
        await own_dead_letters(database)(ordered)

    assert REGISTRY.get_sample_value("nightshift_events_handled_total", labels) == before + 1


async def test_those_whose_urls_lie_in_a_file_are_told_of_a_dead_letter(
    migrated: MigratedDatabase, kafka: Broker, free_port: int, tmp_path: Path
) -> None:
    url = migrated.url("nightshift_reporter")
    async with OtherSide() as duty, connect(url, schema="reporter", connections_max=1) as database:
        urls = tmp_path / "tell_urls"
        urls.write_text(f"{duty.url.replace('http', 'json', 1)}/x\n")
        settings = {
            "NIGHTSHIFT_DATABASE_URL": url,
            **kafka.settings,
            "NIGHTSHIFT_HTTP_PORT": str(free_port),
            "NIGHTSHIFT_CONSOLE_TOKEN": TOKEN,
            "NIGHTSHIFT_TELL_URLS_FILE": str(urls),
        }
        told = Appender(PostgresStore(database), Projector({"support": POLICY}))
        await told.take(records(tell("1", "dead_letter")))

        async with program("services.reporter", **settings):

            async def is_told() -> bool:
                return bool(duty.asked)

            await until(is_told)

    assert b"1 dead letter, propose of classifier failed" in duty.asked[0].body


async def test_a_token_that_is_easily_guessed_is_refused_at_the_start(
    migrated: MigratedDatabase, kafka: Broker
) -> None:
    settings = {
        "NIGHTSHIFT_DATABASE_URL": migrated.url("nightshift_reporter"),
        **kafka.settings,
        "NIGHTSHIFT_CONSOLE_TOKEN": "short",
    }

    async with program("services.reporter", **settings) as reporter, asyncio.timeout(PATIENCE_SECONDS):
        assert await reporter.wait() != 0
