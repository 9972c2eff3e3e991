from pathlib import Path
from typing import Any

import httpx
import pytest

from nightshift.world import store
from nightshift.world.books import books
from nightshift.world.faults import Faults
from nightshift.world.model import OUR_USER_ID, State
from nightshift.world.night import play, wrongly_answered
from nightshift.world.shop import customers_of
from nightshift.world.stage import Facts, messages
from nightshift.world.zendesk import Zendesk
from tests.fakes.world import Clock, world


async def played(tickets: int = 200, seed: int = 1, state: State | None = None) -> tuple[Zendesk, Facts]:
    zendesk = Zendesk(Clock(), seed=seed, state=state)
    facts = await play(zendesk, Faults(), lambda _, __: None, tickets=tickets, seconds=0, seed=seed)
    return zendesk, facts


async def test_a_night_has_exactly_its_tickets_and_every_scene() -> None:
    zendesk, facts = await played()

    assert len(zendesk.state.tickets) == sum(map(len, facts.tickets.values())) == 200
    assert set(facts.tickets) == {
        "ordinary",
        "injection",
        "auto_responder",
        "comes_back",
        "deleted",
        "merged",
        "empty",
        "attachment_only",
        "long",
        "html",
        "person_first",
        "assigned",
        "other_channel",
        "other_language",
        "spam",
        "legal",
        "account_deletion",
        "small_refund",
        "large_refund",
        "third_message",
        "staff_opens",
        "card_number",
    }
    assert facts.refused == 0
    assert len(facts.tickets["ordinary"]) > 100


@pytest.mark.parametrize("tickets", [1, 2, 20, 333])
async def test_a_night_of_any_size_has_its_number_of_tickets(tickets: int) -> None:
    zendesk, _ = await played(tickets)

    assert len(zendesk.state.tickets) == tickets


async def test_the_same_seed_gives_the_same_night() -> None:
    (one, facts), (other, same), (different, _) = await played(), await played(), await played(seed=2)

    assert one.state == other.state
    assert facts == same
    assert one.state.tickets != different.state.tickets


async def test_a_second_night_goes_on_from_the_first_with_other_customers() -> None:
    first, _ = await played(50)
    before = {ticket.requester_id for ticket in first.state.tickets.values()}

    second, facts = await played(50, state=first.state)

    assert len(second.state.tickets) == 100
    after = {second.state.tickets[i].requester_id for ids in facts.tickets.values() for i in ids}
    assert len(before & after) < 10


async def test_orders_that_are_asked_about_are_the_customers_own() -> None:
    zendesk, _ = await played()
    orders = {c.id: {o.number for o in c.orders} for c in customers_of(2000, 1)}

    asked = [t for t in zendesk.state.tickets.values() if any(n in t.description for n in orders[t.requester_id])]

    assert len(asked) > 20
    assert not any("{{" in t.description for t in zendesk.state.tickets.values())


async def test_a_night_leaves_no_fault_behind() -> None:
    faults = Faults()
    seen: set[str] = set()

    await play(Zendesk(Clock()), faults, lambda _, __: seen.add(faults.down), tickets=50, seconds=0, seed=1)

    assert seen == {"", "503", "cut"}
    assert (faults.down, faults.percent, faults.upcoming) == ("", {}, [])


async def test_an_answer_that_must_never_be_given_is_found_in_the_books() -> None:
    zendesk, facts = await played()
    ticket_id = facts.tickets["legal"][0]
    zendesk.update(ticket_id, {"comment": {"body": "Never mind."}}, actor_id=OUR_USER_ID)

    never: Any = facts.json()["never_answer"]
    assert wrongly_answered(books(zendesk.state), never) == [str(ticket_id)]


def test_messages_name_no_number_of_their_own() -> None:
    assert len(messages()) > 400
    assert all(said.text and said.subject for said in messages())


async def test_the_state_outlives_the_process(tmp_path: Path) -> None:
    clock = Clock()
    async with httpx.AsyncClient() as client:
        first = world(clock, client, folder=tmp_path, webhook_url="http://127.0.0.1:9/")
        await play(first.zendesk, first.api.faults, lambda _, __: None, tickets=30, seconds=0, seed=1)
        first.slack.post({"text": "hello"}, clock())
        first.save()

        second = world(clock, client, folder=tmp_path, webhook_url="http://127.0.0.1:9/")

    assert second.zendesk.state == first.zendesk.state
    assert second.slack.messages == first.slack.messages
    assert [d.body for d in second.sender.pending] == [d.body for d in first.sender.pending]
    assert len(second.sender.pending) >= 30


def test_a_state_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text('{"state": 5}')

    with pytest.raises(store.StateUnreadableError, match="move it away"):
        store.load(tmp_path)
