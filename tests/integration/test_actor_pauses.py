"""The kill switch's figure: from a pause to the last effect that was still put on the wire."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from services.actor.outbound.pauses import Pauses
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated) as made:
        yield made


def measured() -> tuple[float, float]:
    """How many pauses, and the seconds of all."""
    name = "nightshift_pause_to_last_effect_seconds"
    count, seconds = (REGISTRY.get_sample_value(f"{name}_{part}", {"process": "tiny"}) for part in ("count", "sum"))
    return count or 0.0, seconds or 0.0


def pauses_of(actor: Bench) -> Pauses:
    return Pauses(actor.database, "tiny", [actor.lane], clock=lambda: actor.time)


async def test_what_was_claimed_before_a_pause_and_sent_after_it_is_its_figure(actor: Bench) -> None:
    pauses, before = pauses_of(actor), measured()
    await actor.ask()
    await pauses.look()
    claimed, committed_at = await actor.lane._claim(1)
    await actor.pause()
    await actor.lane._carry_out(claimed.claims[0], committed_at)

    await pauses.look()
    await pauses.look()

    count, seconds = measured()
    assert count == before[0] + 1
    assert seconds > before[1]


async def test_a_pause_after_the_last_effect_took_nothing(actor: Bench) -> None:
    pauses, before = pauses_of(actor), measured()
    await actor.ask()
    await pauses.look()
    await actor.send()
    actor.time += 60
    await actor.pause()

    await pauses.look()

    assert measured() == (before[0] + 1, before[1])


async def test_a_pause_is_not_measured_before_what_is_in_hand_has_ended(actor: Bench) -> None:
    pauses, before = pauses_of(actor), measured()
    await pauses.look()
    await actor.pause()
    actor.lane._in_hand = 1

    await pauses.look()
    assert measured() == before

    actor.lane._in_hand = 0
    await pauses.look()
    assert measured()[0] == before[0] + 1


async def test_neither_a_resumed_process_nor_a_pause_of_before_the_start_is_measured(actor: Bench) -> None:
    before = measured()
    await actor.pause()
    await pauses_of(actor).look()
    pauses = pauses_of(actor)
    await pauses.look()
    await actor.pause(paused=False)
    await pauses.look()
    await pauses.look()

    assert measured() == before
