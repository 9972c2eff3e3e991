"""A version is rolled out, rolled back and rolled out again while webhooks keep coming: nobody outside notices.

The other version is the oldest that may run beside this one (tests/oldest.py). What stands before intake does as a load
balancer does: it sends to those that are ready, and to none that is about to be stopped.
"""

import asyncio
import sys
import time
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nightshift.demo import ours, outside
from nightshift.demo.outside import Credentials, Script, World
from nightshift.demo.play import MISCHIEF, OVERRIDES, Order, Played, prepare
from nightshift.demo.summary import judge
from nightshift.embedded.child import free_port
from nightshift.stack import as_role
from nightshift.supervisor import PROJECT, Service, Supervisor, supervise
from nightshift.world.shop import READER
from services.runtime.migrate import SERVICES
from services.runtime.postgres import Connection
from tests import oldest
from tests.conftest import server_folder
from tests.fakes.world import served
from tests.stacks import Broker, Stack
from tests.waiting import until

SEED = 11
TICKETS = 20
NIGHT_SECONDS = 8.0
"""One night follows the other until everything was rolled."""
PATIENCE_SECONDS = 60
LEAVES_SECONDS_MAX = 20.0
"""A service ends itself within 8 s of SIGTERM; one that does not is killed after these."""
EFFECTS = 5
"""So many new ones outside, and we say that the work goes on."""
TOKEN = "a-token-of-some-length"
UNKNOWN_TO_THE_OLDEST = "reads_per_second"
"""Whoever names a setting that a version does not know keeps that version from starting."""
_PREPARE = """
import asyncio, sys
from nightshift.stack import prepare_database
asyncio.run(prepare_database(sys.argv[1], ["support"]))
"""
_SHAPE = """
SELECT format('%s.%s.%s %s', table_schema, table_name, column_name, data_type) FROM information_schema.columns
WHERE table_schema = ANY($1)
UNION ALL
SELECT format('%s %s', oid::regprocedure, prorettype::regtype) FROM pg_proc
WHERE pronamespace::regnamespace::text = ANY($1)
"""


class FrontDoor:
    """Hands each webhook to the next intake in service, and counts what came back."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.in_service: Sequence[str] = ()
        self.answers: Counter[int] = Counter()
        self._client = client
        self._taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self._taken += 1
        intake = self.in_service[self._taken % len(self.in_service)]
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        answer = await self._client.post(f"{intake}{request.url.path}", content=await request.body(), headers=headers)
        self.answers[answer.status_code] += 1
        await Response(answer.content, answer.status_code)(scope, receive, send)


@dataclass
class Version:
    """The four services of one version of the code."""

    tree: Path
    settings: Mapping[str, str]
    database_url: str
    logs: Path
    client: httpx.AsyncClient
    ports: Mapping[str, int] = field(default_factory=lambda: {name: free_port() for name in SERVICES})
    _running: dict[str, tuple[Supervisor, AsyncExitStack]] = field(default_factory=dict)

    async def run(self, *words: str, **settings: str) -> asyncio.subprocess.Process:
        """Start `python …` of this version."""
        return await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=self.tree, env=oldest.environment(self.tree, settings), stdin=DEVNULL
        )

    async def start(self) -> None:
        """Returns when each is ready."""
        for name in SERVICES:
            stack = AsyncExitStack()
            one = supervise([self._service(name)], logs=self.logs, grace_seconds=LEAVES_SECONDS_MAX)
            self._running[name] = await stack.enter_async_context(one), stack
        for supervisor, _ in self._running.values():
            await supervisor.ready(seconds=PATIENCE_SECONDS)

    async def stop(self) -> None:
        """SIGTERM to one after the other; none has to be killed."""
        while self._running:
            name, (_, stack) = self._running.popitem()
            began = time.monotonic()
            await stack.aclose()
            assert time.monotonic() - began < LEAVES_SECONDS_MAX, name

    @property
    def deaths(self) -> int:
        """How often one of them ended by itself."""
        return sum(supervisor.restarts(name) for name, (supervisor, _) in self._running.items())

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def url_as(self, name: str) -> str:
        """The database, as this service's role."""
        return as_role(self.database_url, f"nightshift_{name}")

    async def handled(self, name: str) -> float:
        """Events that this life of the service was the first to handle."""
        text = (await self.client.get(f"{self.url(name)}/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "nightshift_events_handled_total"
        )

    async def console(self) -> int:
        """How its console answers an operator."""
        async with httpx.AsyncClient(base_url=self.url("reporter"), trust_env=False, follow_redirects=True) as browser:
            return (await browser.get("/", params={"token": TOKEN})).status_code

    def _service(self, name: str) -> Service:
        ours = {"NIGHTSHIFT_DATABASE_URL": self.url_as(name), "NIGHTSHIFT_HTTP_PORT": str(self.ports[name])}
        return Service(
            name=name,
            module=f"services.{name}",
            environment=oldest.environment(self.tree, {**self.settings, **ours}),
            ready_url=f"{self.url(name)}/readyz",
            folder=self.tree,
        )


async def nights(world: World, over: asyncio.Event) -> Script:
    """Play one night after the other until it is over; what was played in all."""
    played: list[Script] = []
    while not over.is_set():
        await world.begin(tickets=TICKETS, seconds=NIGHT_SECONDS)
        while (night := await world.night()).state == "playing":
            await asyncio.sleep(0.1)
        assert night.facts is not None
        played.append(night.facts)
    kinds = {kind for script in played for kind in script.tickets}
    return Script(
        tickets={kind: tuple(one for script in played for one in script.of(kind)) for kind in kinds},
        never_answer={ticket: why for script in played for ticket, why in script.never_answer.items()},
    )


async def work_goes_on(connection: Connection) -> None:
    before = (await ours.progress(connection))["effects"]

    async def more() -> bool:
        return (await ours.progress(connection))["effects"] >= before + EFFECTS

    await until(more)


async def both_work(*versions: Version) -> None:
    """Until each consumes events, in the groups that they share, and shows what both have done."""
    for name in ("classifier", "actor", "reporter"):
        for version in versions:
            before = await version.handled(name)

            async def more(version: Version = version, name: str = name, before: float = before) -> bool:
                return await version.handled(name) > before

            await until(more)
    assert [await version.console() for version in versions] == [200, 200]


async def shape(connection: Connection) -> set[str]:
    """Every column and every function that a service may name."""
    return {row[0] for row in await connection.fetch(_SHAPE, ["control", *SERVICES])}


async def migrate_under_load(new: Version, connection: Connection) -> None:
    """What of the new version waits for its migrations waits no longer; what the old one knows is still there."""
    before = await shape(connection)
    waiting = [
        await new.run("-m", "services.runtime.migrated", name, NIGHTSHIFT_DATABASE_URL=new.url_as(name))
        for name in SERVICES
    ]
    migrating = await new.run("-m", "services.runtime.migrate", NIGHTSHIFT_DATABASE_ADMIN_URL=new.database_url)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert [await one.wait() for one in (migrating, *waiting)] == [0] * (1 + len(SERVICES))
    assert before <= await shape(connection)


@pytest.fixture
def state() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder


@pytest.fixture
def own_broker(stack: Stack, state: Path) -> Iterator[Broker]:
    with stack.broker(state / "broker") as broker:
        yield broker


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def known(state: Path) -> Credentials:
    return outside.credentials(state / "world", None)


@pytest.fixture
def versions(
    tmp_path: Path, state: Path, database_url: str, own_broker: Broker, client: httpx.AsyncClient, known: Credentials
) -> tuple[Version, Version]:
    """The oldest, and this one, on the same database and broker."""
    settings = {
        **known.environment(),
        **own_broker.settings,
        "NIGHTSHIFT_KAFKA_PARTITIONS": "2",
        "NIGHTSHIFT_SHOP_URL": as_role(database_url, READER),
        "NIGHTSHIFT_CONSOLE_TOKEN": TOKEN,
    }
    known_to_both = "".join(line for line in OVERRIDES.splitlines(keepends=True) if UNKNOWN_TO_THE_OLDEST not in line)
    of_the_old = settings | {"NIGHTSHIFT_PROCESS_OVERRIDES": known_to_both}
    of_the_new = settings | {"NIGHTSHIFT_PROCESS_OVERRIDES": OVERRIDES}
    return (
        Version(oldest.unpacked(tmp_path), of_the_old, database_url, state / "old", client),
        Version(PROJECT, of_the_new, database_url, state / "new", client),
    )


async def test_two_versions_side_by_side_lose_nothing_do_nothing_twice_and_fail_no_webhook(
    versions: tuple[Version, Version],
    state: Path,
    database_url: str,
    own_broker: Broker,
    client: httpx.AsyncClient,
    known: Credentials,
) -> None:
    old, new = versions
    door, over = FrontDoor(client), asyncio.Event()
    order = Order(state=state, seed=SEED, settle_seconds_max=PATIENCE_SECONDS)
    prepared = await old.run("-c", _PREPARE, database_url)
    assert await prepared.wait() == 0
    await prepare(database_url, SEED)

    async with AsyncExitStack() as stack:
        for version in versions:
            stack.push_async_callback(version.stop)
        door_url = await stack.enter_async_context(served(door))
        webhook_url = f"{door_url}/webhooks/support/zendesk"
        world = await stack.enter_async_context(
            outside.world(state, known, webhook_url=webhook_url, cases_url=door_url, seed=SEED, mischief=MISCHIEF)
        )
        connection = await asyncpg.connect(database_url)
        stack.push_async_callback(connection.close)
        await old.start()
        before = await ours.before(connection)
        door.in_service = [old.url("ingest")]

        async with asyncio.TaskGroup() as group:
            playing = group.create_task(nights(world, over))
            await work_goes_on(connection)

            await migrate_under_load(new, connection)
            await work_goes_on(connection)

            await new.start()
            door.in_service = [old.url("ingest"), new.url("ingest")]
            await both_work(old, new)
            door.in_service = [new.url("ingest")]
            await old.stop()
            await work_goes_on(connection)

            await old.start()
            door.in_service = [old.url("ingest")]
            await new.stop()
            await work_goes_on(connection)

            await new.start()
            door.in_service = [new.url("ingest")]
            await old.stop()
            await work_goes_on(connection)
            over.set()

        played = Played(order=order, world=world, admin_url=database_url, bootstrap=own_broker.bootstrap)
        await played.settle(connection, lambda *_: None)
        promises = judge(await played.evidence(connection, playing.result(), before, None))

        assert {promise.name: promise.figure for promise in promises if not promise.held} == {}
        assert door.answers.keys() == {202, 401}, "and 401 only for what is forged or stale, as promised"
        assert new.deaths == 0
