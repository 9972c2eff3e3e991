"""Approvals: bound to what was shown, in time, once; and no by default."""

import json
from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID

import pytest

from contracts.events.control import ApprovalAnswered, RedriveRequested, SkipRequested
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterRedriven
from contracts.events.decisions import ApprovalRequested, ApprovalResolved
from contracts.failures import PermanentError
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, bench, case_of
from tests.fakes.destination import raises
from tests.fakes.events import event, named


@pytest.fixture
async def actor(migrated: MigratedDatabase) -> AsyncIterator[Bench]:
    async with bench(migrated) as made:
        yield made


async def answer(
    actor: Bench, said: Literal["approved", "denied"] = "approved", *, digest: str | None = None, name: str = "answer"
) -> None:
    asked = (await actor.said(ApprovalRequested))[-1]
    data = ApprovalAnswered(
        approval_id=asked.approval_id,
        answer=said,
        digest=digest or asked.digest,
        by="Ada Example",
    )
    await actor.hear(event(name, data, case_id=case_of("1")))


async def resolved(actor: Bench) -> list[str]:
    return [r.answer for r in await actor.said(ApprovalResolved)]


async def test_a_hold_asks_for_exactly_what_would_be_sent(actor: Bench) -> None:
    await actor.ask(confidence=0.1)

    (asked,) = await actor.said(ApprovalRequested)
    (request,) = json.loads((await actor.key("1")).unseal(asked.requests))
    assert request["body"] == {"body": "Hello!", "public": True}


async def test_what_was_approved_is_sent_and_nothing_else(actor: Bench) -> None:
    await actor.ask(confidence=0.1)
    await answer(actor)
    await actor.send()

    assert await resolved(actor) == ["approved"]
    assert actor.outside.answers_most == 1
    (sent,) = [c.request for c in actor.outside.calls if c.request.kind == "reply"]
    assert sent.body == {"body": "Hello!", "public": True}


async def test_an_answer_to_something_else_changes_nothing(actor: Bench) -> None:
    await actor.ask(confidence=0.1)
    await answer(actor, digest="0" * 64)
    await actor.send()

    assert await resolved(actor) == []
    assert actor.outside.answers_most == 0


async def test_a_second_yes_authorises_nothing(actor: Bench) -> None:
    await actor.ask(confidence=0.1)
    await answer(actor)
    await answer(actor, name="once more")
    await actor.send()

    assert await resolved(actor) == ["approved"]
    assert actor.outside.answers_most == 1


async def test_a_yes_after_a_no_authorises_nothing(actor: Bench) -> None:
    await actor.ask(confidence=0.1)
    await answer(actor, "denied")
    await answer(actor, name="second thoughts")
    await actor.send()

    assert await resolved(actor) == ["denied"]
    assert [c.request.kind for c in actor.outside.calls] == ["handover"]


async def test_a_newer_basis_supersedes_a_waiting_approval_and_says_so(actor: Bench) -> None:
    await actor.ask(confidence=0.1)
    actor.outside.tick()
    await actor.hear(await actor.sealed(actor.outside.says("1")))
    assert await resolved(actor) == ["superseded"]

    await answer(actor)
    await actor.send()

    assert await resolved(actor) == ["superseded"]
    assert actor.outside.answers_most == 0


async def test_an_approved_answer_is_not_sent_after_a_newer_basis(actor: Bench) -> None:
    await actor.ask(confidence=0.1)
    await answer(actor)
    actor.outside.tick()
    await actor.hear(await actor.sealed(actor.outside.says("1")))

    await actor.send()

    assert (await actor.states())["reply 1.1"] == "superseded"


async def test_nobodys_answer_is_a_no_by_the_databases_clock(actor: Bench) -> None:
    await actor.ask(confidence=0.1)
    assert await actor.expire() == 0
    await actor.admin.execute("UPDATE actor.approvals SET expires_at = clock_timestamp()")

    assert await actor.expire() == 1
    await answer(actor)
    await actor.send()

    assert await resolved(actor) == ["expired"]
    assert [c.request.kind for c in actor.outside.calls] == ["handover"]


async def test_an_overdue_approval_whose_case_cannot_be_read_stops_no_other_and_ends_when_it_can(actor: Bench) -> None:
    for ticket in "12":
        await actor.ask(ticket, confidence=0.1)
    body = await actor.admin.fetchval("SELECT body FROM actor.cases WHERE case_id = $1", case_of("1"))
    await actor.admin.execute("UPDATE actor.cases SET body = '{}' WHERE case_id = $1", case_of("1"))
    await actor.admin.execute("UPDATE actor.approvals SET expires_at = clock_timestamp()")

    assert await actor.expire() == 1
    assert await actor.expire() == 0
    assert await resolved(actor) == ["expired"]

    await actor.admin.execute("UPDATE actor.cases SET body = $2 WHERE case_id = $1", case_of("1"), body)
    await actor.admin.execute("UPDATE actor.approvals SET put_off_until = clock_timestamp()")
    assert await actor.expire() == 1
    await actor.send()

    assert await resolved(actor) == ["expired", "expired"]
    assert sorted(c.request.object_id for c in actor.outside.calls) == ["1", "2"]


async def test_a_yes_that_comes_too_late_is_a_no(actor: Bench) -> None:
    await actor.ask(confidence=0.1)
    await actor.admin.execute("UPDATE actor.approvals SET expires_at = clock_timestamp()")

    await answer(actor)

    assert await resolved(actor) == ["expired"]


async def test_a_hold_of_actions_in_watch_asks_nobody(actor: Bench) -> None:
    await actor.ask(output={"confidence": 0.1, "answer": "x", "do": ("tag",)})

    assert await actor.said(ApprovalRequested) == []
    assert await actor.states() == {"handover 1.1": "planned"}


async def redrive(actor: Bench, dead_letter_id: UUID, name: str) -> None:
    order = RedriveRequested(dead_letter_id=dead_letter_id, service="actor", nonce=named(name), by="Ada Example")
    await actor.hear(event(f"order {name}", order, case_id=case_of("1")))
    for number, said in enumerate(await actor.said(DeadLetterRedriven)):
        await actor.hear(event(f"redriven {number}", said, case_id=case_of("1")))


async def test_a_redriven_effect_is_sent_once(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(raises(PermanentError("unprocessable", "422")))
    await actor.send()
    (letter,) = await actor.said(DeadLetterRaised)

    for nonce in ("one", "one", "two"):
        await redrive(actor, letter.dead_letter_id, nonce)
        await actor.send()

    assert await actor.states() == {"reply 1.1": "acknowledged", "handover 1.1": "acknowledged"}
    assert actor.outside.answers_most == 1


async def test_a_skipped_effect_is_never_sent_and_its_case_flows_on(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(raises(PermanentError("unprocessable", "422")))
    await actor.send()
    (letter,) = await actor.said(DeadLetterRaised)
    skip = SkipRequested(
        dead_letter_id=letter.dead_letter_id, service="actor", reason="answered by telephone", by="Ada Example"
    )
    await actor.hear(event("skip", skip, case_id=case_of("1")))
    await redrive(actor, letter.dead_letter_id, "too late")
    actor.outside.tick()

    await actor.ask("1")
    await actor.send()

    assert await actor.states() == {
        "reply 1.1": "dead",
        "handover 1.1": "acknowledged",
        "reply 1.3": "acknowledged",
    }


async def test_later_work_of_a_case_waits_behind_its_dead_letter_and_others_flow(actor: Bench) -> None:
    await actor.ask()
    actor.outside.faults.append(raises(PermanentError("unprocessable", "422")))
    await actor.send()
    actor.outside.tick()

    await actor.ask("1")
    await actor.ask("2")
    await actor.send()

    assert await actor.states() == {
        "reply 1.1": "dead",
        "handover 1.1": "acknowledged",
        "reply 2.1": "acknowledged",
    }
