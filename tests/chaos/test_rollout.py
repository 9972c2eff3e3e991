"""A version is rolled out, rolled back and rolled out again while webhooks keep coming: nobody outside notices.

The other version is the oldest that may run beside this one (tests/oldest.py). What stands before intake does as a load
balancer does: it sends to those that are ready, and to none that is about to be stopped.
"""

import asyncio
import sys
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from nightshift.demo import ours, outside
from nightshift.demo.outside import Script
from nightshift.demo.play import OVERRIDES, Order, Played
from nightshift.demo.summary import judge
from nightshift.supervisor import Service, Supervisor, supervise
from nightshift.world.deliveries import Mischief
from services.runtime.migrate import SERVICES
from services.runtime.postgres import Connection
from tests import oldest
from tests.chaos.conftest import Chaos
from tests.chaos.system import CONSOLE_TOKEN, TOKEN, Plan, System, intakes, url_of
from tests.waiting import PATIENCE_SECONDS, until

TICKETS = 20
NIGHT_SECONDS = 8.0
"""One night follows the other until everything was rolled."""
LEAVES_SECONDS_MAX = 20.0
"""A service ends itself within 8 s of SIGTERM; one that does not is killed after these."""
EFFECTS = 5
"""So many new ones outside, and we say that the work goes on."""
TAKEN_OR_REFUSED = {202, 401}
"""The second only to what is forged or stale, as promised."""
UNKNOWN_TO_THE_OLDEST = "reads_per_second"
"""Whoever names a setting that a version does not know keeps that version from starting."""
KNOWN_TO_BOTH = "".join(line for line in OVERRIDES.splitlines(keepends=True) if UNKNOWN_TO_THE_OLDEST not in line)
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


async def test_two_versions_side_by_side_lose_nothing_do_nothing_twice_and_fail_no_webhook(chaos: Chaos) -> None:
    tree, over = oldest.unpacked(chaos.logs / "oldest"), asyncio.Event()
    plan = Plan(
        folder=tree,
        migrate=partial(migrate_by, tree),
        mischief=Mischief(copies_max=3, shuffled_percent=10, forged_percent=2, stale_percent=2),
        settings={"NIGHTSHIFT_KAFKA_PARTITIONS": "2", "NIGHTSHIFT_PROCESS_OVERRIDES": KNOWN_TO_BOTH},
    )
    async with chaos.system(plan) as system, system.operator() as connection, AsyncExitStack() as exits:
        old, new = (
            partial(system.services, folder=tree),
            partial(system.services, settings={"NIGHTSHIFT_PROCESS_OVERRIDES": OVERRIDES}),
        )
        before = await ours.before(connection)
        async with asyncio.TaskGroup() as group:
            playing = group.create_task(nights(system, over))
            await work_goes_on(connection)
            await migrate_under_load(system, new(), connection)
            await work_goes_on(connection)
            for number, version in enumerate((new, old, new)):
                await roll_out(system, version(), exits, chaos.logs / str(number))
                await work_goes_on(connection)
                assert version is old or deaths(system.supervisor) == 0
            over.set()
        await system.judge()
        assert deaths(system.supervisor) == 0

        world = outside.World(system.world_url, TOKEN, told="")
        exits.push_async_callback(world.close)
        night = Played(
            order=Order(state=chaos.state, seed=chaos.seed),
            world=world,
            admin_url=system.admin_url,
            bootstrap=system.broker.bootstrap,
        )
        promises = judge(await night.evidence(connection, playing.result(), before, None))

    assert {promise.name: promise.figure for promise in promises if not promise.held} == {}
    assert set(system.door.answers) == TAKEN_OR_REFUSED


async def nights(system: System, over: asyncio.Event) -> Script:
    """Play one night after the other until it is over; what was played in all."""
    played: list[Script] = []
    while not over.is_set():
        await system.play(TICKETS, NIGHT_SECONDS)
        played.append(Script.model_validate(system.world.night_json()["facts"]))
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


async def roll_out(system: System, services: Sequence[Service], exits: AsyncExitStack, logs: Path) -> None:
    """These in the place of those that run, after a while beside them: none of these has to be killed."""
    leaving = system.supervisor
    coming = await exits.enter_async_context(supervise(services, logs=logs))
    await coming.ready(seconds=PATIENCE_SECONDS)
    system.door.in_service = [*intakes(leaving), *intakes(coming)]
    await both_work(system, leaving, coming)
    system.door.in_service, system.supervisor = intakes(coming), coming
    began = time.monotonic()
    await leaving.stop(grace_seconds=LEAVES_SECONDS_MAX)
    assert time.monotonic() - began < LEAVES_SECONDS_MAX


async def both_work(system: System, *versions: Supervisor) -> None:
    """Until each consumes events, in the groups that they share, and shows what both have done."""
    for name in ("classifier-1", "actor-1", "reporter-1"):
        for version in versions:
            url = url_of(version.services[name])
            before = await handled(system.client, url)

            async def more(url: str = url, before: float = before) -> bool:
                return await handled(system.client, url) > before

            await until(more)
    for version in versions:
        assert await console(url_of(version.services["reporter-1"])) == httpx.codes.OK


async def handled(client: httpx.AsyncClient, url: str) -> float:
    """Events that this life of a service was the first to handle."""
    families = text_string_to_metric_families((await client.get(f"{url}/metrics")).text)
    samples = [sample for family in families for sample in family.samples]
    return sum(one.value for one in samples if one.name == "nightshift_events_handled_total")


async def console(url: str) -> int:
    """How it answers an operator."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, follow_redirects=True) as browser:
        return (await browser.get("/", params={"token": CONSOLE_TOKEN})).status_code


def deaths(supervisor: Supervisor) -> int:
    """How often one of them ended by itself."""
    return sum(map(supervisor.restarts, supervisor.services))


async def migrate_by(tree: Path, admin_url: str) -> None:
    """As the version does it whose code lies there."""
    command = [sys.executable, "-c", _PREPARE, admin_url]
    environment = oldest.environment(tree, {})
    process = await asyncio.create_subprocess_exec(*command, cwd=tree, env=environment, stdin=DEVNULL)
    assert await process.wait() == 0


async def migrate_under_load(system: System, new: Sequence[Service], connection: Connection) -> None:
    """What of the new version waits for its migrations waits no longer; what the old one knows is still there."""
    before = await shape(connection)

    async def run(*words: str, service: Service) -> asyncio.subprocess.Process:
        environment = {**service.environment, "NIGHTSHIFT_DATABASE_ADMIN_URL": system.admin_url}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words), cwd=service.folder, env=environment, stdin=DEVNULL
        )

    running = [
        *[await run("services.runtime.migrated", name, service=one) for name, one in zip(SERVICES, new, strict=True)],
        await run("services.runtime.migrate", service=new[0]),
    ]
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert [await one.wait() for one in running] == [0] * len(running)
    assert before <= await shape(connection)


async def shape(connection: Connection) -> set[str]:
    """Every column and every function that a service may name."""
    return {row[0] for row in await connection.fetch(_SHAPE, ["control", *SERVICES])}
