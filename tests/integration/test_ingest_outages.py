"""When something is down: what senders hear, and that nothing is half done. With the real process where it matters."""

import asyncio
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial

import asyncpg
import orjson

from nightshift.embedded.child import free_port as a_free_port
from services.runtime.migrate import migrate
from tests.conftest import MigratedDatabase, server_folder
from tests.integration.ingest_app import SECRET, ZENDESK, comment, intake, zendesk_headers
from tests.stacks import Postgres, Stack
from tests.waiting import until

ROLE = "nightshift_ingest"


def test_postgres_down_is_503_and_after_it_is_back_everything_works(stack: Stack) -> None:
    with server_folder() as folder, stack.postgres(folder / "pg") as server:
        asyncio.run(migrate(server.url(server.admin, "nightshift")))
        server.kill()
        asyncio.run(_through_two_outages(server))


async def _through_two_outages(server: Postgres) -> None:
    async with intake(server.url(ROLE, "nightshift")) as running:
        at_start = await running.zendesk(comment("e1"), "i1")
        server.restart()
        after = await running.zendesk(comment("e1"), "i1")
        server.kill()
        async with asyncio.TaskGroup() as group:
            down = [group.create_task(running.zendesk(comment(f"d{n}"), f"d{n}")) for n in range(20)]
        server.restart()
        retried = [await running.zendesk(comment(f"d{n}"), f"d{n}") for n in range(20)]

        for refused in (at_start, *(task.result() for task in down)):
            assert (refused.status, refused.json["error"]) == (503, "storage_unavailable")
            assert refused.headers["retry-after"] == "5"
        for accepted in (after, *retried):
            assert (accepted.status, accepted.json["duplicate"]) == (202, False)
        assert await running.count("outbox") == await running.count("deliveries") == 21


async def test_a_database_that_hangs_is_503_and_what_was_in_hand_is_not_half_done(
    migrated: MigratedDatabase,
) -> None:
    async with intake(migrated.url(ROLE), write_seconds_max=0.3) as running:
        holder = await asyncpg.connect(migrated.admin_url)
        await holder.execute("BEGIN; LOCK TABLE ingest.outbox IN ACCESS EXCLUSIVE MODE")
        hung = await running.zendesk(comment("e1"), "i1")
        await holder.execute("ROLLBACK")
        await holder.close()
        again = await running.zendesk(comment("e1"), "i1")

        assert hung.status == 503
        assert (again.status, again.json["duplicate"]) == (202, False)
        assert await running.count("outbox") == 1


async def have_ended(admin: "asyncpg.Connection[asyncpg.Record]", pids: list[int]) -> bool:
    """As Postgres sees it: whether the other end knows of it yet depends on what stands between."""
    return not await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)", pids)


async def test_a_connection_that_was_lost_while_idle_is_replaced_and_nobody_is_refused(
    migrated: MigratedDatabase,
) -> None:
    async with intake(migrated.url(ROLE)) as running:
        assert (await running.zendesk(comment("e1"), "i1")).status == 202
        admin = await asyncpg.connect(migrated.admin_url)
        ended = await admin.fetch(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", ROLE
        )
        await until(partial(have_ended, admin, [row["pid"] for row in ended]))
        await admin.close()

        answer = await running.zendesk(comment("e2"), "i2")

        assert answer.status == 202


@contextmanager
def ingest_process(database_url: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`python -m services.ingest` with a broker that is never there."""
    port = a_free_port()
    environment = {
        **os.environ,
        "NIGHTSHIFT_DATABASE_URL": database_url,
        "NIGHTSHIFT_KAFKA_BOOTSTRAP": f"127.0.0.1:{a_free_port()}",
        "NIGHTSHIFT_HTTP_PORT": str(port),
        "NIGHTSHIFT_PROCESSES": "support",
        "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET": SECRET,
    }
    process = subprocess.Popen([sys.executable, "-m", "services.ingest"], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if orjson.loads(line).get("event") == "ready":
                break
        yield process, port
    finally:
        process.kill()
        process.communicate()


def connected(port: int) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20))


def post(connection: http.client.HTTPConnection, body: bytes, invocation: str) -> tuple[int, dict[str, object]]:
    connection.request("POST", ZENDESK, body, zendesk_headers(body, invocation, at=datetime.now(UTC)))
    answer = connection.getresponse()
    said: dict[str, object] = orjson.loads(answer.read())
    return answer.status, said


def test_the_process_accepts_without_a_broker_refuses_5_mb_and_drains_on_sigterm(migrated: MigratedDatabase) -> None:
    with ingest_process(migrated.url(ROLE)) as (process, port), connected(port) as connection:
        status, said = post(connection, comment("e1"), "i1")
        assert (status, said["duplicate"]) == (202, False)
        status, said = post(connection, b"x" * 5_000_000, "i2")
        assert (status, said["error"]) == (413, "too_large")
        status, said = post(connection, comment("e1"), "i3")  # over the same connection
        assert (status, said["duplicate"]) == (202, True)
        connection.request("GET", "/metrics")
        assert b"nightshift_webhooks_total" in connection.getresponse().read()

        status, said = asyncio.run(_answered_while_stopping(migrated, process, port))

        assert (status, said["duplicate"]) == (202, False)
        assert process.wait(timeout=15) == 0


async def _answered_while_stopping(
    migrated: MigratedDatabase, process: subprocess.Popen[bytes], port: int
) -> tuple[int, dict[str, object]]:
    """A request whose commit is held up until the process was told to stop."""
    holder = await asyncpg.connect(migrated.admin_url)
    watch = await asyncpg.connect(migrated.admin_url)
    await holder.execute("BEGIN; LOCK TABLE ingest.seen IN ACCESS EXCLUSIVE MODE")
    with connected(port) as connection:
        answer = asyncio.get_running_loop().run_in_executor(None, post, connection, comment("held"), "held")
        await until(lambda: watch.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        process.send_signal(signal.SIGTERM)
        await holder.execute("ROLLBACK")
        await holder.close()
        await watch.close()
        return await answer
