"""The whole pipeline beside pgbench, in one run on one machine.

    python -m benchmarks.pipeline [--cases 3000] [--paced-seconds 20]

Four services, embedded Postgres (fsync on) and broker; the model is `nearest`, Zendesk answers from memory at once and
no fact is looked up, so what is measured is Nightshift: webhook → case → proposal → decision → update sent.

(a) pgbench: 64 clients, one INSERT of 1 KiB a commit, on the same Postgres.
(b) 50 cases a second: from sending the webhook to the update's arrival, p50 and p99. It comes first: what the embedded
    broker holds makes its fetches dearer, as no other broker's.
(c) all cases at once, when all of (b) was read back and is in the log: cases a second, from the first webhook to the
    last update.
"""

import argparse
import asyncio
import base64
import contextlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import psutil

from benchmarks.answering_zendesk import OUR_USER
from benchmarks.intake import baseline
from nightshift.embedded.child import free_port
from nightshift.stack import Stack

SECRET = "a secret of the benchmark"  # noqa: S105  # signs and verifies within this file
PACE_PER_SECOND = 50
CONNECTIONS = 32
DRAIN_SECONDS_MAX = 240
GOAL_CASES_PER_SECOND, FLOOR_CASES_PER_SECOND = 400, 200
GOAL_MS, FLOOR_MS = (40, 120), (80, 240)
"""p50 and p99 at 50 cases a second."""
PARTS = ("postgres", "ingest", "classifier", "actor", "reporter", "broker", "answering_zendesk")
MESSAGES = (
    "I forgot my password, how can I get into my account again?",
    "How do I subscribe to your newsletter?",
    "Which payment methods do you accept?",
    "How long does delivery take?",
    "I want to open an account, how does that work?",
)
_OWED = """
SELECT EXISTS (SELECT FROM (SELECT event_id FROM ingest.outbox UNION ALL SELECT event_id FROM classifier.outbox
                            UNION ALL SELECT event_id FROM actor.outbox) said
               WHERE NOT EXISTS (SELECT FROM reporter.event_log_known k WHERE k.event_id = said.event_id))
       OR EXISTS (SELECT FROM actor.looks)
       OR EXISTS (SELECT FROM actor.effects WHERE state IN ('planned', 'in_flight', 'unknown'))
"""
OVERRIDES = """
support.limits.settle_seconds = 0
support.destinations.zendesk = {requests_per_second = 100000, concurrency = 16}
support.sources.shop = {connector = "none", url_setting = "", queries = {customer = "[]", orders = "[]",
  order_of_number = "[]", invoices = "[]", invoices_of_number = "[]", tickets = "[]"}}
""".replace(",\n ", ",")
_ACT = """
INSERT INTO control.modes (process, action, mode) SELECT 'support', unnest($1::text[]), 'act'
ON CONFLICT (process, action) DO UPDATE SET mode = 'act'
"""


def webhook(number: int) -> bytes:
    """A whole HTTP request: a signed ticket of a customer of its own, opened a moment ago."""
    now = datetime.now(UTC)
    opened = (now - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ticket: dict[str, object] = {
        "id": str(number),
        "actor_id": str(10_000 + number),
        "requester_id": str(10_000 + number),
        "subject": "A question",
        "description": MESSAGES[number % len(MESSAGES)],
        "status": "NEW",
        "priority": None,
        "brand_id": "1",
        "tags": [],
        "via": {"channel": "web"},
        "is_public": True,
        "created_at": opened,
        "updated_at": opened,
    }
    event = {
        "type": "zen:event-type:ticket.created",
        "id": f"B{number}",
        "account_id": 1,
        "time": opened,
        "zendesk_event_version": "2022-11-06",
        "subject": f"zen:ticket:{number}",
        "detail": ticket,
        "event": {"meta": {"sequence": {"id": f"S{number}", "position": 1, "total": 1}}},
    }
    body = json.dumps(event).encode()
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    signature = base64.b64encode(hmac.digest(SECRET.encode(), stamp.encode() + body, "sha256")).decode()
    head = (
        "POST /webhooks/support/zendesk HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-zendesk-webhook-signature: {signature}\r\n"
        f"x-zendesk-webhook-signature-timestamp: {stamp}\r\nx-zendesk-webhook-invocation-id: I{number}\r\n\r\n"
    )
    return head.encode() + body


async def measure(cases: int, paced_seconds: int) -> None:
    """Run (a), (b) and (c) and print them."""
    port = free_port()
    zendesk = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "NIGHTSHIFT_ZENDESK_URL": zendesk,
        "NIGHTSHIFT_ZENDESK_EMAIL": "nightshift@example.com",
        "NIGHTSHIFT_ZENDESK_TOKEN": "token",
        "NIGHTSHIFT_ZENDESK_USER_ID": OUR_USER,
        "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET": SECRET,
        "NIGHTSHIFT_PROCESS_OVERRIDES": OVERRIDES,
        "NIGHTSHIFT_LOG_LEVEL": "WARNING",
    }
    outside = subprocess.Popen([sys.executable, "-m", "benchmarks.answering_zendesk", str(port)])  # noqa: S603, ASYNC220  # ours
    try:
        with tempfile.TemporaryDirectory(prefix="nightshift-") as folder:
            Path(folder).chmod(0o711)
            async with Stack(Path(folder) / "state", environment=environment) as stack:
                assert stack.postgres is not None, "the benchmark brings its own"
                base = await asyncio.to_thread(baseline, stack.postgres)
                async with (
                    asyncpg.create_pool(stack.admin_url, min_size=1, max_size=1) as database,
                    httpx.AsyncClient(base_url=zendesk, timeout=30) as books,
                    intake_at(stack.intake_url) as intake,
                ):
                    await database.execute(_ACT, ["reply", "tag", "set_priority", "route", "handover"])
                    await _at_once(intake, books, range(1, 101))  # warms up model, pools and consumer groups
                    await _at_rest(database)
                    begun = _cpu_seconds()
                    paced_cases = PACE_PER_SECOND * paced_seconds
                    paced = await _paced(intake, books, range(100_000, 100_000 + paced_cases))
                    paced_cpu = _cpu(begun, _cpu_seconds(), paced_cases)
                    await _at_rest(database)
                    begun = _cpu_seconds()
                    rate = await _at_once(intake, books, range(1_000, 1_000 + cases))
                    at_once_cpu = _cpu(begun, _cpu_seconds(), cases)
        _print(base, paced, rate, cpu=(paced_cpu, at_once_cpu))
    finally:
        outside.terminate()
        outside.wait()


class Intake:
    """Keep-alive connections to the door; the benchmark shares the cores with what it measures, so it is frugal."""

    def __init__(self) -> None:
        self._idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def connect(self, url: str) -> None:
        address = urlsplit(url)
        self._idle.put_nowait(await asyncio.open_connection(address.hostname, address.port))

    async def close(self) -> None:
        while not self._idle.empty():
            self._idle.get_nowait()[1].close()

    async def post(self, request: bytes) -> None:
        """Send one webhook over the next free connection; it must be accepted."""
        reader, writer = await self._idle.get()
        writer.write(request)
        answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 202"), answer.decode()
        self._idle.put_nowait((reader, writer))


@asynccontextmanager
async def intake_at(url: str) -> AsyncIterator[Intake]:
    """CONNECTIONS to the door for the length of the block."""
    intake = Intake()
    for _ in range(CONNECTIONS):
        await intake.connect(url)
    try:
        yield intake
    finally:
        await intake.close()


async def _at_once(intake: Intake, books: httpx.AsyncClient, numbers: range) -> float:
    """Cases a second, from the first webhook to the last update."""
    await books.delete("/seen")
    waiting = [webhook(number) for number in numbers]
    started = time.time()

    async def sender() -> None:
        while waiting:
            await intake.post(waiting.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(sender())
    return len(numbers) / (max((await _drained(books, len(numbers))).values()) - started)


async def _paced(intake: Intake, books: httpx.AsyncClient, numbers: range) -> tuple[float, float]:
    """p50 and p99 in milliseconds at PACE_PER_SECOND."""
    await books.delete("/seen")
    sent: dict[str, float] = {}

    async def send(number: int) -> None:
        request = webhook(number)
        sent[str(number)] = time.time()
        await intake.post(request)

    started = time.time()
    async with asyncio.TaskGroup() as group:
        for place, number in enumerate(numbers):
            await asyncio.sleep(max(0.0, started + place / PACE_PER_SECOND - time.time()))
            group.create_task(send(number))
    seen = await _drained(books, len(numbers))
    took = sorted((seen[ticket] - at) * 1000 for ticket, at in sent.items())
    return took[len(took) // 2], took[len(took) * 99 // 100]


async def _drained(books: httpx.AsyncClient, count: int) -> dict[str, float]:
    """When each ticket's first update came."""
    async with asyncio.timeout(DRAIN_SECONDS_MAX):
        while int((await books.get("/count")).text) < count:  # noqa: ASYNC110  # it asks another process
            await asyncio.sleep(0.2)
    return dict((await books.get("/seen")).json())


async def _at_rest(database: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Wait until all that was done is read back and in the log."""
    async with asyncio.timeout(DRAIN_SECONDS_MAX):
        while await database.fetchval(_OWED):  # noqa: ASYNC110  # it asks another process
            await asyncio.sleep(0.5)


def _cpu_seconds() -> dict[str, float]:
    """CPU so far, by process; unlike a rate it hardly depends on what else runs on the machine."""
    spent: dict[str, float] = {"this benchmark": sum(psutil.Process().cpu_times()[:2])}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            name = next((part for part in PARTS if part in command), "other")
            spent[name] = spent.get(name, 0.0) + sum(process.cpu_times()[:2])
    return spent


def _cpu(before: dict[str, float], after: dict[str, float], cases: int) -> str:
    spent = {name: (seconds - before.get(name, 0.0)) * 1000 / cases for name, seconds in after.items()}
    parts = ", ".join(f"{name} {ms:.1f}" for name, ms in sorted(spent.items(), key=lambda part: -part[1]))
    return f"  CPU ms a case: {sum(spent.values()):.1f}: {parts}"


def _print(base: dict[str, float], paced: tuple[float, float], rate: float, *, cpu: tuple[str, str]) -> None:
    print(f"pgbench, one INSERT of 1 KiB a commit  {base['per_second']:8.0f} /s   p99 {base['p99_ms']:6.1f} ms")
    print(
        f"pipeline, {PACE_PER_SECOND} cases/s                  p50 {paced[0]:6.1f} ms   p99 {paced[1]:6.1f} ms"
        f"   goal {GOAL_MS[0]}/{GOAL_MS[1]}, floor {FLOOR_MS[0]}/{FLOOR_MS[1]}"
    )
    print(cpu[0])
    print(
        f"pipeline, all at once                  {rate:8.0f} cases/s   {rate / base['per_second']:.3f} of pgbench"
        f"   goal {GOAL_CASES_PER_SECOND}, floor {FLOOR_CASES_PER_SECOND}"
    )
    print(cpu[1])


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description="The whole pipeline beside pgbench")
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--paced-seconds", type=int, default=20)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.cases, arguments.paced_seconds))


if __name__ == "__main__":
    main()
