from typing import Any

import pytest

from contracts.base import Json
from nightshift.world.books import books
from nightshift.world.model import AGENT_ID, OUR_USER_ID, User, stamp
from nightshift.world.update import RefusedError
from nightshift.world.zendesk import Zendesk
from tests.fakes.world import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def zendesk(clock: Clock) -> Zendesk:
    return Zendesk(clock)


@pytest.fixture
def told(zendesk: Zendesk) -> list[list[str]]:
    """The kinds of the sibling events, by update."""
    updates: list[list[str]] = []
    zendesk.listeners.append(lambda _, events: updates.append([str(e["type"]).split(".")[-1] for e in events]))
    return updates


@pytest.fixture
def ann(zendesk: Zendesk) -> User:
    return zendesk.add_customer("Ann", "ann@example.com")


def test_the_first_comment_makes_no_event_of_its_own(zendesk: Zendesk, ann: User, told: list[list[str]]) -> None:
    zendesk.create(ann.id, "Order", "Where is it?")

    assert told == [["created"]]


def test_one_update_makes_sibling_events_of_one_sequence(zendesk: Zendesk, ann: User) -> None:
    ticket = zendesk.create(ann.id, "Order", "Where is it?")
    siblings: list[Any] = []
    zendesk.listeners.append(lambda _, events: siblings.extend(events))
    change: Json = {
        "comment": {"body": "Soon"},
        "status": "solved",
        "priority": "high",
        "additional_tags": ["x"],
        "group_id": 8002,
        "custom_fields": [{"id": 360001, "value": "12 EUR"}],
    }

    zendesk.update(ticket.id, change, actor_id=OUR_USER_ID)

    assert [e["type"].split(".")[-1] for e in siblings] == [
        "comment_added",
        "priority_changed",
        "group_assignment_changed",
        "status_changed",
        "tags_changed",
        "custom_field_changed",
    ]
    meta = [e["event"]["meta"]["sequence"] for e in siblings]
    assert len({m["id"] for m in meta}) == 1
    assert [(m["position"], m["total"]) for m in meta] == [(place, 6) for place in range(1, 7)]
    assert len({e["id"] for e in siblings}) == 6
    assert {e["detail"]["actor_id"] for e in siblings} == {str(OUR_USER_ID)}
    assert {e["detail"]["status"] for e in siblings} == {"SOLVED"}


def test_an_update_that_changes_nothing_keeps_its_audit_and_tells_nobody(
    zendesk: Zendesk, ann: User, clock: Clock, told: list[list[str]]
) -> None:
    ticket = zendesk.create(ann.id, "Order", "text", tags=["x"])
    clock.tick(5)

    _, audit = zendesk.update(ticket.id, {"additional_tags": ["x"], "metadata": {"key": "k"}}, actor_id=OUR_USER_ID)

    assert (audit.events, audit.custom) == ([], {"key": "k"})
    assert told == [["created"]]
    assert ticket.updated_at == ticket.created_at


def test_stamps_have_a_resolution_of_one_second(zendesk: Zendesk, ann: User, clock: Clock) -> None:
    ticket = zendesk.create(ann.id, "Order", "text")
    seen = stamp(ticket.updated_at)
    clock.tick(0.9)
    zendesk.comment(ticket.id, ann.id, "more")

    zendesk.update(ticket.id, {"safe_update": True, "updated_stamp": seen, "status": "open"}, actor_id=OUR_USER_ID)

    assert stamp(ticket.updated_at) == seen


def test_audit_ids_increase_over_all_tickets(zendesk: Zendesk, ann: User) -> None:
    first, second = zendesk.create(ann.id, "a", "a"), zendesk.create(ann.id, "b", "b")
    zendesk.comment(first.id, ann.id, "c")

    ids = [first.audits[0].id, second.audits[0].id, first.audits[1].id]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"status": "lost"}, 422),
        ({"priority": "yes"}, 422),
        ({"assignee_id": "me"}, 422),
        ({"comment": {"body": "x", "author_id": 5}}, 422),
        ({"safe_update": True, "status": "open"}, 409),
    ],
)
def test_a_bad_change_is_refused_and_changes_nothing(
    zendesk: Zendesk, ann: User, change: Json, status: int, told: list[list[str]]
) -> None:
    ticket = zendesk.create(ann.id, "Order", "text")

    with pytest.raises(RefusedError) as refused:
        zendesk.update(ticket.id, change, actor_id=OUR_USER_ID)

    assert refused.value.status == status
    assert told == [["created"]]
    assert (len(ticket.comments), len(ticket.audits)) == (1, 1)


def test_a_solved_ticket_reopens_when_the_customer_writes(zendesk: Zendesk, ann: User, told: list[list[str]]) -> None:
    ticket = zendesk.create(ann.id, "Order", "text")
    zendesk.update(ticket.id, {"status": "solved"}, actor_id=AGENT_ID)

    zendesk.comment(ticket.id, ann.id, "Thanks!")

    assert ticket.status == "open"
    assert told[-1] == ["comment_added", "status_changed"]


def test_writing_to_a_closed_ticket_makes_one_that_follows(zendesk: Zendesk, ann: User) -> None:
    ticket = zendesk.create(ann.id, "Order", "text")
    zendesk.update(ticket.id, {"status": "closed"}, actor_id=AGENT_ID)

    follows = zendesk.comment(ticket.id, ann.id, "again")

    assert (follows.id, follows.subject) == (ticket.id + 1, "Re: Order")


def test_merging_closes_the_one_and_notes_it_in_the_other(zendesk: Zendesk, ann: User, told: list[list[str]]) -> None:
    first, second = zendesk.create(ann.id, "Order", "a"), zendesk.create(ann.id, "Order", "b")

    zendesk.merge(second.id, first.id)

    assert (second.status, second.merged_into) == ("closed", first.id)
    assert told[-2:] == [["merged", "tags_changed", "status_changed"], ["comment_added"]]
    assert not first.comments[-1].public


@pytest.mark.parametrize(("spam", "kind"), [(False, "soft_deleted"), (True, "marked_as_spam")])
def test_a_removed_ticket_is_not_found_until_it_is_restored(
    zendesk: Zendesk, ann: User, told: list[list[str]], *, spam: bool, kind: str
) -> None:
    ticket = zendesk.create(ann.id, "Order", "a")

    zendesk.remove(ticket.id, spam=spam)
    with pytest.raises(RefusedError) as refused:
        zendesk.ticket(ticket.id)
    zendesk.restore(ticket.id)

    assert refused.value.status == 404
    assert told[-2:] == [[kind], ["undeleted"]]
    assert zendesk.ticket(ticket.id) is ticket


def test_an_auto_responder_answers_each_public_reply_and_nothing_else(zendesk: Zendesk, clock: Clock) -> None:
    bob = zendesk.add_customer("Bob", "bob@example.com", auto_reply="I am out of office.")
    ticket = zendesk.create(bob.id, "Order", "text")
    for public in (True, False, True):
        zendesk.update(ticket.id, {"comment": {"body": "reply", "public": public}}, actor_id=OUR_USER_ID)
        clock.tick(2)
        zendesk.advance()

    assert [c.body for c in ticket.comments if c.author_id == bob.id] == ["text"] + ["I am out of office."] * 2


def test_a_late_call_is_applied_when_its_time_has_come(zendesk: Zendesk, ann: User, clock: Clock) -> None:
    ticket = zendesk.create(ann.id, "Order", "text")
    zendesk.later(60, ticket.id, {"comment": {"body": "late"}}, actor_id=OUR_USER_ID, arrival=zendesk.arrive())

    clock.tick(59)
    zendesk.advance()
    before = len(ticket.comments)
    clock.tick(1)
    zendesk.advance()

    assert (before, len(ticket.comments)) == (1, 2)


def ours(zendesk: Zendesk, ticket_id: int, text: str = "reply", *, public: bool = True, key: str = "k") -> None:
    change: Json = {"comment": {"body": text, "public": public}, "metadata": {"nightshift_effect": key}}
    zendesk.update(ticket_id, change, actor_id=OUR_USER_ID)


def test_the_books_see_a_second_reply_whatever_its_key_says(zendesk: Zendesk, ann: User) -> None:
    once, twice = zendesk.create(ann.id, "a", "a"), zendesk.create(ann.id, "b", "b")
    never = zendesk.create(ann.id, "c", "c")
    ours(zendesk, once.id)
    ours(zendesk, twice.id, key="k1")
    ours(zendesk, twice.id, key="k2")
    ours(zendesk, never.id, public=False)

    found = books(zendesk.state)

    assert (found["answered_never"], found["answered_once"], found["answered_twice"]) == (1, 1, 1)
    assert (found["replies"], found["notes"], found["untouched"]) == (3, 1, 0)


def test_each_new_message_may_be_answered_once_more(zendesk: Zendesk, ann: User) -> None:
    ticket = zendesk.create(ann.id, "a", "a")
    ours(zendesk, ticket.id)
    zendesk.comment(ticket.id, ann.id, "more")
    ours(zendesk, ticket.id)

    assert books(zendesk.state)["answered_once"] == 2


def test_the_books_see_replies_that_nobody_asked_for(zendesk: Zendesk, ann: User) -> None:
    by_staff = zendesk.create(ann.id, "a", "a", submitter_id=AGENT_ID)
    ours(zendesk, by_staff.id)
    answered = zendesk.create(ann.id, "b", "b")
    zendesk.comment(answered.id, AGENT_ID, "I have it")
    ours(zendesk, answered.id)

    found = books(zendesk.state)

    assert (found["replies_to_nobody"], found["replies_after_staff"]) == (1, 1)


def test_the_books_see_a_call_that_was_overtaken(zendesk: Zendesk, ann: User, clock: Clock) -> None:
    ticket = zendesk.create(ann.id, "a", "a")
    zendesk.later(60, ticket.id, {"comment": {"body": "slow"}}, actor_id=OUR_USER_ID, arrival=zendesk.arrive())
    ours(zendesk, ticket.id)
    clock.tick(60)
    zendesk.advance()

    assert books(zendesk.state)["replies_out_of_order"] == 1


def test_the_books_know_how_long_a_first_reply_took(zendesk: Zendesk, ann: User, clock: Clock) -> None:
    for seconds in (10, 20, 30):
        ticket = zendesk.create(ann.id, "a", "a")
        clock.tick(seconds)
        ours(zendesk, ticket.id)

    assert books(zendesk.state)["first_reply_seconds"] == {"count": 3, "p50": 20.0, "p99": 30.0}
