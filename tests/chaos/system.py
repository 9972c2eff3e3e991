"""The whole system of a scenario: servers of the stack under test, services in any number, and the outside world.

The world runs in this process: a scenario sets its clock, stands before its API and before intake, and so can strike at
the very moment between a change outside and the answer that tells of it.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType

import asyncpg
import httpx
import orjson
import psutil
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.http_transport import AiohttpTransport
from connectors.zendesk.audits import EFFECT_KEY
from nightshift.demo import ours
from nightshift.demo.ours import Before
from nightshift.demo.outside import EMAIL, SLACK_TOKEN, Books
from nightshift.demo.play import OVERRIDES, PROCESS, prepare
from nightshift.embedded.child import free_port
from nightshift.rebuild import rebuild_projections
from nightshift.stack import prepare_database
from nightshift.supervisor import GRACE_SECONDS, PROJECT, Service, Supervisor, supervise
from nightshift.world.app import build
from nightshift.world.deliveries import Mischief
from nightshift.world.model import OUR_USER_ID
from nightshift.world.shop import READER
from nightshift.world.world import World
from services.runtime.migrate import SERVICES
from services.runtime.postgres import UNAVAILABLE, Connection
from services.runtime.process import SHIPPED, load
from tests.chaos import invariants
from tests.chaos.evidence import Evidence, Write, read_log, read_spent
from tests.chaos.figures import Figures
from tests.chaos.proxy import Proxy, listening, through, to_broker, to_postgres
from tests.fakes.world import served
from tests.stacks import Broker, Embedded, Postgres, Stack

DATABASE = "nightshift"
TOKEN, SECRET, CONSOLE_TOKEN = "token-outside", "secret-of-webhooks", "a-token-of-some-length"
NIGHT_TICKETS_MAX = 1400
"""More are played as several nights, one after the other."""
QUIET_SECONDS = 1.5
STILL_SECONDS = 30.0
SETTLE_SECONDS_MAX = 900.0
LOOK_SECONDS = 0.1
RECOVERY_SECONDS_MAX = 120.0
_LOOKING_SHARE = 4
"""To ask what waits is never more than a fourth of the time."""


async def _prepared(admin_url: str) -> None:
    await prepare_database(admin_url, (PROCESS,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the system of a scenario is made."""

    seed: int = 1
    replicas: int = 1
    """So many of each service."""
    proxied: bool = False
    """Whether something stands between the services and their servers, to slow them and to strike."""
    mischief: Mischief = field(
        default_factory=lambda: Mischief(copies_max=3, shuffled_percent=100, forged_percent=2, stale_percent=2)
    )
    """What happens to webhooks on their way."""
    overrides: str = ""
    """Lines of TOML, beside those of a demo."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of every service, beside those that it needs."""
    settle_seconds_max: float = 120.0
    folder: Path = PROJECT
    """Where the code of the services lies."""
    migrate: Callable[[str], Awaitable[None]] = _prepared
    """Makes the tables of that code in a database, and turns the process on."""


class Clock:
    """The outside's clock."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Door(httpx.AsyncBaseTransport):
    """Stands before intake, as a load balancer does, and keeps a book of what was answered."""

    def __init__(self) -> None:
        self.in_service: Sequence[str] = ()
        self.accepted: Counter[str] = Counter()
        """Events that were answered 202, by the id that the sender gave them."""
        self.answers: Counter[int | None] = Counter()
        """By status; none where nobody answered."""
        self._onward = AiohttpTransport()
        self._taken = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        intake = httpx.URL(self.in_service[self._taken % len(self.in_service)])
        self._taken += 1
        request.url = request.url.copy_with(host=intake.host, port=intake.port)
        try:
            answer = await self._onward.handle_async_request(request)
        except httpx.TransportError:
            self.answers[None] += 1
            raise
        self.answers[answer.status_code] += 1
        if answer.status_code == httpx.codes.ACCEPTED:
            self.accepted[orjson.loads(request.content)["id"]] += 1
        return answer

    async def aclose(self) -> None:
        await self._onward.aclose()


class Gate:
    """Stands before the outside's API: whoever watches is told of each change once it is applied, before its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.applied: Callable[[int], Awaitable[None]] | None = None
        """Called with the port of the caller."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.applied is None or scope["type"] != "http" or scope["method"] != "PUT":
            await self._app(scope, receive, send)
            return
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        if answer and answer[0]["status"] == httpx.codes.OK and self.applied is not None:
            await self.applied(scope["client"][1])
        for message in answer:
            await send(message)


@dataclass(kw_only=True)
class System:
    """The running system. Made by `run`."""

    plan: Plan
    stack: Stack
    postgres: Postgres
    broker: Broker
    broker_proxy: Proxy
    """Between the services and the broker, where the plan says so."""
    postgres_proxy: Proxy
    world: World
    world_url: str
    clock: Clock
    door: Door
    gate: Gate
    supervisor: Supervisor
    client: httpx.AsyncClient
    figures: Figures
    group: asyncio.TaskGroup
    services: Callable[..., list[Service]]
    """More of them on ports of their own: of the code in another `folder`, with further `settings`."""
    older: frozenset[int] = frozenset()
    """Tickets from before the door's start."""
    _recovering: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def admin_url(self) -> str:
        """The database, as the role that operates."""
        return self.postgres.url(self.postgres.admin, DATABASE)

    @property
    def names(self) -> list[str]:
        """Every service that runs: `actor-1`, `actor-2` …"""
        return list(self.supervisor.services)

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Connection]:
        """A connection as the operator."""
        connection = await asyncpg.connect(self.admin_url, timeout=10)
        try:
            yield connection
        finally:
            await connection.close()

    async def play(self, tickets: int, seconds: float) -> None:
        """Play nights until so many tickets were written, over so long."""
        nights = -(-tickets // NIGHT_TICKETS_MAX)
        for night in range(nights):
            share = tickets // nights + (night < tickets % nights)
            assert self.world.start_night(tickets=share, seconds=seconds / nights)
            while self.world.progress["state"] == "playing":
                await asyncio.sleep(LOOK_SECONDS)

    async def nights(self, over: asyncio.Event, tickets: int, seconds: float) -> None:
        """Play one night after the other until it is over."""
        while not over.is_set():
            await self.play(tickets, seconds)

    def kill(self, *names: str) -> None:
        """`kill -9` those that live, all at once. Each is started again; how long until it is ready is measured."""
        for name in names:
            if self.supervisor.pid(name) is None:
                continue
            self.supervisor.kill(name)
            self.figures.kills += 1
            if (still := self._recovering.get(name)) is not None:
                still.cancel()
            self._recovering[name] = self.group.create_task(self._until_ready_again(name))

    async def kill_caller(self, port: int) -> bool:
        """`kill -9` the service that calls from this port, and wait until it is gone; whether there is one."""
        for name in self.names:
            pid = self.supervisor.pid(name)
            with suppress(psutil.Error):
                if pid is not None and any(c.laddr.port == port for c in psutil.Process(pid).net_connections("tcp")):
                    self.kill(name)
                    while self.supervisor.pid(name) == pid:
                        await asyncio.sleep(0)
                    return True
        return False

    def stop(self, name: str) -> None:
        """SIGTERM; it is started again once it has ended."""
        pid = self.supervisor.pid(name)
        assert pid is not None, f"{name} runs"
        os.kill(pid, signal.SIGTERM)

    async def ready(self, name: str) -> bool:
        """Whether the service answers /readyz."""
        if self.supervisor.pid(name) is None:
            return False
        try:
            return (await self.client.get(self.supervisor.services[name].ready_url)).is_success
        except httpx.TransportError:
            return False

    async def server(self, do: Callable[[], object]) -> None:
        """Kill or start a server. An embedded one lives as long as the thread that starts it: this one."""
        if isinstance(self.stack, Embedded):
            do()
        else:
            await asyncio.to_thread(do)

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """A server is away for the length of the block; how long until work gets through again is measured."""
        self.figures.bounces += 1
        yield
        began = time.monotonic()
        await self._until_work_gets_through()
        self.figures.recovery_seconds.append(time.monotonic() - began)

    async def settle(self) -> None:
        """Until nothing waits on either side and nothing new was said for a while.

        What takes longer than the plan allows is judged as it stands, once nothing moves any more: on a slow machine
        what is on its way is not lost.
        """
        began = quiet_since = grew_at = time.monotonic()
        events = -1
        while True:
            asked = time.monotonic()
            busy, count = await self._busy()
            now = time.monotonic()
            grew_at = now if count > events else grew_at
            if busy or count != events:
                quiet_since, events = now, count
            late = now - began > self.plan.settle_seconds_max and now - grew_at > STILL_SECONDS
            if now - quiet_since >= QUIET_SECONDS or late or now - began > SETTLE_SECONDS_MAX:
                self.figures.drain_seconds = quiet_since - began
                return
            await asyncio.sleep(max(LOOK_SECONDS, _LOOKING_SHARE * (now - asked)))

    async def judge(self) -> Evidence:
        """Let everything settle, read both sides' books, and fail where an invariant does not hold."""
        await self.settle()
        for task in self._recovering.values():
            await asyncio.wait([task])
        found = await self.evidence()
        offences = invariants.broken(found)
        self.figures.cases = len(found.books.per_ticket)
        self.figures.webhooks = sum(found.accepted.values())
        self.figures.lost = invariants.lost(found)
        self.figures.twice = invariants.twice(found)
        self.figures.broken = list(offences)
        assert not offences, invariants.told(offences)
        return found

    async def evidence(self) -> Evidence:
        """What the invariants are judged by, as both sides' books stand now."""
        rebuilt = await rebuild_projections(self.admin_url, overrides=OVERRIDES + self.plan.overrides)
        async with self.operator() as connection:
            log = await read_log(connection)
            spent = await read_spent(connection, PROCESS, load(PROCESS, SHIPPED).settings.budget)
            side = await ours.read(
                connection, PROCESS, since=Before(0, _NO_TALLIES), delivered=list(self.door.accepted), pause=None
            )
        return Evidence(
            accepted=self.door.accepted,
            webhooks_pending=len(self.world.sender.pending),
            books=Books.model_validate(self.world.books_json()),
            writes=_writes(self.world),
            log=log,
            ours=side,
            older=self.older,
            replies_per_ticket_max=load(PROCESS, SHIPPED).settings.limits.effects_per_case_hour,
            live=rebuilt.before,
            rebuilt=rebuilt.after,
            spent=spent,
        )

    async def _busy(self) -> tuple[bool, int]:
        """Whether anything waits on either side, and how many events the log holds."""
        outside = bool(self.world.sender.pending or self.world.zendesk.state.due)
        try:
            async with self.operator() as connection:
                waiting, count = await ours.waiting(connection), await ours.events_logged(connection)
        except UNAVAILABLE:
            return True, -1
        return outside or bool(waiting), count

    async def _until_ready_again(self, name: str) -> None:
        began = time.monotonic()
        async with asyncio.timeout(RECOVERY_SECONDS_MAX):
            while not await self.ready(name):
                await asyncio.sleep(LOOK_SECONDS)
        self.figures.recovery_seconds.append(time.monotonic() - began)

    async def _until_work_gets_through(self) -> None:
        """Every service was ready since, and the log has grown; or nothing waits that could make it grow."""
        _, before = await self._busy()
        missing = set(self.names)
        async with asyncio.timeout(RECOVERY_SECONDS_MAX):
            while True:
                busy, count = await self._busy()
                before = count if before < 0 else before
                missing -= {name for name in missing if await self.ready(name)}
                if (not busy or count > before >= 0) and not missing:
                    return
                await asyncio.sleep(LOOK_SECONDS)


_NO_TALLIES = {"accepted": 0, "duplicate": 0, "no_case": 0, "unreadable": 0}


@asynccontextmanager
async def run(
    stack: Stack, state: Path, logs: Path, plan: Plan, figures: Figures, postgres_settings: Mapping[str, str]
) -> AsyncIterator[System]:
    """The whole system, ready, for the length of the block; from the main thread."""
    async with AsyncExitStack() as exits:
        settings = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "512MB", **postgres_settings}
        postgres = exits.enter_context(stack.postgres(state / "pg", **settings))  # killed are processes, no machine
        doors = {"broker": free_port(), "postgres": free_port()} if plan.proxied else {}
        broker = exits.enter_context(stack.broker(state / "broker", advertised_port=doors.get("broker")))
        broker_proxy, postgres_proxy = Proxy(to_broker(broker)), Proxy(to_postgres(postgres))
        if doors:
            await exits.enter_async_context(listening(broker_proxy, doors["broker"]))
            await exits.enter_async_context(listening(postgres_proxy, doors["postgres"]))
        await plan.migrate(postgres.url(postgres.admin, DATABASE))
        await prepare(postgres.url(postgres.admin, DATABASE), plan.seed)
        door, clock = Door(), Clock()
        world = World(
            clock=clock,
            token=TOKEN,
            secret=SECRET,
            client=await exits.enter_async_context(httpx.AsyncClient(transport=door)),
            email=EMAIL,
            webhook_url=f"http://intake/webhooks/{PROCESS}/zendesk",
            seed=plan.seed,
            mischief=plan.mischief,
        )
        gate = Gate(build(world, slack_token=SLACK_TOKEN))
        url = await exits.enter_async_context(served(gate))
        group = await exits.enter_async_context(asyncio.TaskGroup())
        playing = group.create_task(world.run())
        exits.callback(playing.cancel)
        client = await exits.enter_async_context(httpx.AsyncClient(timeout=5, trust_env=False))
        make = partial(_services, plan, postgres, doors.get("postgres"), _settings(plan, postgres, broker, url))
        supervisor = await exits.enter_async_context(supervise(make(folder=plan.folder), logs=logs))
        await supervisor.ready()
        door.in_service = intakes(supervisor)
        yield System(
            plan=plan,
            stack=stack,
            postgres=postgres,
            broker=broker,
            broker_proxy=broker_proxy,
            postgres_proxy=postgres_proxy,
            world=world,
            world_url=url,
            clock=clock,
            door=door,
            gate=gate,
            supervisor=supervisor,
            client=client,
            figures=figures,
            group=group,
            services=make,
        )


def url_of(service: Service) -> str:
    """Where it listens."""
    return service.ready_url.removesuffix("/readyz")


def intakes(supervisor: Supervisor) -> list[str]:
    """Where webhooks may go."""
    return [url_of(service) for name, service in supervisor.services.items() if name.startswith("ingest-")]


def _services(
    plan: Plan,
    postgres: Postgres,
    through_port: int | None,
    known: Mapping[str, str],
    *,
    folder: Path = PROJECT,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> list[Service]:
    return [
        Service(
            name=f"{service}-{number}",
            module=f"services.{service}",
            environment={
                **known,
                "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), known.get("PYTHONPATH")))),
                "NIGHTSHIFT_DATABASE_URL": through(postgres.url(f"nightshift_{service}", DATABASE), through_port),
                "NIGHTSHIFT_HTTP_PORT": str(port),
                **settings,
            },
            ready_url=f"http://127.0.0.1:{port}/readyz",
            folder=folder,
        )
        for service in SERVICES
        for number in range(1, plan.replicas + 1)
        for port in [free_port()]
    ]


def _settings(plan: Plan, postgres: Postgres, broker: Broker, url: str) -> dict[str, str]:
    """What every service is told, beside its own code, database and port."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    return {
        **shell,
        **broker.settings,
        "PYTHONUNBUFFERED": "1",
        "NIGHTSHIFT_KAFKA_PARTITIONS": "1" if plan.replicas == 1 else "4",
        "NIGHTSHIFT_HTTP_HOST": "127.0.0.1",
        "NIGHTSHIFT_GRACE_SECONDS": str(GRACE_SECONDS - 1),
        "NIGHTSHIFT_ZENDESK_URL": url,
        "NIGHTSHIFT_ZENDESK_EMAIL": EMAIL,
        "NIGHTSHIFT_ZENDESK_TOKEN": TOKEN,
        "NIGHTSHIFT_ZENDESK_USER_ID": str(OUR_USER_ID),
        "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET": SECRET,
        "NIGHTSHIFT_SLACK_URL": f"{url}/slack/{SLACK_TOKEN}",
        "NIGHTSHIFT_SHOP_URL": postgres.url(READER, DATABASE),
        "NIGHTSHIFT_PROCESS_OVERRIDES": OVERRIDES + plan.overrides,
        "NIGHTSHIFT_CONSOLE_TOKEN": CONSOLE_TOKEN,
        **plan.settings,
    }


def _writes(world: World) -> list[Write]:
    """Every change by our user, in the outside's own order."""
    return [
        Write(
            ticket.id,
            audit.id,
            str(key) if (key := audit.custom.get(EFFECT_KEY)) is not None else None,
            public=any(event["type"] == "Comment" and event["public"] is True for event in audit.events),
        )
        for ticket in world.zendesk.state.tickets.values()
        for audit in ticket.audits
        if audit.author_id == OUR_USER_ID
    ]
