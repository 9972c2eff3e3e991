"""What a candidate in shadow proposed is judged by the inputs of the live decision, said, and acted on by nobody."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from contracts.base import Fact
from contracts.envelope import Event
from contracts.events.decisions import DecisionMade, DecisionShadowed
from contracts.events.proposals import ProposalShadowed
from services.runtime import candidates
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench, case_of, ordered, tiny
from tests.fakes.events import named

REGIME = "the candidate's"


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    """Its process has a candidate, which is in shadow on every case."""
    async with bench(migrated, tiny(candidate={"model": "candidate"})) as made:
        await ordered(made.admin, "tiny", "shadow", 100, REGIME)
        yield made


async def kept(actor: Bench) -> list[str]:
    return [row["said"] for row in await actor.admin.fetch("SELECT said FROM actor.shadows ORDER BY 1")]


async def everything(actor: Bench) -> list[tuple[Any, ...]]:
    """What the actor did and said, shadows apart."""
    sql = (
        "SELECT headers->>'ce_type', headers->>'ce_subject', convert_from(body, 'UTF8')::jsonb - 'decided_at'"
        " - 'expires_at' - 'circumstances' FROM actor.outbox WHERE headers->>'ce_type' <> 'decision.shadowed.v1'"
    )
    tables = (
        "SELECT effect_key, state, kind, request_digest FROM actor.effects ORDER BY 1",
        "SELECT case_id, basis, verdict, label, proposal_id FROM actor.decisions ORDER BY 1, 2",
        "SELECT case_id, basis, digest, state FROM actor.approvals ORDER BY 1, 2",
        "SELECT case_id, code FROM actor.holds ORDER BY 1",
        "SELECT label, sum(count) FROM actor.label_hours GROUP BY 1 ORDER BY 1",
        "SELECT case_id, kind, basis, state FROM actor.tasks ORDER BY 1, 2",
        "SELECT case_id, code FROM actor.dead_letters ORDER BY 1",
    )
    rows = [tuple(row) for one in (sql, *tables) for row in await actor.admin.fetch(one)]
    return sorted(rows, key=repr)


@pytest.mark.parametrize("live_first", [True, False], ids=["decided first", "proposed first"])
async def test_whichever_comes_later_the_two_are_compared_once(actor: Bench, *, live_first: bool) -> None:
    change = actor.outside.says("1")
    live = [await actor.sealed(change), await actor.proposal("1", [change])]
    shadow = await actor.shadow(change, confidence=0.4)
    done: list[int] = []
    for events in [live, [shadow]] if live_first else [[shadow], live]:
        await actor.hear(*events)
        await actor.worker.step()
        done.append(await actor.compare())
    done.append(await actor.compare())
    await actor.hear(*live, shadow)

    [made] = await actor.said(DecisionMade)
    [said] = await actor.said(DecisionShadowed)
    assert (done, await kept(actor)) == ([0, 1, 0], [])
    assert (said.basis, said.regime, said.difference) == (made.basis, REGIME, "stricter")
    assert (said.live.verdict, said.live.digest) == ("execute", made.digest)
    assert (said.shadow.verdict, said.shadow.reasons[0].code) == ("hold", "low_confidence")


@pytest.mark.parametrize(
    ("live", "shadow", "difference"),
    [
        ({}, {}, "same"),
        ({}, {"answer": "Good day!"}, "other requests"),
        ({}, {"answer": "refuse"}, "stricter"),
        ({"answer": "raise"}, {}, "looser"),
        ({}, {"output": {"confidence": 0.9, "answer": "Hello!", "do": ("reply", "notice")}}, "other actions"),
        ({"confidence": 0.1}, {"answer": "raise"}, "other actions"),
        ({}, {"output": {"strange": True}}, "stricter"),
    ],
)
async def test_a_difference_has_the_name_that_a_replay_gives_it(
    actor: Bench, live: dict[str, Any], shadow: dict[str, Any], difference: str
) -> None:
    change = await actor.ask(**live)
    await actor.hear(await actor.shadow(change, **shadow))
    await actor.compare()

    [said] = await actor.said(DecisionShadowed)
    assert said.difference == difference


async def test_a_shadow_is_judged_by_what_was_known_when_the_live_one_was(actor: Bench) -> None:
    """It was executable then; by now the case is held, watched, answered and too old."""
    change = await actor.ask()
    await actor.send()
    await actor.admin.execute("INSERT INTO control.modes (process, action, mode) VALUES ('tiny', 'reply', 'watch')")
    await actor.admin.execute("INSERT INTO actor.holds (case_id, reference, code) VALUES ($1, 'x', 'x')", case_of("1"))
    await actor.hear(await actor.shadow(change))
    await actor.compare()

    [said] = await actor.said(DecisionShadowed)
    assert said.difference == "same"


@pytest.mark.parametrize(
    ("mode", "percent"), [pytest.param("off", 100, id="off"), pytest.param("shadow", 0, id="of no case")]
)
async def test_what_is_not_in_shadow_is_not_kept(actor: Bench, mode: str, percent: int) -> None:
    await ordered(actor.admin, "tiny", mode, percent, REGIME)
    await actor.ask()

    assert await kept(actor) == []


async def test_a_process_without_a_candidate_keeps_nothing(migrated: MigratedDatabase) -> None:
    async with bench(migrated) as actor:
        await ordered(actor.admin, "tiny", "shadow", 100, REGIME)
        await actor.ask()

        assert await kept(actor) == []


async def test_a_candidate_that_failed_leaves_nothing_and_what_waits_for_it_goes_after_a_day(actor: Bench) -> None:
    change = await actor.ask()
    made = (await actor.shadow(change)).data
    assert isinstance(made, ProposalShadowed)
    failed = ProposalShadowed(basis=made.basis, proposal_id=made.proposal_id, regime=REGIME, code="model_timeout")
    told: Event[Fact] = await actor.shadow(change)
    await actor.hear(_with(told, failed))
    await actor.compare()
    waiting = await kept(actor)
    await actor.admin.execute("UPDATE actor.shadows SET kept_at = kept_at - interval '25 hours'")
    await actor.compare()

    assert (waiting, await kept(actor)) == (["decided"], [])
    assert await actor.said(DecisionShadowed) == []


async def test_a_shadow_whose_text_was_erased_is_dropped_and_the_others_are_said(actor: Bench) -> None:
    for ticket in "1", "2":
        change = await actor.ask(ticket)
        await actor.hear(await actor.shadow(change))
    await actor.admin.execute("SELECT vault.erase($1)", case_of("1"))
    done = await actor.compare()

    assert (done, await kept(actor)) == (1, [])
    assert len(await actor.said(DecisionShadowed)) == 1


async def test_two_actors_compare_each_pair_once(actor: Bench) -> None:
    change = await actor.ask()
    await actor.hear(await actor.shadow(change))
    async with actor.database.transaction() as connection:
        await connection.execute("SELECT 1 FROM actor.shadows FOR UPDATE")
        while_another_holds_it = await actor.compare()

    assert (while_another_holds_it, await actor.compare()) == (0, 1)


async def test_the_same_night_with_a_shadow_and_without_has_the_same_effects_and_decisions(
    migrated: MigratedDatabase, migrated_once: MigratedDatabase
) -> None:
    nights: list[list[tuple[Any, ...]]] = []
    live: tuple[dict[str, Any], ...] = ({}, {"confidence": 0.1}, {"answer": "refuse"}, {"answer": "raise"})
    shadows: tuple[dict[str, Any], ...] = ({"answer": "refuse"}, {"confidence": 0.3})
    now: datetime | None = None
    for database, mode in ((migrated, "off"), (migrated_once, "shadow")):
        async with bench(database, tiny(candidate={"model": "candidate"})) as actor:
            now = actor.outside.now = now or actor.outside.now - timedelta(seconds=60)
            await ordered(actor.admin, "tiny", mode, 100, REGIME)
            for ticket, answer in enumerate(live, 1):
                for shadow in shadows:  # at the second the customer asks once more
                    change = actor.outside.says(str(ticket))
                    await actor.hear(await actor.sealed(change))
                    if mode == "shadow":
                        await actor.hear(await actor.shadow(change, **shadow))
                        await actor.compare()
                    await actor.hear(await actor.proposal(str(ticket), [change], **answer))
                    await actor.worker.step()
                    await actor.compare()
                    await actor.send()
                    actor.outside.tick()
            calls = [(c.effect_key, c.stamp, c.request.model_dump_json()) for c in actor.outside.calls]
            nights.append([*await everything(actor), *calls])
            assert len(await actor.said(DecisionShadowed)) == (8 if mode == "shadow" else 0)

    assert nights[0] == nights[1]


async def test_no_service_can_order_and_the_actor_can_only_end_what_it_looked_at(actor: Bench) -> None:
    end = "SELECT count(*) FROM control.end_candidate('tiny', $1, 'worse', 'nightshift/actor')"
    async with actor.database.connection() as connection:
        order = await candidates.order_of(connection, "tiny")
        assert order is not None
        for statement in (
            "UPDATE control.candidates SET percent = 100",
            "INSERT INTO control.candidates VALUES ('other', 'canary', 100, 'm', 'r', 1, 'better')",
        ):
            with pytest.raises(Exception, match="permission denied"):
                await connection.execute(statement)
        ended = [await connection.fetchval(end, generation) for generation in (order.generation + 1, order.generation)]
        after = await candidates.order_of(connection, "tiny")

    assert ended == [0, 1]
    assert after is not None
    assert (after.mode, after.generation, after.changed_by) == ("off", order.generation + 1, "nightshift/actor")


def _with(told: Event[Fact], data: Fact) -> Event[Fact]:
    return Event(
        event_id=named("another"),
        source=told.source,
        time=told.time,
        process=told.process,
        case_id=told.case_id,
        correlation_id=told.correlation_id,
        causation_id=None,
        data=data,
    )
