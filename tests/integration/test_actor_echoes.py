"""Echoes: news of our own effects confirms them; what nobody knows of holds the case."""

from collections.abc import AsyncIterator

import pytest

from connectors.protocol import Acknowledged
from contracts.decision import Request
from contracts.events.decisions import DecisionMade
from contracts.events.effects import EffectAcknowledged, EffectObserved
from services.actor.handlers import effect_sent
from services.actor.handlers.effect_claimed import Claim
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench
from tests.fakes.destination import Call


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated) as made:
        yield made


async def hear_all(actor: Bench, ticket: str = "1") -> None:
    """Every webhook of the ticket comes (again)."""
    await actor.hear(*[await actor.sealed(change) for change in actor.outside.tickets[ticket].history])


async def test_an_echo_observes_and_is_no_new_work(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    await actor.send()

    await hear_all(actor)
    await actor.look()

    assert [o.by for o in await actor.said(EffectObserved)] == ["echo"]
    assert await actor.worker.step() == 0
    assert len(await actor.said(DecisionMade)) == 1


async def test_an_echo_that_comes_before_the_outcome_observes_once(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    claimed, _ = await actor.lane._claim(1)
    [claim] = claimed.claims
    actor.outside.carry_out(Call(claim.request, claim.key, claim.stamp))
    await hear_all(actor)
    while await actor.lane.look():
        pass
    assert await actor.states() == {"reply 1.1": "observed"}

    answer = await _acknowledged(actor, claim.request, claim.key)
    await actor.look()

    assert answer == "observed"
    assert len(await actor.said(EffectObserved)) == 1
    assert len(await actor.said(EffectAcknowledged)) == 1


async def _acknowledged(actor: Bench, request: Request, key: str) -> str:
    """The outcome is recorded at last."""
    row = await actor.admin.fetchrow("SELECT * FROM actor.effects WHERE effect_key = $1", key)
    assert row is not None
    claim = Claim(
        work="send",
        row=row,
        stored=None,  # type: ignore[arg-type]
        keys=None,  # type: ignore[arg-type]
        request=request,
        stamp=None,
        can_read_back=True,
    )
    async with actor.database.transaction() as connection:
        said = Acknowledged(reference="audit-1", at=actor.outside.now)
        await effect_sent.acknowledged(connection, [(claim, said)], look=True)
    return str(await actor.admin.fetchval("SELECT state FROM actor.effects WHERE effect_key = $1", key))


async def test_many_echoes_are_one_observation(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    await actor.send()
    for _ in range(3):
        await hear_all(actor)
        await actor.look()

    assert len(await actor.said(EffectObserved)) == 1


async def test_somebody_with_our_account_holds_the_case_and_tells_a_person_once(actor: Bench) -> None:
    await actor.ask()
    await actor.send()
    actor.outside.tick()
    actor.outside.says("1", author="ours", public=False, text="Hi, it is me")
    await hear_all(actor)
    await actor.look()
    actor.outside.tick()

    await actor.ask("1")
    await actor.send()
    await actor.look()

    assert [d.verdict for d in await actor.said(DecisionMade)] == ["execute", "hold"]
    assert [c.request.kind for c in actor.outside.calls] == ["reply", "handover", "handover"]
    assert await actor.admin.fetchval("SELECT count(*) FROM actor.holds") == 1


async def test_a_planned_answer_is_not_sent_into_a_held_case(actor: Bench) -> None:
    await actor.ask("1", confidence=0.1)
    actor.outside.tick()
    actor.outside.says("1", author="ours", public=False)
    await hear_all(actor)
    await actor.look()
    await actor.admin.execute("UPDATE actor.effects SET kind = 'reply', bound = true WHERE kind = 'handover'")

    await actor.lane.step()

    assert actor.outside.calls == []


async def test_a_persons_public_reply_of_before_the_hold_that_is_told_late_ends_nothing(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    told_late = actor.outside.says("1", author="staff")
    actor.outside.tick()
    await actor.hear(await actor.sealed(actor.outside.says("1", author="ours", public=False)))
    await actor.look()

    await actor.hear(await actor.sealed(told_late))
    actor.outside.tick()
    await actor.ask("1")

    assert [d.verdict for d in await actor.said(DecisionMade)] == ["execute", "hold"]


async def test_a_persons_public_reply_ends_the_hold(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    actor.outside.says("1", author="ours", public=False)
    await hear_all(actor)
    await actor.look()
    actor.outside.tick()
    staff = actor.outside.says("1", author="staff")
    await actor.hear(await actor.sealed(staff))
    actor.outside.tick()

    await actor.ask("1")

    assert [d.verdict for d in await actor.said(DecisionMade)] == ["execute", "execute"]
