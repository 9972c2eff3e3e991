"""The whole pipeline beside pgbench, in one run on one machine.

    python -m benchmarks.pipeline [--cases 3000] [--paced-seconds 20]

Four services, embedded Postgres (fsync on) and broker; the model is `nearest`, Zendesk answers from memory at once and
no fact is looked up, so what is measured is Nightshift: webhook → case → proposal → decision → update sent.

(a) pgbench: 64 clients, one INSERT of 1 KiB a commit, on the same Postgres.
(b) all cases at once: cases a second, from the first webhook to the last update.
(c) 50 cases a second: from sending the webhook to the update's arrival, p50 and p99.
"""

import argparse
import asyncio
import base64
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx

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
MESSAGES = (
    "I forgot my password, how can I get into my account again?",
    "How do I subscribe to your newsletter?",
    "Which payment methods do you accept?",
    "How long does delivery take?",
    "I want to open an account, how does that work?",
)
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


def webhook(number: int) -> tuple[dict[str, str], bytes]:
    """A signed ticket of a customer of its own, opened a moment ago: headers and body."""
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
    headers = {
        "content-type": "application/json",
        "x-zendesk-webhook-signature": signature,
        "x-zendesk-webhook-signature-timestamp": stamp,
        "x-zendesk-webhook-invocation-id": f"I{number}",
    }
    return headers, body


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
                connection = await asyncpg.connect(stack.admin_url)
                await connection.execute(_ACT, ["reply", "tag", "set_priority", "route", "handover"])
                await connection.close()
                async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=CONNECTIONS)) as client:
                    intake = f"{stack.intake_url}/webhooks/support/zendesk"
                    await _at_once(client, intake, zendesk, range(1, 101))  # warms up model, pools and consumer groups
                    rate = await _at_once(client, intake, zendesk, range(1_000, 1_000 + cases))
                    paced = await _paced(
                        client, intake, zendesk, range(100_000, 100_000 + PACE_PER_SECOND * paced_seconds)
                    )
        _print(base, rate, paced)
    finally:
        outside.terminate()
        outside.wait()


async def _at_once(client: httpx.AsyncClient, intake: str, zendesk: str, numbers: range) -> float:
    """Cases a second, from the first webhook to the last update."""
    await client.delete(f"{zendesk}/seen")
    waiting = [webhook(number) for number in numbers]
    started = time.time()

    async def sender() -> None:
        while waiting:
            headers, body = waiting.pop()
            (await client.post(intake, content=body, headers=headers)).raise_for_status()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(sender())
    return len(numbers) / (max((await _drained(client, zendesk, len(numbers))).values()) - started)


async def _paced(client: httpx.AsyncClient, intake: str, zendesk: str, numbers: range) -> tuple[float, float]:
    """p50 and p99 in milliseconds at PACE_PER_SECOND."""
    await client.delete(f"{zendesk}/seen")
    sent: dict[str, float] = {}

    async def send(number: int) -> None:
        headers, body = webhook(number)
        sent[str(number)] = time.time()
        (await client.post(intake, content=body, headers=headers)).raise_for_status()

    started = time.time()
    async with asyncio.TaskGroup() as group:
        for place, number in enumerate(numbers):
            await asyncio.sleep(max(0.0, started + place / PACE_PER_SECOND - time.time()))
            group.create_task(send(number))
    seen = await _drained(client, zendesk, len(numbers))
    took = sorted((seen[ticket] - at) * 1000 for ticket, at in sent.items())
    return took[len(took) // 2], took[len(took) * 99 // 100]


async def _drained(client: httpx.AsyncClient, zendesk: str, count: int) -> dict[str, float]:
    async with asyncio.timeout(DRAIN_SECONDS_MAX):
        while len(seen := (await client.get(f"{zendesk}/seen")).json()) < count:  # noqa: ASYNC110  # it asks another process
            await asyncio.sleep(0.2)
    return dict(seen)


def _print(base: dict[str, float], rate: float, paced: tuple[float, float]) -> None:
    print(f"pgbench, one INSERT of 1 KiB a commit  {base['per_second']:8.0f} /s   p99 {base['p99_ms']:6.1f} ms")
    print(
        f"pipeline, all at once                  {rate:8.0f} cases/s   {rate / base['per_second']:.3f} of pgbench"
        f"   goal {GOAL_CASES_PER_SECOND}, floor {FLOOR_CASES_PER_SECOND}"
    )
    print(
        f"pipeline, {PACE_PER_SECOND} cases/s                  p50 {paced[0]:6.1f} ms   p99 {paced[1]:6.1f} ms"
        f"   goal {GOAL_MS[0]}/{GOAL_MS[1]}, floor {FLOOR_MS[0]}/{FLOOR_MS[1]}"
    )


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description="The whole pipeline beside pgbench")
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--paced-seconds", type=int, default=20)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.cases, arguments.paced_seconds))


if __name__ == "__main__":
    main()
