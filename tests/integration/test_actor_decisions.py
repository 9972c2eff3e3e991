"""Decisions: one a basis, never by accident, always with somebody who knows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from contracts.base import Fact
from contracts.basis import basis_of, version_of
from contracts.envelope import Event
from contracts.events.cases import CaseChanged
from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.decisions import ApprovalRequested, DecidedFrom, DecisionMade
from contracts.events.effects import EffectAttempted, EffectFailed
from contracts.events.proposals import ProposalFailed
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench, case_of, tiny
from tests.fakes.events import event, named


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated) as made:
        yield made


async def verdicts(actor: Bench) -> list[tuple[str, str]]:
    return [(d.verdict, d.reasons[0].code if d.reasons else "") for d in await actor.said(DecisionMade)]


async def test_a_decision_says_everything_it_was_made_from(actor: Bench) -> None:
    change = await actor.ask()

    (made,) = await actor.said(DecisionMade)
    basis = basis_of(change.version, change.identity)
    assert made.basis == basis
    assert made.proposal_id == named(f"proposal 1 {basis} ")
    assert (made.verdict, made.label) == ("execute", "question")
    assert made.policy_digest == actor.process.policy_digest
    assert made.decided_from == DecidedFrom(
        case=(await actor.admin.fetchval("SELECT body FROM actor.cases")),
        modes={"reply": "act", "notice": "act", "tag": "watch", "handover": "act"},
        held=False,
    )
    assert len(made.digest) == 64
    assert made.effect_keys == (f"{case_of('1')}|reply|{basis}",)


async def test_a_proposal_that_comes_before_its_case_is_decided(actor: Bench) -> None:
    change = actor.outside.says("1")

    await actor.hear(await actor.proposal("1", [change]))
    await actor.worker.step()
    await actor.send()
    await actor.hear(await actor.sealed(change))

    assert await actor.states() == {"reply 1.1": "acknowledged"}


async def test_any_order_of_case_and_proposals_answers_the_newest_basis_once(actor: Bench) -> None:
    first = actor.outside.says("1")
    actor.outside.tick()
    second = actor.outside.says("1")

    await actor.hear(await actor.proposal("1", [first, second]))
    await actor.hear(await actor.proposal("1", [first]))
    await actor.hear(await actor.sealed(second), await actor.sealed(first))
    await actor.worker.step()
    await actor.send()

    assert await actor.states() == {"reply 1.2": "acknowledged"}
    assert sorted(await verdicts(actor)) == [("execute", ""), ("ignore", "stale_basis")]


async def test_the_same_events_twice_change_nothing(actor: Bench) -> None:
    change = actor.outside.says("1")
    events = [await actor.sealed(change), await actor.proposal("1", [change])]

    for _ in range(2):
        await actor.hear(*events)
        await actor.worker.step()
        await actor.send()

    assert actor.outside.answers_most == 1
    assert len(await actor.said(DecisionMade)) == 1


async def test_a_second_proposal_for_a_basis_is_ignored_and_says_so(actor: Bench) -> None:
    change = await actor.ask()

    await actor.hear(await actor.proposal("1", [change], answer="Another", name="again"))
    await actor.worker.step()
    await actor.send()

    assert await verdicts(actor) == [("execute", ""), ("ignore", "already_proposed")]
    assert len(actor.outside.calls) == 1


async def test_a_newer_basis_supersedes_what_is_planned_at_once(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()

    await actor.hear(await actor.sealed(actor.outside.says("1")))

    assert await actor.states() == {"reply 1.1": "superseded"}
    assert [(f.code, f.outcome) for f in await actor.said(EffectFailed)] == [("newer_basis", "superseded")]
    await actor.send()
    assert actor.outside.calls == []


async def test_what_was_taken_for_a_newer_basis_and_is_none_gives_the_answer_back(actor: Bench) -> None:
    change = await actor.ask()
    actor.outside.tick()
    half_told = actor.outside.says("1", author="system", public=False)
    await actor.hear(await actor.sealed(replace(half_told, author="customer")))
    overtaken = await actor.states()

    await actor.hear(await actor.proposal("1", [change, half_told], basis_of_change=change, name="again"))
    await actor.worker.step()
    await actor.send()

    assert overtaken == {"reply 1.1": "superseded"}
    assert await actor.states() == {"reply 1.1": "acknowledged"}
    assert [(f.code, f.outcome) for f in await actor.said(EffectFailed)] == [
        ("newer_basis", "superseded"),
        ("newest_again", "retry"),
    ]


async def test_what_was_ignored_for_a_newer_basis_that_is_none_is_decided_when_it_is_proposed_again(
    actor: Bench,
) -> None:
    change = actor.outside.says("1")
    actor.outside.tick()
    half_told = actor.outside.says("1", author="system", public=False)
    await actor.hear(await actor.sealed(change), await actor.sealed(replace(half_told, author="customer")))
    await actor.hear(await actor.proposal("1", [change]))
    await actor.worker.step()

    await actor.hear(await actor.proposal("1", [change, half_told], basis_of_change=change, name="again"))
    await actor.worker.step()
    await actor.send()

    assert await verdicts(actor) == [("ignore", "stale_basis"), ("execute", "")]
    assert await actor.states() == {"reply 1.1": "acknowledged"}


async def test_an_answer_to_what_turned_out_older_when_it_was_read_goes_to_a_person(actor: Bench) -> None:
    actor.outside.tick()
    asked = actor.outside.says("1")
    told_later = replace(asked, version=version_of(actor.outside.now + timedelta(seconds=1)))
    await actor.hear(await actor.sealed(told_later))
    await actor.hear(await actor.proposal("1", [told_later]))
    await actor.worker.step()
    actor.outside.tick(2)
    actor.outside.says("1", author="system", public=False)

    await actor.send()

    assert await actor.states() == {"reply 1.1": "superseded", "handover 1.1": "acknowledged"}
    assert [f.code for f in await actor.said(EffectFailed)] == ["conflict", "basis_gone"]


@pytest.mark.parametrize(("answered", "told"), [(False, ["handover 1.1"]), (True, [])])
async def test_a_proposal_for_what_turned_out_older_goes_to_a_person_where_somebody_waits(
    actor: Bench, told: list[str], *, answered: bool
) -> None:
    asked = actor.outside.says("1")
    told_later = replace(asked, version=version_of(actor.outside.now + timedelta(seconds=1)))
    actor.outside.tick(2)
    more = [actor.outside.says("1", author="staff")] if answered else []

    proposal = await actor.proposal("1", [told_later])
    await actor.hear(proposal)
    await actor.hear(await actor.sealed(asked), *[await actor.sealed(one) for one in more])
    await actor.worker.step()

    assert list(await actor.states()) == told


async def test_a_newer_basis_while_it_is_decided_makes_the_decision_stale(actor: Bench) -> None:
    first = actor.outside.says("1")
    await actor.hear(await actor.sealed(first), await actor.proposal("1", [first]))
    claims = await actor.worker.claim()
    outcomes = await actor.worker.perform(claims)
    actor.outside.tick()
    await actor.hear(await actor.sealed(actor.outside.says("1")))

    await actor.worker.finish(claims, outcomes)

    assert await verdicts(actor) == [("ignore", "stale_basis")]
    assert await actor.states() == {}


@pytest.mark.parametrize(
    ("proposal", "code"),
    [
        ({"confidence": 0.49}, "low_confidence"),
        ({"answer": "raise"}, "rules_failed"),
        ({"output": {"strange": True}}, "unknown_proposal"),
        ({"output": {"confidence": 0.9, "answer": "x", "do": ("fly",)}}, "unknown_action"),
    ],
)
async def test_what_rules_cannot_allow_is_held_and_handed_over(
    actor: Bench, proposal: dict[str, Any], code: str
) -> None:
    await actor.ask(**proposal)
    await actor.send()

    assert await verdicts(actor) == [("hold", code)]
    assert [c.request.kind for c in actor.outside.calls] == ["handover"]
    assert actor.outside.answers_most == 0


async def test_a_refusal_is_handed_over_with_the_draft(actor: Bench) -> None:
    await actor.ask(answer="refuse")
    await actor.send()

    assert [v for v, _ in await verdicts(actor)] == ["refuse"]
    (call,) = actor.outside.calls
    assert call.request.body == {"body": "refused Draft: refuse", "public": False}
    assert await actor.said(ApprovalRequested) == []


async def test_confidence_at_the_limit_is_executed(actor: Bench) -> None:
    await actor.ask(confidence=0.5)

    assert await verdicts(actor) == [("execute", "")]


async def test_actions_in_watch_are_decided_and_never_sent(migrated: MigratedDatabase) -> None:
    async with bench(migrated, tiny(actions={"reply": {"mode": "watch"}})) as actor:
        await actor.ask()
        await actor.send()

        assert await verdicts(actor) == [("execute", "")]
        assert actor.outside.calls == []


async def test_an_action_in_draft_is_a_note_that_the_customer_does_not_see(migrated: MigratedDatabase) -> None:
    async with bench(migrated, tiny(actions={"reply": {"mode": "draft"}})) as actor:
        await actor.ask()
        await actor.send()

        (attempted,) = await actor.said(EffectAttempted)
        assert (attempted.mode, attempted.public) == ("draft", False)
        assert actor.outside.answers_most == 0


async def test_a_persons_mode_goes_before_the_files(actor: Bench) -> None:
    await actor.admin.execute("INSERT INTO control.modes (process, action, mode) VALUES ('tiny', 'reply', 'watch')")
    await actor.ask()

    assert await actor.states() == {}


async def test_cases_from_before_the_first_day_get_nothing_not_even_a_note(migrated: MigratedDatabase) -> None:
    async with bench(migrated) as actor:
        actor.outside.now -= timedelta(days=3650)
        change = await actor.ask(confidence=0.1)
        failed = ProposalFailed(basis=basis_of(change.version, change.identity), code="x", attempts=2)
        await actor.hear(event("failed", failed, case_id=case_of("1")))
        await actor.send()

        assert (await verdicts(actor))[0] == ("ignore", "before_start")
        assert actor.outside.calls == []


async def test_what_waited_longer_than_max_age_is_held(actor: Bench) -> None:
    actor.outside.now -= timedelta(hours=24)
    await actor.ask()

    assert await verdicts(actor) == [("hold", "too_old")]


async def test_what_grows_too_old_while_it_waits_is_handed_over_and_not_sent(actor: Bench) -> None:
    actor.outside.now -= timedelta(hours=23)
    await actor.ask()
    await actor.admin.execute("UPDATE actor.effects SET asked_at = asked_at - interval '2 hours'")
    await actor.send()

    assert await actor.states() == {"reply 1.1": "superseded", "handover 1.1": "acknowledged"}


async def test_a_lowered_mode_stops_what_is_planned_and_hands_it_over(actor: Bench) -> None:
    await actor.ask()
    await actor.admin.execute("INSERT INTO control.modes (process, action, mode) VALUES ('tiny', 'reply', 'draft')")

    await actor.send()

    assert await actor.states() == {"reply 1.1": "superseded", "handover 1.1": "acknowledged"}
    assert actor.outside.answers_most == 0


async def test_a_case_that_a_person_took_meanwhile_is_not_answered(actor: Bench) -> None:
    change = await actor.ask()
    taken = await actor.sealed(change)
    data = taken.data.model_copy(
        update={"identity": "taken", "author": "staff", "fields": {"assignee_id": "7"}, "texts": {}}
    )
    await actor.hear(event("taken", data, case_id=case_of("1")))

    await actor.send()

    assert [f.code for f in await actor.said(EffectFailed)] == ["taken"]
    assert actor.outside.answers_most == 0


async def test_a_duel_with_an_auto_responder_ends_at_the_limit_with_a_person(actor: Bench) -> None:
    for _ in range(8):
        await actor.ask(text="I am out of office")
        await actor.send()
        actor.outside.tick()

    public = [c for c in actor.outside.calls if c.request.kind == "reply"]
    assert len(public) == actor.process.settings.limits.effects_per_case_hour
    assert [c.request.kind for c in actor.outside.calls if c.request.kind != "reply"] == ["handover"]
    assert ("hold", "case_held") in await verdicts(actor)


async def test_notices_take_no_place_from_the_note_that_ends_a_duel(actor: Bench) -> None:
    for _ in range(6):
        await actor.ask(output={"confidence": 0.9, "answer": "Hi", "do": ("reply", "notice")})
        for lane in (actor.pager, actor.lane):  # the notice goes first
            while await lane.step():
                pass
        actor.outside.tick()

    kinds = [c.request.kind for c in actor.outside.calls if c.request.kind != "notice"]
    assert kinds == ["reply"] * actor.process.settings.limits.effects_per_case_hour + ["handover"]


@pytest.mark.parametrize("confidence", [0.1, 0.9])
async def test_a_note_that_cannot_be_written_stops_no_other_case(
    actor: Bench, monkeypatch: pytest.MonkeyPatch, confidence: float
) -> None:
    def raising(*_: object) -> object:
        raise KeyError("default")

    monkeypatch.setattr(actor.process.effects, "handover", raising)
    await actor.ask("1", confidence=confidence)
    await actor.ask("2")
    await actor.admin.execute(
        "UPDATE actor.effects SET asked_at = asked_at - interval '2 days' WHERE case_id = $1", case_of("1")
    )

    await actor.send()

    assert (await actor.states())["reply 2.1"] == "acknowledged"
    assert [c.request.object_id for c in actor.outside.calls] == ["2"]


async def test_through_a_door_that_was_taken_away_nothing_is_answered_and_a_person_is_told(actor: Bench) -> None:
    await actor.ask("1")
    change = actor.outside.says("2")
    await actor.hear(await actor.sealed(change), await actor.proposal("2", [change]))
    await actor.admin.execute("UPDATE actor.cases SET door = 'taken away'")

    await actor.worker.step()
    await actor.send()

    assert [c.request.kind for c in actor.outside.calls] == ["handover", "handover"]
    assert (await verdicts(actor))[-1] == ("hold", "too_old")


async def test_a_stored_case_that_cannot_be_read_stops_no_other(actor: Bench) -> None:
    changes = [actor.outside.says(ticket) for ticket in "12"]
    await actor.hear(*[await actor.sealed(c) for c in changes])
    await actor.hear(*[await actor.proposal(c.object_id, [c]) for c in changes])
    await actor.admin.execute("UPDATE actor.cases SET body = '{}' WHERE case_id = $1", case_of("1"))

    await actor.worker.step()

    assert await actor.states() == {"reply 2.1": "planned"}


def failures(basis: str) -> tuple[Event[Fact], Event[Fact]]:
    letter = DeadLetterRaised(
        dead_letter_id=named("letter"),
        service="classifier",
        work="propose",
        basis=basis,
        code="schema",
        message="m",
        attempts=2,
    )
    failed = ProposalFailed(basis=basis, code="schema", attempts=2)
    return event("letter", letter, case_id=case_of("1")), event("failed", failed, case_id=case_of("1"))


@pytest.mark.parametrize("case_first", [True, False])
async def test_a_failed_proposal_and_its_dead_letter_hand_over_once(actor: Bench, *, case_first: bool) -> None:
    change = actor.outside.says("1")
    failed = failures(basis_of(change.version, change.identity))
    events = [await actor.sealed(change), *failed] if case_first else [*failed, await actor.sealed(change)]

    for one in events:
        await actor.hear(one)
    await actor.send()

    assert [c.request.kind for c in actor.outside.calls] == ["handover"]
    (made,) = await actor.said(DecisionMade)
    assert (made.verdict, made.proposal_id) == ("refuse", None)


async def test_a_proposal_after_its_failure_was_redriven_is_decided(actor: Bench) -> None:
    change = actor.outside.says("1")
    await actor.hear(await actor.sealed(change), *failures(basis_of(change.version, change.identity)))

    await actor.hear(await actor.proposal("1", [change]))
    await actor.worker.step()
    await actor.send()

    assert [v for v, _ in await verdicts(actor)] == ["refuse", "execute"]


async def test_the_failure_of_an_older_basis_bothers_nobody(actor: Bench) -> None:
    first = actor.outside.says("1")
    actor.outside.tick()
    second = actor.outside.says("1")
    await actor.hear(await actor.sealed(first), await actor.sealed(second))

    await actor.hear(failures(basis_of(first.version, first.identity))[1])

    assert await actor.states() == {}


async def test_rules_are_told_how_often_a_label_came_and_who_else_is_waiting(actor: Bench) -> None:
    for ticket in "12":
        await actor.ask(ticket)
    await actor.admin.execute(
        "UPDATE actor.cases SET party = 'p'; "
        "INSERT INTO actor.label_hours SELECT 'tiny', 'question', date_trunc('hour', clock_timestamp()) - h * "
        "interval '1 hour', 2 FROM generate_series(2, 11) h"
    )
    change = actor.outside.says("3")
    data = (await actor.sealed(change)).data
    assert isinstance(data, CaseChanged)
    with_party = data.model_copy(update={"fields": {**data.fields, "requester_id": "p"}})
    await actor.hear(event("with party", with_party, case_id=case_of("3")))
    await actor.hear(await actor.proposal("3", [change]))
    await actor.worker.step()

    told = (await actor.said(DecisionMade))[-1].circumstances
    assert told.other_open_cases_of_party == 2
    assert told.label_count_last_hour >= 2
    assert told.hours_of_history == 11.0
    assert told.label_usual_per_hour == pytest.approx(20 / 11)


async def test_many_cases_are_decided_in_one_batch(actor: Bench) -> None:
    changes = [actor.outside.says(str(n)) for n in range(40)]
    await actor.hear(*[await actor.sealed(c) for c in changes])
    await actor.hear(*[await actor.proposal(c.object_id, [c]) for c in changes])

    assert await actor.worker.step() == 40
    assert len(await actor.states()) == 40


async def test_while_paused_nothing_is_claimed_and_decisions_go_on(actor: Bench) -> None:
    await actor.pause()
    await actor.ask()
    await actor.send()

    assert await actor.states() == {"reply 1.1": "planned"}
    await actor.pause(paused=False)
    await actor.send()
    assert await actor.states() == {"reply 1.1": "acknowledged"}
    assert [a.switch_generation for a in await actor.said(EffectAttempted)] == [3]


async def test_no_effect_is_claimed_under_an_older_generation_after_the_switch_changed(actor: Bench) -> None:
    for ticket in range(60):
        await actor.ask(str(ticket))
    lanes = [actor.new_lane() for _ in range(4)]
    changed = asyncio.Event()

    async def claim(lane: object) -> None:
        while not changed.is_set():
            await lane.step()  # type: ignore[attr-defined]
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(claim(lane))
        while not actor.outside.calls:
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await actor.pause()
        claimed = await actor.admin.fetchval("SELECT count(*) FROM actor.effects WHERE attempt > 0")
        changed.set()

    after = await actor.admin.fetchval("SELECT count(*) FROM actor.effects WHERE attempt > 0")
    assert 0 < claimed == after < 60


async def test_labels_and_effects_hold_no_word_of_the_customers(actor: Bench) -> None:
    await actor.ask(text="PINEAPPLE", answer="MANGO")
    await actor.ask("2", text="PINEAPPLE", answer="MANGO", confidence=0.1)
    await actor.send()
    tables = await actor.admin.fetch(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'actor'"
    )

    for table in tables:
        for row in await actor.admin.fetch(f"SELECT t::text AS row FROM actor.{table['name']} t"):
            assert "PINEAPPLE" not in row["row"]
            assert "MANGO" not in row["row"]
    for row in await actor.admin.fetch("SELECT body FROM actor.outbox"):
        assert b"PINEAPPLE" not in row["body"]
        assert b"MANGO" not in row["body"]
