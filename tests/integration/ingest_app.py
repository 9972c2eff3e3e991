"""Ingest in the test's own process: the ASGI callable over a real database, and senders that sign."""

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from connectors.form import Form
from connectors.github import GitHub
from connectors.none import NoOutside
from connectors.protocol import Receives
from services.ingest.app import ZendeskDoor
from services.ingest.handlers.webhook import OpenDoor, set_aside
from services.ingest.inbound.http import WebhookApp
from services.ingest.outbound.postgres import DeliveryStore
from services.ingest.outbound.writer import Writer, Writers
from services.runtime.health import HealthApp
from services.runtime.postgres import Database, connect
from services.runtime.process import Door

NOW = datetime(2026, 11, 25, 6, 31, 24, tzinfo=UTC)
SECRET = "the secret in use"
NEXT_SECRET = "the secret that comes"
STANDARD_SECRET = "whsec_" + base64.b64encode(b"the secret of a standard sender!").decode()
ZENDESK = "/webhooks/support/zendesk"
TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


def door(
    name: str,
    scheme: str,
    connector: Receives,
    *secrets: str,
    body_bytes_max: int = 512 * 1024,
    tolerance_seconds: int = 3600,
) -> OpenDoor:
    settings = Door.model_validate(
        {
            "connector": "none",
            "scheme": scheme,
            "start_at": NOW,
            "body_bytes_max": body_bytes_max,
            "tolerance_seconds": tolerance_seconds,
        }
    )
    return OpenDoor(process="support", name=name, settings=settings, secrets=secrets, connector=connector)


def outside() -> NoOutside:
    return NoOutside(clock=lambda: NOW)


def usual_doors() -> list[OpenDoor]:
    return [
        door("zendesk", "zendesk", ZendeskDoor("999"), SECRET, NEXT_SECRET),
        door("github", "github", GitHub(), SECRET),
        door("form", "hmac", Form(), SECRET),
        door("standard", "standard-webhooks", Form(), STANDARD_SECRET),
        door("slack", "slack", Form(), SECRET),
        door("stripe", "stripe", Form(), SECRET),
        door("open", "none", outside()),
    ]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    json: Any


@dataclass
class RunningIntake:
    app: WebhookApp
    database: Database
    store: DeliveryStore
    writer: Writers
    committed: list[None] = field(default_factory=list)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] = {}, **how: Any) -> Answer:
        return await call(self.app, path, [body], {"content-type": "application/json", **headers}, **how)

    async def zendesk(self, body: bytes, invocation: str, *, secret: str = SECRET, at: datetime = NOW) -> Answer:
        return await self.post(ZENDESK, body, zendesk_headers(body, invocation, secret=secret, at=at))

    async def rows(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        async with self.database.connection() as connection:
            return await connection.fetch(sql, *arguments)

    async def count(self, table: str) -> int:
        ((count,),) = await self.rows(f"SELECT count(*) FROM {table}")
        return int(count)

    async def wrote_nothing(self) -> bool:
        tables = ("deliveries", "seen", "tallies", "outbox", "dead_letters", "vault.case_keys")
        return not any([await self.count(table) for table in tables])


@asynccontextmanager
async def intake(
    url: str,
    doors: Sequence[OpenDoor] = (),
    *,
    writers: int = 1,
    waiting_max: int = 1000,
    body_seconds_max: float = 10.0,
    hands_max: int = 1000,
    record_bytes_max: int = 980_000,
    write_seconds_max: float = 4.0,
) -> AsyncIterator[RunningIntake]:
    """Ingest without its HTTP server and broker."""
    async with connect(url, schema="ingest") as database:
        store = DeliveryStore(database, record_bytes_max=record_bytes_max)
        committed: list[None] = []
        writer = Writers(
            [
                Writer(
                    store,
                    shard=shard,
                    committed=lambda: committed.append(None),
                    set_aside=set_aside,
                    waiting_max=waiting_max,
                    write_seconds_max=write_seconds_max,
                )
                for shard in range(writers)
            ]
        )
        app = WebhookApp(
            doors or usual_doors(),
            intake=writer,
            clock=lambda: NOW,
            trace=lambda header: header or TRACE,
            other=HealthApp(alive={}, ready={}),
            body_seconds_max=body_seconds_max,
            hands_max=hands_max,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.run())
            yield RunningIntake(app, database, store, writer, committed)
            writer.close()


async def call(
    app: WebhookApp,
    path: str,
    chunks: Sequence[bytes],
    headers: Mapping[str, str],
    *,
    method: str = "POST",
    stalls: bool = False,
    leaves: bool = False,
) -> Answer:
    """One request as a server hands it to the app; `stalls` never sends the end of the body, `leaves` hangs up."""
    waiting = list(chunks)
    sent: list[Mapping[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        if waiting:
            chunk = waiting.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting) or stalls or leaves}
        if leaves:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError("it waits for ever")

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
    if not sent:
        return Answer(0, {}, None)
    start, body = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], answered, orjson.loads(body["body"]))


def zendesk_headers(body: bytes, invocation: str, *, secret: str = SECRET, at: datetime = NOW) -> dict[str, str]:
    stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    signature = base64.b64encode(hmac.digest(secret.encode(), stamp.encode() + body, "sha256")).decode()
    return {
        "content-type": "application/json",
        "x-zendesk-webhook-signature": signature,
        "x-zendesk-webhook-signature-timestamp": stamp,
        "x-zendesk-webhook-invocation-id": invocation,
    }


def hmac_headers(body: bytes, **others: str) -> dict[str, str]:
    return {"x-signature": hmac.digest(SECRET.encode(), body, "sha256").hex(), **others}


def comment(event_id: str, ticket: str = "42", text: str = "where is my parcel", **detail: object) -> bytes:
    """A Zendesk event: a customer commented."""
    return orjson.dumps(
        {
            "type": "zen:event-type:ticket.comment_added",
            "id": event_id,
            "time": "2026-11-25T06:31:20Z",
            "subject": f"zen:ticket:{ticket}",
            "detail": {
                "id": ticket,
                "actor_id": "7",
                "requester_id": "7",
                "subject": "A quiet subject",
                "created_at": "2026-11-25T06:00:00Z",
                "updated_at": "2026-11-25T06:31:20Z",
                **detail,
            },
            "event": {"comment": {"id": "5001", "body": text, "is_public": True, "author": {"id": "7"}}},
        }
    )


def change(identity: str, object_id: str = "42", **fields: object) -> bytes:
    """A body of the door `open`, whose connector takes changes as they are."""
    return orjson.dumps(
        {
            "object_id": object_id,
            "kind": "comment_added",
            "identity": identity,
            "version": "2026-11-25T06:31:20.000000Z",
            "author": "customer",
            "occurred_at": "2026-11-25T06:31:20Z",
            **fields,
        }
    )
