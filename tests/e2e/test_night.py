"""The night that a newcomer plays, and the kill switch in it."""

import re
import subprocess
import time
from functools import partial

import httpx

from nightshift.demo.ours import switch
from services.runtime.postgres import Connection
from tests.e2e.conftest import RunningDemo
from tests.waiting import until

TICKETS = 6
PAUSED_SECONDS = 2.5
_WAITING = "SELECT count(*) FROM actor.effects WHERE state IN ('planned', 'unknown') AND created_at >= $1"
_NONE_IN_FLIGHT = "SELECT NOT EXISTS (SELECT FROM actor.effects WHERE state = 'in_flight' AND created_at >= $1)"
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
            await until(partial(operator.fetchval, _NONE_IN_FLIGHT, began))  # what was claimed before may still arrive
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
