"""Effects: each once outside, whatever crashes, conflicts, times out or comes back late."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import pytest

from connectors.protocol import Acknowledged, PlainChange, Written
from contracts.basis import version_of
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterResolved
from contracts.events.effects import EffectAcknowledged, EffectAttempted, EffectFailed, EffectObserved
from contracts.failures import ConflictError, PermanentError
from services.actor.handlers import effect_sent
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench, case_of
from tests.fakes.destination import Call, FakeDestination, answer_lost, call_lost, lands_late, raises, swallowed


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated) as made:
        yield made


async def test_an_answer_goes_attempted_acknowledged_observed_and_once(actor: Bench) -> None:
    await actor.ask()

    await actor.send()
    await actor.look()

    assert await actor.states() == {"reply 1.1": "observed"}
    assert actor.outside.answers_most == 1
    (attempted,) = await actor.said(EffectAttempted)
    assert (attempted.attempt, attempted.mode, attempted.public, attempted.switch_generation) == (1, "act", True, 1)
    assert attempted.stamp is not None
    assert len(await actor.said(EffectAcknowledged)) == 1
    assert [o.by for o in await actor.said(EffectObserved)] == ["read_back"]


async def test_the_intent_is_committed_before_the_call(actor: Bench) -> None:
    await actor.ask()
    seen: list[int] = []

    async def send(request: object, *, effect_key: str, stamp: str | None) -> object:
        del request, effect_key, stamp
        seen.append(len(await actor.said(EffectAttempted)))
        raise PermanentError("gone", "gone")

    actor.outside.send = send  # type: ignore[assignment,method-assign]
    await actor.send()

    assert seen == [1]


async def test_a_lost_answer_is_found_by_reading_back_and_not_sent_again(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(answer_lost)

    await actor.send()
    assert await actor.states() == {"reply 1.1": "unknown"}
    await actor.hurry()
    await actor.send()

    assert await actor.states() == {"reply 1.1": "observed"}
    assert len(actor.outside.calls) == 1


async def test_an_unknown_attempt_is_not_read_back_before_its_second_is_over(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(answer_lost)

    await actor.send()
    await actor.send()

    assert actor.outside.reads == 0


async def test_a_lost_call_is_sent_again_under_the_same_stamp(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(call_lost)

    await actor.send()
    await actor.hurry()
    await actor.send()

    first, second = actor.outside.calls
    assert first.stamp == second.stamp
    assert actor.outside.answers_most == 1
    assert [a.attempt for a in await actor.said(EffectAttempted)] == [1, 2]


async def test_a_first_call_that_lands_late_leaves_one_answer_in_their_books(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick(60)
    actor.outside.faults.append(lands_late)

    await actor.send()
    await actor.hurry()
    await actor.lane.step()  # reads back: not there yet
    actor.outside.tick(60)
    actor.outside.land()
    await actor.send()  # the second call: 409
    await actor.hurry()
    await actor.send()

    assert actor.outside.answers_most == 1
    assert await actor.states() == {"reply 1.1": "observed"}


async def test_a_first_call_that_lands_after_the_second_is_refused(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick(60)
    actor.outside.faults.append(lands_late)

    await actor.send()
    await actor.hurry()
    await actor.send()
    actor.outside.tick(60)
    actor.outside.land()

    assert actor.outside.answers_most == 1


async def test_a_first_call_that_lands_after_the_second_was_refused_for_good_leaves_one_answer(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick(60)
    actor.outside.faults.extend([lands_late, raises(PermanentError("unprocessable", "422"))])
    await actor.send()
    await actor.hurry()
    await actor.lane.step()  # reads back: not there yet
    await actor.lane.step()  # the second call: 422, which proves nothing about the first
    await actor.hurry()
    await actor.lane.step()  # reads back: still not there
    actor.outside.tick(60)
    actor.outside.land()

    for _ in range(6):
        await actor.send()
        await actor.hurry()

    assert actor.outside.answers_most == 1
    assert await actor.states() == {"reply 1.1": "observed"}


async def test_a_stamp_that_a_stale_lease_brings_is_not_taken(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    actor.outside.says("1", author="system", public=False)
    await actor.lane.step()  # 409: a fresh stamp is wanted
    claimed, _ = await actor.lane._claim(1)
    [stale] = claimed.claims
    await actor.hurry()  # its lease is over
    await actor.send()

    async with actor.database.transaction() as connection:
        await connection.execute("UPDATE effects SET state = 'planned'")
        await effect_sent.refreshed(connection, stale, actor.process, "a stamp of another time", ())

    assert stale.work == "refresh"
    assert await actor.admin.fetchval("SELECT stamp FROM actor.effects") != "a stamp of another time"


async def test_what_comes_in_while_a_ticket_is_read_counts_as_unread(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    actor.outside.says("1", author="system", public=False)
    read = actor.outside.read
    came_in: list[datetime] = []

    async def and_something_comes_in(object_id: str) -> Sequence[PlainChange]:
        found = await read(object_id)
        came_in.append(await actor.admin.fetchval("SELECT clock_timestamp()"))
        return found

    actor.outside.read = and_something_comes_in  # type: ignore[method-assign]
    await actor.send()

    read_at = await actor.admin.fetchval("SELECT body->>'heard_at' FROM actor.cases")
    assert version_of(actor.outside.now) < read_at < version_of(came_in[0])


async def test_a_key_erased_while_the_ticket_is_read_ends_the_effect_and_stops_nobody(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    actor.outside.says("1", author="system", public=False)
    stamp = actor.outside.current_stamp

    async def erased_meanwhile(object_id: str) -> str:
        await actor.admin.execute("SELECT vault.erase($1)", case_of("1"))
        return await stamp(object_id)

    actor.outside.current_stamp = erased_meanwhile  # type: ignore[method-assign]
    await actor.send()

    assert await actor.states() == {"reply 1.1": "superseded"}
    assert [f.code for f in await actor.said(EffectFailed)] == ["conflict", "text_erased"]


async def test_a_crash_between_call_and_outcome_is_read_back_by_another(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(answer_lost_by_crash)
    with pytest.raises(asyncio.CancelledError):
        await actor.lane.step()
    assert await actor.states() == {"reply 1.1": "in_flight"}

    await actor.hurry()
    other = actor.new_lane()
    await other.step()
    await actor.hurry()
    await other.step()

    assert await actor.states() == {"reply 1.1": "observed"}
    assert actor.outside.answers_most == 1


async def test_a_crash_before_the_call_arrived_is_sent_again_once(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(raises(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await actor.lane.step()

    for _ in range(4):
        await actor.hurry()
        await actor.send()

    assert actor.outside.answers_most == 1
    assert len(actor.outside.calls) == 2


async def test_a_conflict_by_a_new_comment_supersedes_the_answer_to_the_old_one(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    actor.outside.says("1", text="And another thing")  # its webhook has not come yet

    await actor.send()

    assert await actor.states() == {"reply 1.1": "superseded"}
    assert actor.outside.answers_most == 0
    assert [(f.code, f.outcome) for f in await actor.said(EffectFailed)] == [
        ("conflict", "retry"),
        ("newer_basis", "superseded"),
    ]


async def test_a_conflict_by_a_note_gets_a_fresh_stamp(actor: Bench) -> None:
    await actor.ask()
    actor.outside.tick()
    actor.outside.says("1", author="system", public=False)

    await actor.send()

    first, second = actor.outside.calls
    assert first.stamp != second.stamp
    assert actor.outside.answers_most == 1


async def test_a_ticket_deleted_while_work_waits_ends_it_without_a_dead_letter(actor: Bench) -> None:
    await actor.ask()
    actor.outside.delete("1")

    await actor.send()

    assert await actor.states() == {"reply 1.1": "superseded"}
    assert await actor.said(DeadLetterRaised) == []


async def test_a_refusal_for_good_is_a_dead_letter_and_a_person_is_told(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(raises(PermanentError("unprocessable", "422")))

    await actor.send()

    assert await actor.states() == {"reply 1.1": "dead", "handover 1.1": "acknowledged"}
    (letter,) = await actor.said(DeadLetterRaised)
    assert (letter.work, letter.code) == ("effect.reply", "unprocessable")


async def test_a_lost_call_to_a_ticket_that_is_closed_meanwhile_ends_after_one_look(actor: Bench) -> None:
    await actor.ask()
    closed = raises(PermanentError("closed", "422"))
    actor.outside.faults.extend([call_lost, closed, closed])
    await actor.send()
    await actor.hurry()

    await actor.send()

    assert await actor.states() == {"reply 1.1": "superseded"}
    assert await actor.said(DeadLetterRaised) == []


async def test_a_lost_call_that_is_refused_ever_after_is_a_dead_letter_and_waits_for_no_age(actor: Bench) -> None:
    await actor.ask()
    refused = raises(PermanentError("unprocessable", "422"))
    actor.outside.faults.extend([call_lost, *[refused] * effect_sent.REFUSED_LOOKS])

    for _ in range(effect_sent.REFUSED_LOOKS + 1):
        await actor.send()
        await actor.hurry()

    assert (await actor.states())["reply 1.1"] == "dead"
    (letter,) = await actor.said(DeadLetterRaised)
    assert (letter.work, letter.code) == ("effect.reply", "unprocessable")


async def test_a_dead_effect_that_is_found_outside_after_all_ends_its_dead_letter_and_the_case_goes_on(
    actor: Bench,
) -> None:
    await actor.ask()
    refused = raises(PermanentError("unprocessable", "422"))
    actor.outside.faults.extend([lands_late, *[refused] * effect_sent.REFUSED_LOOKS])
    for _ in range(effect_sent.REFUSED_LOOKS + 1):
        await actor.send()
        await actor.hurry()
    died = (await actor.states())["reply 1.1"]

    actor.outside.land()
    await actor.look()
    actor.outside.tick()
    await actor.ask()
    await actor.send()

    (letter,), (resolved,) = await actor.said(DeadLetterRaised), await actor.said(DeadLetterResolved)
    assert (died, resolved.dead_letter_id) == ("dead", letter.dead_letter_id)
    states = await actor.states()
    assert states.pop("reply 1.1") == "observed"
    assert sorted(states.values()) == ["acknowledged", "observed"], "of the handover, and of the later answer"


async def test_conflicts_without_end_become_a_dead_letter(actor: Bench) -> None:
    await actor.ask()
    for _ in range(3):
        actor.outside.faults.append(raises(ConflictError("409")))

    await actor.send()

    assert (await actor.states())["reply 1.1"] == "dead"


async def test_acknowledged_and_never_there_is_sent_once_more_and_then_a_persons(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.extend([swallowed, swallowed])

    for _ in range(20):
        await actor.send()
        await actor.look()

    assert await actor.states() == {"reply 1.1": "person", "handover 1.1": "observed"}
    assert [c.request.kind for c in actor.outside.calls] == ["reply", "reply", "handover"]


UNSTORABLE = "no text of Postgres: \0"


async def test_what_was_found_and_cannot_be_recorded_stops_no_other_and_is_looked_at_again(actor: Bench) -> None:
    for ticket in ("1", "2"):
        await actor.ask(ticket)
    await actor.send()
    found = actor.outside.tickets["1"].written
    found.append(Written(reference="audit-odd", at=actor.outside.now, public=False, effect_key=UNSTORABLE))
    await actor.hurry()

    await actor.lane.look(2)

    assert await actor.states() == {"reply 1.1": "acknowledged", "reply 2.1": "observed"}
    found.pop()
    await actor.look()
    assert await actor.states() == {"reply 1.1": "observed", "reply 2.1": "observed"}


async def test_an_outcome_that_cannot_be_recorded_is_a_dead_letter_and_stops_no_other(actor: Bench) -> None:
    actor.outside.faults.append(call_lost)
    await actor.ask("1")
    await actor.send()
    written = Written(reference="audit-odd", at=actor.outside.now, public=False, effect_key=UNSTORABLE)
    actor.outside.tickets["1"].written.append(written)
    await actor.ask("2")
    await actor.hurry()

    await actor.send()

    states = await actor.states()
    assert (states["reply 1.1"], states["reply 2.1"]) == ("dead", "acknowledged")
    assert [letter.code for letter in await actor.said(DeadLetterRaised)] == ["unforeseen"]


async def test_a_blind_notice_of_unknown_outcome_goes_to_a_person(actor: Bench) -> None:
    await actor.ask(output={"confidence": 0.9, "answer": "Hi", "do": ("notice",)})
    actor.outside.faults.append(call_lost)

    await actor.pager.step()
    await actor.hurry()
    await actor.pager.step()
    await actor.send()

    assert await actor.states() == {"notice 1.1": "person", "handover 1.1": "acknowledged"}
    assert [f.outcome for f in await actor.said(EffectFailed)] == ["person"]


def answer_lost_by_crash(outside: FakeDestination, call: Call) -> Acknowledged:
    outside.carry_out(call)
    raise asyncio.CancelledError
