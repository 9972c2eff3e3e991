"""A candidate that proposes for a share of the cases is watched, and goes back by itself where it is worse."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from contracts.events.control import CandidateChanged
from contracts.events.decisions import DecisionMade
from contracts.events.proposals import ProposalFailed
from services.actor.handlers.candidate import NOT_WATCHED, came, return_from_candidate
from services.runtime.candidates import Order, order_of
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench, case_of, ordered, tiny
from tests.fakes.events import event

REGIME = "the candidate's"
FEW = {"min_cases": 8, "worse_by": 0.05, "cost_factor": 2.0}


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    """Its process has a candidate that proposes for half of the cases."""
    async with bench(migrated, tiny(candidate={"model": "candidate", "returns": FEW})) as made:
        await ordered(made.admin, "tiny", "canary", 50, REGIME)
        yield made


async def decide(actor: Bench, first: int, count: int, **proposal: Any) -> None:
    """So many cases, each with such a proposal."""
    for ticket in map(str, range(first, first + count)):
        await actor.ask(ticket, **proposal)


async def fail(actor: Bench, first: int, count: int, **fields: Any) -> None:
    for ticket in map(str, range(first, first + count)):
        change = actor.outside.says(ticket)
        await actor.hear(await actor.sealed(change))
        basis = (await actor.proposal(ticket, [change])).data.model_dump()["basis"]
        failed = ProposalFailed(basis=basis, code="output_invalid", attempts=2, **fields)
        await actor.hear(event(f"failed {ticket}", failed, case_id=case_of(ticket)))


async def look(actor: Bench) -> int:
    async with actor.database.transaction() as connection:
        return await return_from_candidate(connection, actor.process)


async def order(actor: Bench) -> Order:
    async with actor.database.connection() as connection:
        found = await order_of(connection, "tiny")
    assert found is not None
    return found


ITS_OWN: dict[str, Any] = {"candidate": True, "regime": REGIME}


async def test_what_came_of_its_cases_and_of_the_others_is_counted_once(actor: Bench) -> None:
    await decide(actor, 1, 2, **ITS_OWN, cost_usd="0.5")
    await decide(actor, 3, 1, **ITS_OWN, confidence=0.1)
    await decide(actor, 4, 1, **ITS_OWN, answer="refuse")
    await fail(actor, 5, 1, **ITS_OWN)
    await decide(actor, 6, 3, cost_usd="0.25")
    await fail(actor, 9, 1)
    change = actor.outside.says("10")  # and one that nobody needs any more
    told = [await actor.proposal("10", [change], **ITS_OWN)]
    await actor.hear(await actor.sealed(change), *told, *told)
    actor.outside.tick()
    await actor.hear(await actor.sealed(actor.outside.says("10")))
    await actor.worker.step()

    async with actor.database.connection() as connection:
        mine, others = await came(connection, "tiny", (await order(actor)).generation)
    assert (mine.cases, mine.held, mine.refused, mine.failed, str(mine.cost_usd)) == (5, 1, 1, 1, "1.0")
    assert (others.cases, others.held, others.refused, others.failed, str(others.cost_usd)) == (4, 0, 0, 1, "0.75")


@pytest.mark.parametrize(
    ("worse", "figure"),
    [
        pytest.param({"confidence": 0.1}, "held", id="held"),
        pytest.param({"answer": "refuse"}, "refused", id="refused"),
        pytest.param({"cost_usd": "0.03"}, "cost", id="cost"),
        pytest.param(None, "failed", id="failed"),
    ],
)
async def test_a_candidate_that_is_worse_is_switched_off_and_it_is_said_why(
    actor: Bench, worse: dict[str, Any] | None, figure: str
) -> None:
    await decide(actor, 1, 12, cost_usd="0.01")
    for first, count, expected in ((20, 7, 0), (27, 1, 1), (28, 1, 0)):
        if worse is None:
            await fail(actor, first, count, **ITS_OWN, cost_usd="0.01")
        else:
            await decide(actor, first, count, **{**ITS_OWN, "cost_usd": "0.01", **worse})
        assert await look(actor) == expected

    after = await order(actor)
    [said] = await actor.said(CandidateChanged)
    assert (after.mode, after.changed_by, after.reason) == ("off", "nightshift/actor", said.reason)
    assert said.reason.startswith(f"{figure}: ")
    assert (said.mode, said.regime, said.by, said.generation) == ("off", REGIME, "nightshift/actor", after.generation)


async def test_a_candidate_like_the_others_stays(actor: Bench) -> None:
    await decide(actor, 1, 10, confidence=0.1)
    await decide(actor, 20, 10, **ITS_OWN, confidence=0.1)

    assert (await look(actor), (await order(actor)).mode) == (0, "canary")


@pytest.mark.parametrize(
    "otherwise",
    [
        pytest.param({"candidate": True, "regime": "its fallback's"}, id="by its fallback"),
        pytest.param({"candidate": True, "regime": "an older candidate's"}, id="by what it was before"),
        pytest.param({"candidate": True, "regime": None}, id="by the live regime in its place"),
    ],
)
async def test_what_is_not_by_exactly_this_regime_is_not_counted(actor: Bench, otherwise: dict[str, Any]) -> None:
    await decide(actor, 1, 12)
    await decide(actor, 20, 12, **otherwise, answer="refuse", cost_usd="7")

    async with actor.database.connection() as connection:
        mine, others = await came(connection, "tiny", (await order(actor)).generation)
    assert (mine.cases, others.cases, others.cost_usd) == (0, 12, Decimal(0))
    assert await look(actor) == 0


async def test_a_new_order_counts_from_nothing_and_what_was_counted_before_goes(actor: Bench) -> None:
    await decide(actor, 1, 12)
    await decide(actor, 20, 8, **ITS_OWN, answer="refuse")
    await ordered(actor.admin, "tiny", "canary", 60, REGIME)
    looked = await look(actor)

    assert (looked, await actor.admin.fetchval("SELECT count(*) FROM actor.trials")) == (0, 0)


async def test_a_candidate_that_this_actor_cannot_watch_is_switched_off_at_once(actor: Bench) -> None:
    """It was started without the candidate's files: what comes of its cases would be counted by nobody."""
    async with actor.database.transaction() as connection:
        done = await return_from_candidate(connection, tiny())

    [said] = await actor.said(CandidateChanged)
    assert (done, (await order(actor)).mode, said.reason) == (1, "off", NOT_WATCHED)


@pytest.mark.parametrize("mode", ["off", "shadow"])
async def test_while_it_proposes_for_nobody_nothing_is_counted(actor: Bench, mode: str) -> None:
    await ordered(actor.admin, "tiny", mode, 50, REGIME)
    await decide(actor, 1, 2)
    await fail(actor, 5, 1)

    assert await actor.admin.fetchval("SELECT count(*) FROM actor.trials") == 0


async def test_an_actor_that_dies_while_it_switches_off_leaves_all_to_the_next(actor: Bench) -> None:
    await decide(actor, 1, 12)
    await decide(actor, 20, 8, **ITS_OWN, answer="refuse")
    with pytest.raises(ZeroDivisionError):
        async with actor.database.transaction() as connection:
            assert await return_from_candidate(connection, actor.process) == 1
            raise ZeroDivisionError
    before = (await order(actor)).mode
    done = await look(actor)

    assert (before, done, len(await actor.said(CandidateChanged))) == ("canary", 1, 1)


async def test_a_candidate_s_proposal_is_decided_and_sent_as_any_other(actor: Bench) -> None:
    await actor.ask("1", **ITS_OWN)
    await actor.send()

    [made] = await actor.said(DecisionMade)
    assert made.verdict == "execute"
    assert actor.outside.answers_most == 1
