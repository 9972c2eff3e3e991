"""The kill switch under full load, thrown by SQL, by the command line and in the console."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import httpx
from prometheus_client.parser import text_string_to_metric_families

from nightshift.demo import ours
from nightshift.demo.play import PROCESS
from nightshift.supervisor import PROJECT
from tests.chaos.conftest import Chaos
from tests.chaos.figures import rank
from tests.chaos.system import CONSOLE_TOKEN, Plan, System, url_of
from tests.waiting import until

LOAD_SECONDS = 3.0
"""Between a resumption and the next pause: effects wait, and go out as fast as they may."""
PAUSED_SECONDS = 3.0
CASES_PER_SECOND = 30
CLAIM_TO_CALL_SECONDS = 2.0
"""What was claimed before a pause is on the wire by then, or not at all."""


async def by_sql(system: System) -> None:
    async with system.operator() as connection:
        await ours.switch(connection, PROCESS, paused=True, reason="by SQL")


async def by_command_line(system: System) -> None:
    command = [sys.executable, "-m", "nightshift", "pause", PROCESS, "--reason", "by the command line"]
    environment = {
        **system.supervisor.services["actor-1"].environment,
        "NIGHTSHIFT_DATABASE_ADMIN_URL": system.admin_url,
    }
    process = await asyncio.create_subprocess_exec(
        *command, cwd=PROJECT, env=environment, stdin=DEVNULL, stdout=DEVNULL
    )
    assert await process.wait() == 0


async def in_the_console(system: System) -> None:
    url = url_of(system.supervisor.services["reporter-1"])
    async with httpx.AsyncClient(base_url=url, trust_env=False, follow_redirects=True) as browser:
        await browser.get("/", params={"token": CONSOLE_TOKEN})
        told = {"process": PROCESS, "reason": "in the console"}
        answer = await browser.post("/pause", data=told, headers={"origin": url})
    assert answer.is_success, answer.text


_PAUSED_AT = "SELECT changed_at FROM control.switches WHERE process = $1 AND paused"

WAYS: tuple[Callable[[System], Awaitable[None]], ...] = (by_sql, by_command_line, in_the_console)


async def test_after_a_pause_no_effect_is_claimed_and_none_goes_out_two_seconds_later(chaos: Chaos) -> None:
    rounds = chaos.size(full=20, short=1)
    last_effects: list[float] = []
    async with chaos.system(Plan()) as system, asyncio.TaskGroup() as group:
        seconds = rounds * len(WAYS) * (LOAD_SECONDS + PAUSED_SECONDS + 2)
        playing = group.create_task(system.play(int(seconds * CASES_PER_SECOND), seconds))
        applied: list[datetime] = []

        async def note(_: int) -> None:
            applied.append(datetime.now(UTC))

        system.gate.applied = note
        for throw in WAYS * rounds:
            await asyncio.sleep(LOAD_SECONDS)
            await throw(system)
            await asyncio.sleep(PAUSED_SECONDS)
            async with system.operator() as connection:
                paused_at: datetime = await connection.fetchval(_PAUSED_AT, PROCESS)
                last_effects.append(max([0.0, *((at - paused_at).total_seconds() for at in applied)]))
                await until(partial(_has_measured, system, len(last_effects)))
                await ours.switch(connection, PROCESS, paused=False, reason="on again")
        await playing
        await system.judge()

    chaos.figures.notes |= {
        "pauses": len(last_effects),
        "pause to last effect p50 s": rank(last_effects, 50),
        "pause to last effect p99 s": rank(last_effects, 99),
    }
    assert max(last_effects) < CLAIM_TO_CALL_SECONDS
    assert len(applied) > len(last_effects)


async def _has_measured(system: System, pauses: int) -> bool:
    """Whether the actor's own figure counts so many."""
    url = url_of(system.supervisor.services["actor-1"])
    families = text_string_to_metric_families((await system.client.get(f"{url}/metrics")).text)
    samples = [sample for family in families for sample in family.samples]
    return any(one.name == "nightshift_pause_to_last_effect_seconds_count" and one.value == pauses for one in samples)
