"""A destination's lane: its breaker, pace, order and health, and what becomes of effects through an outage."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from structlog.testing import capture_logs

from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.effects import EffectFailed
from contracts.failures import LaterError
from services.actor.outbound.lane import Lane
from services.runtime.stop import Stop
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench
from tests.fakes.destination import call_lost, raises
from tests.waiting import until

_FAIL_TO_COMMIT = """
CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'not committed' USING ERRCODE = 'serialization_failure'; END$$;
CREATE CONSTRAINT TRIGGER fails AFTER UPDATE ON actor.{table} DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION public.fail()
"""


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated) as made:
        yield made


async def test_patience_that_is_asked_for_is_given_and_counts_no_try(actor: Bench) -> None:
    await actor.ask()
    for _ in range(5):  # more than attempts_max
        actor.outside.faults.append(raises(LaterError("rate_limited", "429", seconds=7)))
        await actor.send()
        calls = len(actor.outside.calls)
        actor.time += 6.9
        await actor.hurry()
        await actor.send()
        assert len(actor.outside.calls) == calls
        actor.time += 0.2
    await actor.send()

    assert actor.outside.answers_most == 1
    assert await actor.states() == {"reply 1.1": "acknowledged"}


async def test_a_lost_call_after_much_patience_is_sent_again_at_once(actor: Bench) -> None:
    await actor.ask()
    for _ in range(12):  # a night in which the other side asked for patience
        actor.outside.faults.append(raises(LaterError("unavailable", "503", seconds=1)))
        await actor.send()
        actor.time += 60
        await actor.hurry()
    actor.outside.faults.append(call_lost)
    await actor.send()
    actor.time += 60  # the breaker opened
    await actor.hurry()

    await actor.send()

    assert await actor.states() == {"reply 1.1": "acknowledged"}


async def test_an_outage_opens_the_breaker_and_effects_wait_and_none_dies(actor: Bench) -> None:
    for ticket in "123456":
        await actor.ask(ticket)
    for _ in range(20):
        actor.outside.faults.append(raises(LaterError("unreachable", "refused", seconds=0)))

    await actor.send()
    assert len(actor.outside.calls) == 3  # breaker_failures
    for _ in range(10):  # half open: one probe each time
        calls = len(actor.outside.calls)
        actor.time += 16
        await actor.hurry()
        await actor.send()
        assert len(actor.outside.calls) == calls + 1
    actor.outside.faults.clear()
    actor.time += 16
    await actor.hurry()
    await actor.send()

    assert set((await actor.states()).values()) == {"acknowledged"}
    assert actor.outside.answers_most == 1


async def test_refused_credentials_bury_nothing_tell_a_person_once_and_go_on_when_they_work_again(actor: Bench) -> None:
    for ticket in "123456":
        await actor.ask(ticket)
    for _ in range(20):
        actor.outside.faults.append(raises(LaterError("forbidden", "401", seconds=60)))

    with capture_logs() as logs:
        await actor.send()
        calls = len(actor.outside.calls)
        opened = actor.lane.breaker.state(actor.time)
        for _ in range(10):  # longer than attempts_max
            actor.time += 16
            await actor.hurry()
            await actor.send()
        actor.outside.faults.clear()
        actor.time += 16
        await actor.hurry()
        await actor.send()

    assert (calls, opened) == (3, "open")
    assert [entry["log_level"] for entry in logs if "credentials" in entry["event"]] == ["error"]
    assert set((await actor.states()).values()) == {"acknowledged"}
    assert await actor.said(DeadLetterRaised) == []


async def test_an_answer_that_grew_too_old_behind_refused_credentials_goes_to_a_person(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(raises(LaterError("forbidden", "401", seconds=60)))
    await actor.send()
    await actor.admin.execute("UPDATE actor.effects SET asked_at = asked_at - interval '1 day'")

    await actor.hurry()
    await actor.send()

    assert await actor.states() == {"reply 1.1": "superseded", "handover 1.1": "acknowledged"}


@pytest.mark.parametrize("table", ["effects", "looks"])
async def test_a_probe_whose_claim_could_not_be_committed_lets_another_one(actor: Bench, table: str) -> None:
    await actor.ask("1")
    await actor.send()  # to be looked at
    await actor.ask("2")
    await actor.hurry()
    for _ in range(actor.lane.breaker.failures_max):
        actor.lane.breaker.failed(actor.time)
    actor.time += actor.lane.breaker.open_seconds
    await actor.admin.execute(_FAIL_TO_COMMIT.format(table=table))

    with pytest.raises(asyncpg.SerializationError):
        await (actor.lane.step() if table == "effects" else actor.lane.look())
    await actor.admin.execute(f"DROP TRIGGER fails ON actor.{table}")

    assert await actor.lane.step()
    assert await actor.states() == {"reply 1.1": "acknowledged", "reply 2.1": "acknowledged"}


async def test_a_claim_too_old_to_be_sent_is_claimed_again(actor: Bench) -> None:
    await actor.ask()
    claimed, committed_at = await actor.lane._claim(1)
    actor.time += 2.1

    await actor.lane._carry_out(claimed.claims[0], committed_at)
    assert actor.outside.calls == []
    await actor.send()

    assert actor.outside.answers_most == 1
    tries = await actor.admin.fetchval("SELECT tries FROM actor.effects")
    assert tries == 1
    assert [f.code for f in await actor.said(EffectFailed)] == ["claimed_too_long_ago"]


async def test_effects_of_one_case_keep_their_order_and_others_flow(actor: Bench) -> None:
    await actor.ask("1", confidence=0.1)  # a handover
    actor.outside.tick()
    await actor.ask("1")  # a reply behind it
    await actor.ask("2")
    actor.outside.faults.append(call_lost)

    await actor.send()

    assert await actor.states() == {"handover 1.1": "unknown", "reply 1.2": "planned", "reply 2.1": "acknowledged"}


async def test_a_destination_without_an_address_ends_its_effects_and_stops_no_others(actor: Bench) -> None:
    await actor.ask(output={"confidence": 0.9, "answer": "Hi", "do": ("reply", "notice")})
    pager = Lane(database=actor.database, process=actor.process, destination="pager", outside=None)

    await pager.step()
    await actor.send()

    assert await actor.states() == {"reply 1.1": "acknowledged", "notice 1.1": "person"}


async def test_health_fails_when_due_effects_are_not_claimed_and_not_while_paused_or_cut_off(actor: Bench) -> None:
    await actor.ask()
    await actor.admin.execute("UPDATE actor.effects SET available_at = clock_timestamp() - interval '61 s'")
    assert await actor.lane.stalled() is None  # it has only just begun
    actor.time += 61

    assert await actor.lane.stalled() is not None
    await actor.pause()
    assert await actor.lane.stalled() is None
    await actor.pause(paused=False)
    actor.lane.pace.pause(actor.time, seconds=30)
    assert await actor.lane.stalled() is None
    actor.time += 31
    await actor.send()
    assert await actor.lane.stalled() is None


async def test_a_running_lane_sends_and_observes_and_stops_when_told(actor: Bench) -> None:
    for ticket in range(10):
        await actor.ask(str(ticket))
    stop = Stop()

    async with asyncio.TaskGroup() as group:
        group.create_task(actor.lane.run(stop))
        await until(lambda: len(actor.outside.calls) == 10)
        stop.set()

    assert set((await actor.states()).values()) <= {"acknowledged", "observed"}
    assert actor.outside.answers_most == 1


async def test_two_senders_send_each_effect_once(actor: Bench) -> None:
    for ticket in range(20):
        await actor.ask(str(ticket))
    other = actor.new_lane()

    async def drain(lane: object) -> None:
        while await lane.step():  # type: ignore[attr-defined]
            pass

    async with asyncio.TaskGroup() as group:
        group.create_task(drain(actor.lane))
        group.create_task(drain(other))

    assert len(actor.outside.calls) == 20
    assert actor.outside.answers_most == 1


async def test_an_outage_that_cuts_every_call_buries_nothing_however_often_it_is_tried(actor: Bench) -> None:
    await actor.ask()
    tries = 3 * actor.process.settings.limits.attempts_max
    actor.outside.faults.extend([call_lost] * tries)
    for _ in range(tries):
        actor.time += 60  # the breaker lets the next probe through
        await actor.send()
        await actor.hurry()
        actor.time += 60
        await actor.send()
        await actor.hurry()
    actor.time += 60
    await actor.send()

    assert await actor.said(DeadLetterRaised) == []
    assert await actor.states() == {"reply 1.1": "acknowledged"}
    assert actor.outside.answers_most == 1


async def test_what_was_never_found_goes_to_a_person_when_it_is_too_old(actor: Bench) -> None:
    await actor.ask(confidence=0.1)  # a handover, which no newer basis overtakes
    actor.outside.faults.append(call_lost)
    await actor.send()
    await actor.admin.execute("UPDATE actor.effects SET created_at = created_at - interval '25 hours'")
    await actor.hurry()
    await actor.send()

    assert [letter.code for letter in await actor.said(DeadLetterRaised)] == ["unknown_outcome"]
