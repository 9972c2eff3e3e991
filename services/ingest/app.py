"""The wiring: which doors are open, what serves them, and what their intake is compared with."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import randbytes

import httpx
import structlog

from connectors import http_transport
from connectors.form import Form
from connectors.github import GitHub
from connectors.none import NoOutside
from connectors.protocol import Page, PlainChange, Receives
from connectors.zendesk import webhooks as zendesk
from contracts import topics
from contracts.failures import LaterError, PermanentError
from services.ingest.config import Settings, secrets_of
from services.ingest.handlers.reconcile import Reconciling
from services.ingest.handlers.redrive_requested import read_again
from services.ingest.handlers.webhook import OpenDoor, set_aside
from services.ingest.inbound.http import WebhookApp, last_webhook
from services.ingest.inbound.quick import QuickProtocol
from services.ingest.outbound.clock import PostgresClock
from services.ingest.outbound.postgres import SERVICE, WORK, DeliveryStore
from services.ingest.outbound.reconciled import ReconciledHours
from services.ingest.outbound.writer import Writer, Writers
from services.ingest.ports import Outside, Trace
from services.runtime import outside, telemetry
from services.runtime.config import MissingSettingError
from services.runtime.figures import Figures
from services.runtime.health import HealthApp
from services.runtime.inbox import Inbox
from services.runtime.kafka import Link
from services.runtime.kafka_clients import RECORD_BYTES_MAX, Producer
from services.runtime.lag import Lag
from services.runtime.months import making_months
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Database, connect
from services.runtime.process import ProcessInvalidError, load_all
from services.runtime.relay import Relay
from services.runtime.service import Part, serve
from services.runtime.stop import Stop, Wake

HEADERS_BYTES_MAX = 20_000
"""What an event's headers and key may take of the broker's limit."""
PRUNE_SECONDS = 600.0
PRUNE_ROWS_MAX = 5000
LIST_TIMEOUT_SECONDS = 30.0
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ZendeskDoor:
    """Zendesk's webhooks without its API, which nothing that a webhook waits for calls."""

    our_user_id: str

    def delivery_id(self, headers: Mapping[str, str], body: bytes) -> str:
        return zendesk.delivery_id(headers, body)

    def receive(self, payload: object, body: bytes, received_at: datetime) -> Sequence[PlainChange]:
        return zendesk.changes_in(payload, body, received_at, our_user_id=self.our_user_id)


class NotConnected:
    """An account that nobody named: its list cannot be had, and says so."""

    def __init__(self, missing: MissingSettingError) -> None:
        self._missing = missing

    async def list_updates(self, since: datetime, cursor: str | None) -> Page:  # noqa: ARG002  # Lists
        raise LaterError("not_connected", str(self._missing), seconds=0.0)

    async def read(self, object_id: str) -> Sequence[PlainChange]:  # noqa: ARG002  # Reads
        raise PermanentError("not_connected", str(self._missing))


def utc_now() -> datetime:
    """Now, by the machine's own clock."""
    return datetime.fromtimestamp(time.time(), UTC)


def connector_of(kind: str, settings: Settings) -> Receives:
    """A door's connector. Raises ProcessInvalidError for one that takes no webhooks."""
    match kind:
        case "zendesk":
            return ZendeskDoor(settings.zendesk_user_id or "not set")
        case "github":
            return GitHub()
        case "form":
            return Form()
        case "none":
            return NoOutside(clock=utc_now)
        case _:
            raise ProcessInvalidError(f"connector {kind!r} takes no webhooks: use zendesk, github, form or none")


def outside_of(door: OpenDoor, client: httpx.AsyncClient) -> Outside:
    """What a door's intake is compared with. Raises ProcessInvalidError for a connector without a list."""
    if door.settings.connector != "zendesk":
        raise ProcessInvalidError(f"connector {door.settings.connector!r} has no list: leave out the door's `compared`")
    try:
        return outside.zendesk(client, timeout_seconds=LIST_TIMEOUT_SECONDS)
    except MissingSettingError as error:
        log.warning("the intake cannot be compared with the provider's list", door=door.path, mend=str(error))
        return NotConnected(error)


def open_doors(settings: Settings) -> list[OpenDoor]:
    """Every door of every process. Raises ProcessInvalidError, MissingSettingError."""
    return [
        OpenDoor(
            process=process.name,
            name=name,
            settings=door,
            secrets=secrets_of(door),
            connector=connector_of(door.connector, settings),
        )
        for process in load_all(settings).values()
        for name, door in process.settings.doors.items()
    ]


def tracing(*, exported: bool) -> Trace:
    """The sender's traceparent where it is valid, else a new one: of a span, where spans go anywhere."""

    def trace(header: str | None) -> str:
        valid = header if header is not None and _TRACEPARENT.fullmatch(header) else None
        if exported:
            with telemetry.span("webhook", valid) as traceparent:
                return traceparent or valid or _fresh()
        return valid or _fresh()

    return trace


def _fresh() -> str:
    chance = randbytes(24).hex()  # noqa: S311  # it tells traces apart and guards nothing
    return f"00-{chance[:32]}-{chance[32:]}-01"


def pruning(store: DeliveryStore, *, seen_days: int) -> Part:
    """Forgets what was seen long ago, a little at a time."""

    async def prune(stop: Stop) -> None:
        while not stop.is_set():
            more = False
            try:
                more = await store.prune(seen_days=seen_days, rows_max=PRUNE_ROWS_MAX) == PRUNE_ROWS_MAX
            except UNAVAILABLE as error:
                log.warning("pruning waits", error=type(error).__name__)
            await stop.wait(1.0 if more else PRUNE_SECONDS)

    return prune


def remembering_the_last(store: DeliveryStore) -> Part:
    """Once, when Postgres is there: when the last delivery came before this start."""

    async def remember(stop: Stop) -> None:
        while not stop.is_set():
            try:
                if (last := await store.last()) is not None:
                    last_webhook.labels(last.source).set(last.at.timestamp())
                break
            except UNAVAILABLE as error:
                log.warning("the last delivery is not known yet", error=type(error).__name__)
                await stop.wait(1.0)
        await stop.wait()

    return remember


def reconciling(work: Reconciling, *, away_seconds: float = 1.0) -> Part:
    """Compares the intake of a door again and again; `away_seconds` after a look without Postgres."""

    async def reconcile(stop: Stop) -> None:
        while not stop.is_set():
            seconds = away_seconds
            try:
                seconds = await work.once(stop)
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("the comparison of the intake waits", error=type(error).__name__)
            await stop.wait(seconds)

    return reconcile


async def run() -> None:
    """Serve until SIGTERM; then everything that was taken is committed and answered."""
    settings = Settings()
    telemetry.configure(SERVICE, level=settings.log_level, otlp_url=settings.otlp_url)
    doors = open_doors(settings)
    async with (
        connect(
            settings.database_url, schema=SERVICE, connections_max=settings.writers + 6, plan_once=True
        ) as database,
        http_transport.client() as client,
    ):
        clock = PostgresClock(database)
        await clock.look()
        wake, producer = Wake(), Producer()
        relay = Relay(database, SERVICE, producer, wake)
        store = DeliveryStore(database, record_bytes_max=RECORD_BYTES_MAX - HEADERS_BYTES_MAX)
        writers = Writers(
            [
                Writer(store, shard=shard, committed=wake.set, set_aside=set_aside, waiting_max=settings.waiting_max)
                for shard in range(settings.writers)
            ]
        )
        inbox = Inbox(database, SERVICE, {}, {WORK: read_again(doors, store)})
        link = Link(
            settings=settings,
            service=SERVICE,
            database=database,
            subscriptions=[topics.CONTROL],
            take=inbox.take,
            producer=producer,
            relays=[relay],
        )
        trace = tracing(exported=settings.otlp_url is not None)
        comparisons = [
            _comparison(door, settings, database, client, writers, clock, trace)
            for door in doors
            if door.settings.compared
        ]
        app = WebhookApp(
            doors,
            intake=writers,
            clock=clock,
            trace=trace,
            # Ready always: it answers webhooks, and rightly, whoever else is down.
            other=HealthApp(alive={"intake": writers.stalled}, ready={}),
        )
        async with asyncio.TaskGroup() as group:  # outlives the server: what was taken is written
            group.create_task(writers.run())
            await serve(
                app=app,
                host=settings.http_host,
                port=settings.http_port,
                parts=[
                    clock.run,
                    relay.run,
                    link.run,
                    Figures(database, SERVICE, outboxes=[SERVICE]).run,
                    Lag(settings, SERVICE, database, [topics.CONTROL]).run,
                    remembering_the_last(store),
                    pruning(store, seen_days=settings.seen_days),
                    making_months(database, ["ingest.outbox", "ingest.deliveries"]),
                    *(reconciling(work) for work in comparisons),
                ],
                grace_seconds=settings.grace_seconds,
                http=QuickProtocol,
            )
            writers.close()


def _comparison(
    door: OpenDoor,
    settings: Settings,
    database: Database,
    client: httpx.AsyncClient,
    writers: Writers,
    clock: PostgresClock,
    trace: Trace,
) -> Reconciling:
    return Reconciling(
        door=door,
        outside=outside_of(door, client),
        hours=ReconciledHours(database),
        intake=writers,
        clock=clock,
        trace=trace,
        every=timedelta(seconds=settings.reconcile_seconds),
        grace=timedelta(seconds=settings.reconcile_grace_seconds),
        list_pause_seconds=60 / settings.list_calls_per_minute,
    )
