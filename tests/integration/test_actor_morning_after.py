"""The morning after: what became older than `max_age` meanwhile is a person's, and nobody answers it unattended."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from contracts.events.control import RedriveRequested
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterRedriven
from contracts.failures import PermanentError
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench, case_of
from tests.fakes.destination import raises
from tests.fakes.events import event

HANDED_OVER = {"reply 1.1": "superseded", "handover 1.1": "acknowledged"}
_A_DAY_LATER = "UPDATE actor.effects SET asked_at = asked_at - interval '1 day'"


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated) as made:
        yield made


async def test_after_a_pause_of_a_day_what_waited_is_handed_over(actor: Bench) -> None:
    await actor.ask()
    await actor.pause()
    await actor.send()
    await actor.admin.execute(_A_DAY_LATER)
    await actor.pause(paused=False)

    await actor.send()

    assert await actor.states() == HANDED_OVER
    assert actor.outside.answers_most == 0


async def test_an_effect_that_is_redriven_a_day_later_is_handed_over(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(raises(PermanentError("unprocessable", "422")))
    await actor.send()
    (letter,) = await actor.said(DeadLetterRaised)
    await actor.admin.execute(_A_DAY_LATER)
    order = RedriveRequested(dead_letter_id=letter.dead_letter_id, service="actor", nonce=UUID(int=1), by="kim")

    await actor.hear(event("redrive", order, case_id=case_of("1")))
    (redriven,) = await actor.said(DeadLetterRedriven)
    await actor.hear(event("redriven", redriven, case_id=case_of("1")))
    await actor.hurry()
    await actor.send()

    assert (await actor.states())["reply 1.1"] == "superseded"
    assert actor.outside.answers_most == 0


async def test_at_the_very_end_of_its_time_it_is_still_answered(actor: Bench) -> None:
    await actor.ask()
    await actor.pause()
    await actor.admin.execute("UPDATE actor.effects SET asked_at = asked_at - interval '23 hours 58 minutes'")
    await actor.pause(paused=False)

    await actor.send()

    assert await actor.states() == {"reply 1.1": "acknowledged"}
