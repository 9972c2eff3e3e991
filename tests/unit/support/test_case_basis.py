"""What was asked, whether it waits, and whether enough is known to answer."""

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.basis import basis_of, version_of
from contracts.events.cases import CaseChanged
from processes.support import case as cases
from tests.unit.support.tickets import OURS, STAFF, at, change, comment, created, fold_all, folded, revealed


def _said(number: int, seconds: float) -> str:
    return basis_of(version_of(at(seconds)), f"said:{number:020}")


def _audit(kind: str, seconds: float, number: int, read_at: float, **more: Any) -> CaseChanged:
    return change(kind, seconds, update_id=f"audit:{number}", received_at=at(read_at), **more)


def test_the_first_message_of_a_customer_is_the_basis() -> None:
    case = folded(created())

    assert cases.basis(case) == basis_of(version_of(at(0)), "description")
    assert cases.awaits_answer(case)
    assert cases.asked_at(case) == cases.opened_at(case) == at(0)
    assert (cases.replied(case), cases.is_open(case), cases.party(case)) == (False, True, "501")
    assert cases.stamp(case) == "2026-11-25T09:00:00Z"


def test_a_stamp_younger_than_the_question_is_taken_from_a_read_alone() -> None:
    """Of an update with a status and an answer the status is heard first: what the answer says is not known then."""
    asked, half_heard = created(), change("status_changed", 60, author="ours", fields={"status": "pending"})
    read = _audit("status_changed", 60, 12, 90, author="ours", fields={"status": "pending"})

    assert cases.stamp(folded(asked, half_heard)) is None
    assert cases.stamp(folded(asked, half_heard, read)) == "2026-11-25T09:01:00Z"
    assert cases.stamp(folded(asked, half_heard, read, change("tags_changed", 100))) is None
    assert cases.stamp(folded(asked, half_heard, comment(9, 120))) == "2026-11-25T09:02:00Z"


def test_a_read_between_two_updates_of_one_second_tells_the_stamp_of_neither() -> None:
    first = change("tags_changed", 60, update_id="u1", author="staff", received_at=at(61))
    second = change("status_changed", 60, update_id="u2", author="staff", received_at=at(63))
    read, read_again = (_audit("tags_changed", 60, 12, seconds, author="staff") for seconds in (62, 64))

    assert cases.stamp(folded(created(), first, read)) == "2026-11-25T09:01:00Z"
    for order in itertools.permutations((created(), first, read, second)):
        assert cases.stamp(fold_all(order)) is None
    assert cases.stamp(folded(created(), first, read, second, read_again)) == "2026-11-25T09:01:00Z"


def test_no_read_tells_a_stamp_of_the_last_second_of_the_calendar() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    read = _audit("status_changed", 60, 7, 90, version=version_of(last), fields={"updated_at": last.isoformat()})

    assert cases.stamp(folded(created(), read)) is None


@pytest.mark.parametrize(("read_at", "stamp"), [(60.9, None), (61, "2026-11-25T09:01:00Z")])
def test_a_read_within_the_second_of_a_stamp_tells_it_of_nothing(read_at: float, stamp: str | None) -> None:
    read = _audit("tags_changed", 60, 12, read_at, author="staff")

    assert cases.stamp(folded(created(), read)) == stamp


def test_a_newer_public_message_of_the_customer_is_the_newer_basis() -> None:
    before, after = folded(created()), folded(created(), comment(9, 60))

    assert cases.basis(after) == _said(9, 60)
    assert (cases.basis(after) or "") > (cases.basis(before) or "")


def test_messages_of_one_second_keep_their_order() -> None:
    case = folded(created(), comment(9, 0), comment(10, 0))

    assert cases.basis(case) == _said(10, 0)
    assert [c.id for c in case.comments] == ["description", "9", "10"]


@pytest.mark.parametrize(
    "other",
    [
        comment(9, 60, author="staff", fields=STAFF),
        comment(9, 60, author="ours", fields=OURS),
        comment(9, 60, author="staff", fields={**STAFF, "comment_public": False}),
        comment(9, 60, fields={"comment_public": False}),
        comment(9, 60, author="system", fields={"author_id": "", "author_is_staff": ""}),
        change("tags_changed", 60, fields={"tags": ("x",)}),
        change("priority_changed", 60, author="staff", fields={"priority": "high"}),
    ],
)
def test_nothing_but_the_customers_public_word_makes_a_basis(other: CaseChanged) -> None:
    assert cases.basis(folded(created(), other)) == basis_of(version_of(at(0)), "description")


def test_a_first_comment_by_staff_is_not_the_customer_speaking() -> None:
    case = folded(created(author="staff", fields=STAFF))

    assert cases.basis(case) is None
    assert not cases.awaits_answer(case)
    assert not cases.replied(case)


def test_an_author_nobody_named_is_known_by_the_requesters_id() -> None:
    unknown = comment(9, 60, author="unknown", fields={"author_is_staff": ""})
    mailed = created(author="system", fields={"author_is_staff": ""})

    assert cases.basis(folded(created(), unknown)) == _said(9, 60)
    assert cases.basis(folded(mailed)) is not None


def test_one_comment_has_one_basis_by_whichever_way_and_order_it_was_learnt() -> None:
    ways = [
        created(),
        change("trigger", 61, hint=True, update_id=None),
        change("status_changed", 30, author="staff", fields={"status": "solved"}),
        comment(9, 60, update_id="seq-1"),
        change("status_changed", 60, update_id="seq-1", position=1, fields={"status": "open"}),
        _audit("status_changed", 60, 12, 90, fields={"status": "open"}),
        comment(9, 60, update_id="audit:12", identity="audit:12:9", received_at=at(90)),
    ]

    found = {cases.basis(fold_all(order)) for order in itertools.islice(itertools.permutations(ways), 0, 5040, 7)}

    assert found == {_said(9, 60)}


def test_a_reopening_without_a_message_is_a_basis_of_its_own() -> None:
    solved = change("status_changed", 30, author="staff", fields={"status": "solved"})
    opened = change("status_changed", 60, fields={"status": "open"})

    case = folded(created(), opened, solved)

    assert cases.basis(case) == basis_of(version_of(at(60)), "reopened")
    assert cases.asked(case) is None
    assert cases.asked_at(case) == at(60)
    assert cases.awaits_answer(case)


@pytest.mark.parametrize(
    ("solved_first", "author"), [(False, "customer"), (True, "ours")], ids=["was never solved", "opened by us"]
)
def test_other_turns_of_the_status_are_no_reopening(solved_first: bool, author: str) -> None:  # noqa: FBT001  # a parameter of the table
    before = change("status_changed", 30, author="staff", fields={"status": "solved" if solved_first else "pending"})
    opened = change("status_changed", 60, author=author, fields={"status": "open"})

    assert cases.basis(folded(created(), before, opened)) == basis_of(version_of(at(0)), "description")


def test_a_message_that_comes_after_its_status_sibling_has_the_later_basis() -> None:
    solved = change("status_changed", 30, author="staff", fields={"status": "solved"})
    opened = change("status_changed", 60, fields={"status": "open"})

    early = cases.basis(folded(created(), solved, opened)) or ""
    whole = cases.basis(folded(created(), solved, opened, comment(9, 60))) or ""

    assert whole == _said(9, 60)
    assert whole > early


@pytest.mark.parametrize(
    "answer",
    [comment(9, 60, author="staff", fields=STAFF), comment(9, 60, author="ours", fields=OURS)],
    ids=["staff", "ours"],
)
def test_a_public_answer_ends_the_wait_until_the_customer_writes_again(answer: CaseChanged) -> None:
    answered = folded(created(), answer)

    assert not cases.awaits_answer(answered)
    assert cases.replied(answered)
    assert cases.awaits_answer(folded(created(), answer, comment(10, 61)))


def test_an_internal_note_answers_nobody() -> None:
    note = comment(9, 60, author="staff", fields={**STAFF, "comment_public": False})

    assert cases.awaits_answer(folded(created(), note))
    assert not cases.replied(folded(created(), note))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("merged", "merged"),
        ("soft_deleted", "deleted"),
        ("marked_as_spam", "spam"),
        ("permanently_deleted", "deleted"),
    ],
)
def test_a_ticket_that_is_gone_awaits_nothing_until_it_comes_back(kind: str, why: str) -> None:
    ended = change(kind, 60, author="staff")
    later = change("tags_changed", 70, author="staff", fields={"status": "open"})
    back = change("undeleted", 80, author="staff")

    gone = folded(created(), later, ended)

    assert (cases.gone(gone), cases.awaits_answer(gone), cases.is_open(gone)) == (why, False, False)
    assert cases.gone(folded(created(), back, later, ended)) is None


def _deleted_and_back(*more: CaseChanged) -> tuple[CaseChanged, ...]:
    """Deleted at 60 s and restored at 80 s."""
    return created(), change("soft_deleted", 60, author="staff"), change("undeleted", 80, author="staff"), *more


def test_a_question_in_a_ticket_that_came_back_is_asked_anew_and_is_as_old_as_before() -> None:
    found = {cases.basis(fold_all(order)) for order in itertools.permutations(_deleted_and_back())}
    case = folded(*_deleted_and_back())

    assert found == {basis_of(version_of(at(80)), "restored")}
    assert (cases.asked_at(case), cases.awaits_answer(case)) == (at(0), True)
    assert [c.id for c in cases.unanswered(case)] == ["description"]
    assert cases.asked(case) is not None


def test_a_ticket_that_came_back_is_read_before_it_is_answered() -> None:
    read = _audit("read", 80, 12, 90)

    assert cases.needs_reading(folded(*_deleted_and_back()))
    assert not cases.needs_reading(folded(*_deleted_and_back(read)))


@pytest.mark.parametrize(
    "dealt_with",
    [
        comment(9, 30, author="staff", fields=STAFF),
        comment(9, 30, author="ours", fields=OURS),
        change("status_changed", 30, author="staff", fields={"status": "solved"}),
    ],
)
def test_a_ticket_that_came_back_and_was_dealt_with_before_awaits_nothing(dealt_with: CaseChanged) -> None:
    case = folded(*_deleted_and_back(dealt_with))

    assert cases.basis(case) == basis_of(version_of(at(0)), "description")
    assert not cases.awaits_answer(case)


def test_the_answer_after_a_return_is_the_last_word_and_the_next_question_a_basis_of_its_own() -> None:
    answered = folded(*_deleted_and_back(comment(9, 90, author="ours", fields=OURS)))
    again = folded(*_deleted_and_back(comment(9, 90, author="ours", fields=OURS), comment(10, 95)))

    assert (cases.basis(answered), cases.awaits_answer(answered)) == (basis_of(version_of(at(80)), "restored"), False)
    assert (cases.basis(again), cases.awaits_answer(again)) == (_said(10, 95), True)


def test_a_reopened_ticket_that_came_back_is_asked_anew() -> None:
    case = folded(
        created(),
        comment(9, 20, author="staff", fields=STAFF),
        change("status_changed", 30, author="staff", fields={"status": "solved"}),
        change("status_changed", 40, fields={"status": "open"}),
        change("soft_deleted", 60, author="staff"),
        change("undeleted", 80, author="staff"),
    )

    assert cases.basis(case) == basis_of(version_of(at(80)), "restored")
    assert (cases.asked(case), cases.asked_at(case)) == (None, at(40))


def test_a_closed_ticket_awaits_nothing() -> None:
    closed = folded(created(), change("status_changed", 60, author="system", fields={"status": "closed"}))

    assert (cases.gone(closed), cases.awaits_answer(closed)) == ("closed", False)


@pytest.mark.parametrize(("solved_at", "waits"), [(60, True), (61, False)])
def test_what_somebody_solved_after_the_message_awaits_nothing(solved_at: float, *, waits: bool) -> None:
    solved = change("status_changed", solved_at, author="staff", fields={"status": "solved"})

    assert cases.awaits_answer(folded(created(), comment(9, 60), solved)) is waits


def test_a_ticket_known_by_hints_alone_counts_as_older_than_any_door() -> None:
    hint = change("trigger", 60, hint=True)

    assert cases.opened_at(folded(hint)) < at(-(10**8))
    assert cases.opened_at(folded(hint, change("status_changed", 70, fields={"status": "open"}))) == at(60)
    assert cases.opened_at(folded(hint, created(seconds=30))) == at(30)


def test_a_hint_needs_a_read_that_came_after_it() -> None:
    hint = change("trigger", 60, hint=True, fields={"status": "closed"}, received_at=at(62))
    stale, fresh = (_audit("created", 0, 7, seconds) for seconds in (61, 62))

    assert cases.needs_reading(folded(hint))
    assert cases.needs_reading(folded(created(), hint, stale))
    assert not cases.needs_reading(folded(created(), hint, fresh))
    assert folded(created(), hint).value("status") == "new"


def test_a_tie_between_two_updates_needs_a_read_and_the_audits_order_decides() -> None:
    one = change("status_changed", 60, update_id="u1", fields={"status": "pending"})
    two = change("status_changed", 60, update_id="u2", fields={"status": "open"})
    audits = [
        _audit("status_changed", 60, 99, 90, author="staff", fields={"status": "open"}),
        _audit("status_changed", 60, 100, 90, author="staff", fields={"status": "pending"}),
    ]

    tied = folded(created(), one, two)
    read = folded(*audits, created(), two, one)

    assert cases.needs_reading(tied)
    assert not cases.needs_reading(read)
    assert read.value("status") == "pending"


def test_siblings_and_updates_that_agree_are_no_tie() -> None:
    sibling = change("tags_changed", 60, update_id="u1", position=1, fields={"status": "open"})
    one = change("status_changed", 60, update_id="u1", fields={"status": "pending"})
    two = change("status_changed", 60, update_id="u2", fields={"status": "open"})

    assert not cases.needs_reading(folded(created(), one, sibling))
    assert not cases.needs_reading(folded(created(), sibling, two))


def test_a_message_without_its_text_needs_a_read() -> None:
    bare = comment(9, 60, None)
    read = comment(9, 60, "the text", update_id="audit:9", identity="audit:9:9", received_at=at(90))

    assert cases.needs_reading(folded(created(), bare))
    assert not cases.needs_reading(folded(created(), bare, read))


def test_every_unanswered_message_needs_its_text() -> None:
    bare, newer, answer = comment(9, 60, None), comment(10, 70), comment(11, 80, author="ours", fields=OURS)

    assert cases.needs_reading(folded(created(), bare, newer))
    assert not cases.needs_reading(folded(created(), bare, newer, answer))


def test_a_comment_that_may_be_internal_needs_a_read() -> None:
    staff = comment(9, 60, author="staff", fields={**STAFF, "comment_public": ""})

    assert cases.needs_reading(folded(created(), staff))
    assert cases.awaits_answer(folded(created(), staff))


@pytest.mark.parametrize(
    "stamp", ["yesterday", "", "2026-13-40", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]
)
def test_a_malformed_time_never_stops_a_case(stamp: str) -> None:
    case = folded(created(fields={"created_at": stamp, "comment_created_at": stamp}))

    assert cases.opened_at(case) == cases.asked_at(case) == at(0)


def test_a_status_that_is_told_late_looks_like_a_reopening_until_the_ticket_is_read() -> None:
    solved = change("status_changed", 30, author="staff", fields={"status": "solved"})
    reply, told_late = comment(9, 60), change("status_changed", 66, fields={"status": "open"})
    read = _audit("status_changed", 60, 12, 90, fields={"status": "open"})

    assert cases.basis(folded(created(), solved, reply, told_late)) == basis_of(version_of(at(66)), "reopened")
    assert cases.needs_reading(folded(created(), solved, reply, told_late))
    assert cases.basis(folded(created(), solved, reply, told_late, read)) == _said(9, 60)


def test_an_unexplained_reopening_needs_a_read() -> None:
    solved = change("status_changed", 30, author="staff", fields={"status": "solved"})
    opened = change("status_changed", 60, fields={"status": "open"})

    assert cases.needs_reading(folded(created(), solved, opened))
    assert not cases.needs_reading(folded(created(), solved, opened, _audit("status_changed", 60, 12, 90)))


def test_a_plain_ticket_needs_no_read() -> None:
    assert not cases.needs_reading(folded(created(), comment(9, 60)))


def test_texts_are_sealed_until_they_are_revealed() -> None:
    sealed, clear = folded(created("my parcel")), revealed(created("my parcel"))

    assert "parcel" not in sealed.model_dump_json()
    assert (clear.text("subject"), clear.comments[0].text) == ("A question", "my parcel")
    assert cases.basis(clear) == cases.basis(sealed)
