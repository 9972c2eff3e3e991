import pytest

from connectors.zendesk.audits import changes_of, written_by
from connectors.zendesk.wire import Audit, Ticket, User

OURS = "900001"
TICKET = Ticket.model_validate(
    {
        "id": 42,
        "subject": "Order",
        "status": "open",
        "requester_id": 100001,
        "tags": ["a"],
        "via": {"channel": "email"},
        "created_at": "2026-11-25T06:00:00Z",
        "updated_at": "2026-11-25T06:10:00Z",
    }
)


def audit(number: int, at: str, *events: dict[str, object], author: int = 100001, **more: object) -> Audit:
    numbered = [{"id": number * 10 + place, **event} for place, event in enumerate(events)]
    return Audit.model_validate({"id": number, "author_id": author, "created_at": at, "events": numbered, **more})


def said(body: str, **more: object) -> dict[str, object]:
    return {"type": "Comment", "body": body, "public": True, **more}


def turned(status: str) -> dict[str, object]:
    return {"type": "Change", "field_name": "status", "value": status}


FIRST = audit(
    1, "2026-11-25T06:00:00Z", said("Where is it?"), {"type": "Create", "field_name": "status", "value": "new"}
)


def test_the_first_audit_opens_the_ticket_with_its_description() -> None:
    opening, _ = changes_of(TICKET, [FIRST], [], our_user_id=OURS)

    assert opening.opens
    assert (opening.identity, opening.update_id) == ("audit:1:description", "audit:1")
    assert (opening.fields["comment_id"], opening.fields["status"]) == ("description", "new")
    assert opening.author == "customer"


def test_siblings_of_an_audit_share_its_update_and_keep_their_order() -> None:
    second = audit(2, "2026-11-25T06:10:00Z", said("Hello?"), turned("open"))

    _, comment, status, _ = changes_of(TICKET, [FIRST, second], [], our_user_id=OURS)

    assert (comment.kind, status.kind) == ("comment_added", "status_changed")
    assert comment.update_id == status.update_id == "audit:2"
    assert comment.position < status.position


def test_later_audits_of_the_same_second_come_later() -> None:
    second = audit(2, "2026-11-25T06:00:00Z", turned("pending"))
    third = audit(3, "2026-11-25T06:00:00Z", turned("open"))

    changes = changes_of(TICKET, [FIRST, second, third], [], our_user_id=OURS)

    assert [c.position for c in changes[:-1]] == sorted({c.position for c in changes[:-1]})


def test_what_happened_between_two_readings_counts_over_the_older_one() -> None:
    since = audit(2, "2026-11-25T06:20:00Z", turned("solved"))

    *_, state = changes_of(TICKET, [FIRST, since], [], our_user_id=OURS)

    assert state.fields["status"] == "solved"
    assert state.fields["updated_at"] == "2026-11-25T06:20:00Z"


def test_a_state_that_is_newer_than_every_audit_stays() -> None:
    before = audit(2, "2026-11-25T06:05:00Z", turned("solved"))

    *_, state = changes_of(TICKET, [FIRST, before], [], our_user_id=OURS)

    assert state.fields["status"] == "open"


def test_roles_tell_staff_from_customers_in_copy() -> None:
    by_agent = audit(2, "2026-11-25T06:05:00Z", said("I look"), author=800001)
    by_other = audit(3, "2026-11-25T06:06:00Z", said("Me too"), author=100002)
    users = [User(id="800001", role="agent"), User(id="100002", role="end-user")]

    _, agent, other, _ = changes_of(TICKET, [FIRST, by_agent, by_other], users, our_user_id=OURS)

    assert (agent.author, other.author) == ("staff", "customer")
    assert (agent.fields["author_is_staff"], other.fields["author_is_staff"]) == (True, False)


def test_only_our_users_audits_are_what_we_wrote() -> None:
    ours = audit(2, "2026-11-25T06:05:00Z", said("note", public=False), author=900001)
    keyed = audit(
        3, "2026-11-25T06:06:00Z", said("reply"), author=900001, metadata={"custom": {"nightshift_effect": "k1"}}
    )

    odd = audit(
        4, "2026-11-25T06:07:00Z", said("reply"), author=900001, metadata={"custom": {"nightshift_effect": "k\x001"}}
    )

    written = written_by([FIRST, ours, keyed, odd], OURS)

    assert [(one.reference, one.public, one.effect_key) for one in written] == [
        ("audit:2", False, None),
        ("audit:3", True, "k1"),
        ("audit:4", True, None),
    ]


@pytest.mark.parametrize("stamp", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z"])
def test_a_history_with_a_time_that_no_ticket_can_have_is_refused(stamp: str) -> None:
    for ticket, audits in ((TICKET, [FIRST, audit(2, stamp, turned("open"))]), (dated(TICKET, stamp), [FIRST])):
        with pytest.raises(ValueError, match="time"):
            changes_of(ticket, audits, [], our_user_id=OURS)


def dated(ticket: Ticket, stamp: str) -> Ticket:
    return ticket.model_copy(update={"updated_at": stamp})
