import os
import re
import signal
import subprocess
import time
from functools import partial

import httpx
import pytest

from nightshift.demo.ours import switch
from services.runtime.postgres import Connection
from tests.conftest import server_folder
from tests.e2e.conftest import (
    END_SECONDS_MAX,
    STAYS,
    NewState,
    RunningDemo,
    alive,
    demo_in,
    family_of,
    nightshift,
    started,
)
from tests.readme import from_readme
from tests.stacks import Real, Stack
from tests.waiting import until

TICKETS = 6
PAUSED_SECONDS = 2.5
_ATTEMPTED = "SELECT count(*) FROM actor.effects WHERE attempt > 0 AND created_at >= $1"
_WAITING = "SELECT count(*) FROM actor.effects WHERE state IN ('planned', 'unknown') AND created_at >= $1"
_REACHED = """
SELECT count(*) FROM actor.effects
WHERE state IN ('acknowledged', 'observed') AND generation = $2 AND created_at >= $1
"""
_LATER_ATTEMPTS = """
SELECT (convert_from(body, 'UTF8')::jsonb ->> 'switch_generation')::bigint FROM actor.outbox
WHERE headers ->> 'ce_type' = 'effect.attempted.v1' AND (headers ->> 'ce_time')::timestamptz > $1
"""


def test_a_night_holds_every_promise_and_shows_where_to_look(night: RunningDemo) -> None:
    assert "17 of 17 promises held" in night.said, night.said
    console = re.search(r"console +(http://127\.0\.0\.1:\d+/\?token=\S+)", night.said)
    inbox = re.search(r"inbox +(http://127\.0\.0\.1:\d+/)", night.said)

    assert console is not None
    assert inbox is not None
    with httpx.Client(trust_env=False, follow_redirects=True) as client:
        assert client.get(console[1]).status_code == 200
        assert " tickets</small>" in client.get(inbox[1]).text


async def test_the_switch_stops_effects_at_once_without_the_broker_and_none_is_claimed_under_an_older_generation(
    night: RunningDemo, operator: Connection
) -> None:
    began = await operator.fetchval("SELECT clock_timestamp()")
    world = httpx.AsyncClient(base_url=f"http://127.0.0.1:{night.credentials['port']}", trust_env=False)
    async with world:
        await world.post("/control/faults", json={"down": "503"})
        for number in range(TICKETS):
            form = {"email": f"new{number}@example.com", "subject": "Parcel", "body": "Where is my parcel? Thank you."}
            await world.post("/new", data=form)
        await until(partial(operator.fetchval, f"{_WAITING} AND attempt > 0 HAVING count(*) > 0", began))
        await until(partial(operator.fetchval, f"{_WAITING} HAVING count(*) >= {TICKETS}", began))

        with night.broker_hangs():
            paused_at = await switch(operator, "support", paused=True, reason="a test")
            await world.post("/control/faults", json={"down": ""})
            attempts_before = await operator.fetchval(_LATER_COUNT, paused_at)
            deadline = time.monotonic() + PAUSED_SECONDS
            while time.monotonic() < deadline:  # the breaker closes after one: nothing else holds them back
                assert await operator.fetchval(_LATER_COUNT, paused_at) == attempts_before == 0
            await switch(operator, "support", paused=False, reason="the test is over")
            generation = await operator.fetchval("SELECT generation FROM control.switches WHERE process = 'support'")
            await until(partial(operator.fetchval, f"{_REACHED} HAVING count(*) >= {TICKETS}", began, generation))

    generations = [row[0] for row in await operator.fetch(_LATER_ATTEMPTS, paused_at)]
    assert generations
    assert set(generations) == {generation}


_LATER_COUNT = _LATER_ATTEMPTS.replace(
    "(convert_from(body, 'UTF8')::jsonb ->> 'switch_generation')::bigint", "count(*)"
)


def test_a_night_that_is_to_end_ends_by_itself_and_the_next_one_goes_on_from_it(
    first_night: subprocess.CompletedProcess[str], night: RunningDemo
) -> None:
    assert first_night.returncode == 0
    assert "17 of 17 promises held" in first_night.stdout

    assert night.answer("case", "3")["row"]["opened_at"] < night.answer("case", "4")["row"]["opened_at"]
    assert sum(night.answer("status")["cases"].values()) >= 43


def test_make_plays_it_and_after_ctrl_c_leaves_nothing(stack: Stack) -> None:
    if isinstance(stack, Real):
        pytest.skip("about make and the embedded stack")
    with server_folder() as folder:
        state = folder / "state"
        with started(f'{from_readme("make demo")} ARGS="--tickets 3"', state, until=STAYS) as (process, told):
            family = family_of(process.pid)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            process.wait(END_SECONDS_MAX)

        assert "17 of 17 promises held" in told
        assert len(family) > 6  # make besides
        assert alive(family) == []


def test_ctrl_c_in_the_middle_of_a_night_leaves_nothing_within_ten_seconds(new_state: NewState) -> None:
    with new_state() as state:
        with demo_in(state, "--tickets", "3", until="evening:") as demo:
            family = family_of(demo.process.pid)
            seconds = demo.interrupt()

        assert seconds < END_SECONDS_MAX
        assert demo.process.returncode == 130
        assert len(family) > 5  # four services, the world; Postgres and the broker where these are embedded
        assert alive(family) == []
        assert not (state / "stack.json").exists()


def test_a_demo_refuses_a_folder_that_works_for_somebody() -> None:
    with server_folder() as folder:
        state = folder / "state"
        (state / "postgres" / "data").mkdir(parents=True)

        refused = nightshift(state, "demo", "--exit")

        assert refused.returncode == 1
        assert "name another folder with --state" in refused.stderr
        assert "Traceback" not in refused.stderr
