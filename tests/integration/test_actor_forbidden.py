"""One ticket that may be read and never written, among others that may: a person hears of it in the end."""

from collections.abc import AsyncIterator

import pytest

from connectors.protocol import Acknowledged
from contracts.decision import Request
from contracts.events.dead_letters import DeadLetterRaised
from contracts.failures import LaterError
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated) as made:
        yield made


async def test_a_ticket_that_may_be_read_and_not_written_does_not_wait_for_ever_in_silence(actor: Bench) -> None:
    send = actor.outside.send

    async def may_not_write_1(request: Request, *, effect_key: str, stamp: str | None) -> Acknowledged:
        if request.object_id == "1":
            raise LaterError("forbidden", "403", seconds=60)
        return await send(request, effect_key=effect_key, stamp=stamp)

    actor.outside.send = may_not_write_1  # type: ignore[method-assign]
    await actor.ask("1")
    for other in range(2, 14):
        await actor.ask(str(other))
        await actor.hurry()
        await actor.send()

    letters = await actor.said(DeadLetterRaised)
    assert {letter.code for letter in letters} == {"forbidden"}, "the reply, and the handover on the same ticket"
