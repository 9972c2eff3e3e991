"""Ingest beside a simulated Zendesk that sends it webhooks and is listed: hours of both in seconds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from connectors.protocol import Page, PlainChange
from contracts.envelope import Event, decode
from contracts.events.cases import CaseChanged, IntakeReconciled
from nightshift.world.app import build
from nightshift.world.model import Ticket
from nightshift.world.world import World
from processes.support import case as cases
from processes.support.ticket import Case
from services.ingest.app import ZendeskDoor
from services.ingest.handlers.reconcile import Reconciling
from services.ingest.handlers.webhook import OpenDoor, set_aside
from services.ingest.inbound.http import WebhookApp
from services.ingest.outbound.postgres import DeliveryStore
from services.ingest.outbound.reconciled import ReconciledHours
from services.ingest.outbound.writer import Writer, Writers
from services.ingest.ports import Outside
from services.runtime.health import HealthApp
from services.runtime.postgres import Connection, Database
from services.runtime.process import SHIPPED, load
from services.runtime.stop import Stop
from tests.conftest import MigratedDatabase
from tests.fakes.world import SECRET, connector, world as new_world
from tests.virtual import Admin, VirtualTime, admin, live

BEGINS_AT = datetime(2026, 11, 25, 6, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
EVERY_SECONDS, GRACE_SECONDS = 300.0, 120.0
SETTLED_SECONDS = GRACE_SECONDS + 4 * EVERY_SECONDS + 100.0
"""After its end an hour is settled, where nothing is in the way."""
SETTLED = BEGINS_AT + HOUR + timedelta(seconds=SETTLED_SECONDS)
TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


class _Store(DeliveryStore):
    """Its connections come where they learn the time."""

    @asynccontextmanager
    async def _connection(self, shard: int) -> AsyncIterator[Connection]:
        del shard
        async with self._database.connection() as connection:
            yield connection


@dataclass
class Listened:
    """The world's list and tickets, with a note of each call."""

    outside: Outside
    time: VirtualTime
    lists: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)

    async def list_updates(self, since: datetime, cursor: str | None) -> Page:
        self.lists.append(self.time.seconds)
        return await self.outside.list_updates(since, cursor)

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        self.reads.append(self.time.seconds)
        return await self.outside.read(object_id)


@dataclass
class Compared:
    """All of it, running."""

    time: VirtualTime
    world: World
    database: Database
    operator: Admin
    outside: Listened
    work: Reconciling

    async def runs(self, stop: Stop, work: Reconciling | None = None) -> None:
        """The part of the service."""
        while not stop.is_set():
            await stop.wait(await (work or self.work).once(stop))

    async def until(self, moment: datetime) -> None:
        await asyncio.sleep((moment - self.time.now()).total_seconds())

    async def delivered(self) -> None:
        """Every webhook was answered."""
        while not self.world.sender.idle:
            await asyncio.sleep(0.01)

    def another(self, **changes: Any) -> Reconciling:
        """The same work in another process."""
        return replace(self.work, hours=ReconciledHours(self.database), **changes)

    async def events(self) -> list[Event[Any]]:
        rows = await self.operator.fetch("SELECT headers, body FROM ingest.outbox ORDER BY id")
        return [decode(row["headers"], row["body"]) for row in rows]

    async def late(self) -> list[CaseChanged]:
        return [e.data for e in await self.events() if isinstance(e.data, CaseChanged) and e.data.late]

    async def words(self) -> dict[str, list[str]]:
        """What was said of each hour, in order, with `!` where it is final."""
        said: dict[str, list[str]] = {}
        for event in await self.events():
            if isinstance(event.data, IntakeReconciled):
                told = event.data
                said.setdefault(f"{told.hour:%H}", []).append(f"{told.state}{'!' if told.settled else ''}")
        return said

    async def last_word(self, hour: str) -> IntakeReconciled:
        told = [e.data for e in await self.events() if isinstance(e.data, IntakeReconciled)]
        return max((one for one in told if f"{one.hour:%H}" == hour), key=lambda one: one.revision)


@asynccontextmanager
async def compared(migrated: MigratedDatabase, time: VirtualTime) -> AsyncIterator[Compared]:
    """Ingest and world; the comparison is started by the test."""
    settings = load("support", SHIPPED).settings.doors["zendesk"]
    door = OpenDoor(
        process="support", name="zendesk", settings=settings, secrets=[SECRET], connector=ZendeskDoor("900001")
    )
    async with (
        admin(migrated, time, "ingest") as operator,
        time.database(migrated.url("nightshift_ingest"), "ingest") as database,
    ):
        store = _Store(database, record_bytes_max=980_000)
        writer = Writer(store, shard=0, committed=lambda: None, set_aside=set_aside, waiting_max=1000)
        writers = Writers([writer])
        app = WebhookApp(
            [door],
            intake=writers,
            clock=time.now,
            trace=lambda header: header or TRACE,
            other=HealthApp(alive={}, ready={}),
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as sends:  # type: ignore[arg-type]  # bare ASGI  # type: ignore[arg-type]  # httpx types the scope as a dict
            world = new_world(time.now, sends, webhook_url="http://intake/webhooks/support/zendesk")
            async with (
                httpx.AsyncClient(transport=httpx.ASGITransport(build(world))) as reads,
                asyncio.TaskGroup() as group,
            ):
                outside = Listened(connector(reads), time)
                work = Reconciling(
                    door=door,
                    outside=outside,
                    hours=ReconciledHours(database),
                    intake=writers,
                    clock=time.now,
                    trace=lambda header: header or TRACE,
                    every=timedelta(seconds=EVERY_SECONDS),
                    grace=timedelta(seconds=GRACE_SECONDS),
                    list_pause_seconds=8.0,
                )
                writing = group.create_task(writers.run())
                sending = group.create_task(world.sender.run())
                yield Compared(time, world, database, operator, outside, work)
                sending.cancel()
                writers.close()
                await writing


def play(migrated: MigratedDatabase, scenario: Callable[[Compared], Awaitable[None]]) -> None:
    """With the comparison running beside it."""

    async def with_comparison(intake: Compared) -> None:
        stop = Stop()
        async with asyncio.TaskGroup() as group:
            group.create_task(intake.runs(stop))
            await scenario(intake)
            stop.set()

    play_alone(migrated, with_comparison)


def play_alone(migrated: MigratedDatabase, scenario: Callable[[Compared], Awaitable[None]]) -> None:
    async def run(time: VirtualTime) -> None:
        async with compared(migrated, time) as intake:
            await scenario(intake)

    live(run, begins_at=BEGINS_AT)


def at(minutes: float) -> datetime:
    return BEGINS_AT + timedelta(minutes=minutes)


async def begun(intake: Compared, count: int = 1) -> list[Ticket]:
    """Tickets whose webhooks came, and a comparison that knows of the door."""
    ann = intake.world.zendesk.add_customer("Ann", "ann@example.com")
    tickets = [intake.world.zendesk.create(ann.id, "Order", "Where is it?") for _ in range(count)]
    await intake.delivered()
    await asyncio.sleep(20)
    return tickets


def says(intake: Compared, ticket: Ticket, text: str, *, dropped: bool = False) -> None:
    """The customer writes; `dropped`: none of the update's webhooks is ever sent."""
    intake.world.sender.mischief.dropped_percent = 100 if dropped else 0
    intake.world.zendesk.comment(ticket.id, ticket.requester_id, text)
    intake.world.sender.mischief.dropped_percent = 0


def folded(changes: Sequence[CaseChanged]) -> Case:
    case = None
    for change in changes:
        case = cases.fold(case, change)
    assert case is not None
    return case


async def case_of(intake: Compared, ticket: Ticket) -> Case:
    events = [event.data for event in await intake.events() if isinstance(event.data, CaseChanged)]
    return folded([change for change in events if change.object_id == str(ticket.id)])
