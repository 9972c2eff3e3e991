"""What an hour's intake comes to beside the provider's own list."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from connectors.protocol import Part, Update
from services.ingest.domain.reconciliation import (
    NEAR,
    REACH,
    Compared,
    Heard,
    Hour,
    compare,
    is_short,
    not_had,
    refused,
    seen,
)

T = datetime(2026, 11, 25, 6, 0, 0, tzinfo=UTC)
EVERY = timedelta(minutes=5)
KINDS = ("created", "comment_added", "status_changed", "tags_changed", "soft_deleted")


def update(name: str, *kinds: str, at: datetime = T, object_id: str = "42", comment_id: str | None = None) -> Update:
    parts = [Part(frozenset({kind}), comment_id if kind == "comment_added" else None) for kind in kinds]
    return Update(object_id=object_id, update_id=name, at=at, parts=parts)


def told(kind: str, *, at: datetime = T, object_id: str = "42", comment_id: str | None = None) -> Heard:
    return Heard(object_id, kind, at, comment_id)


def missing(updates: Sequence[Update], heard: Sequence[Heard], kinds: Sequence[str] = KINDS) -> list[str]:
    return [one.update_id for one in compare(updates, heard, kinds).missing]


def test_an_update_is_missing_until_each_of_its_parts_was_told() -> None:
    listed = [update("a", "comment_added", "status_changed", comment_id="7")]
    comment, status = told("comment_added", comment_id="7"), told("status_changed")

    assert missing(listed, []) == missing(listed, [comment]) == missing(listed, [status]) == ["a"]
    assert missing(listed, [comment, status]) == []


@pytest.mark.parametrize(
    ("heard", "short"),
    [
        ([told("status_changed")], False),
        ([told("status_changed", at=T + NEAR)], False),
        ([told("status_changed", at=T + NEAR + timedelta(seconds=1))], True),
        ([told("status_changed", object_id="43")], True),
        ([told("comment_added", at=T + timedelta(minutes=9), comment_id="7")], False),
        ([told("comment_added", at=T + timedelta(minutes=9), comment_id="8")], True),
        ([told("priority_changed", object_id="43")], False),
        ([told("status_changed", object_id="43")._replace(hint=True)], False),
        ([told("status_changed", object_id="43", at=T - timedelta(minutes=1))], False),
        ([told("status_changed", object_id="43", at=T + timedelta(minutes=58))], False),
        ([told("status_changed", object_id="43"), told("permanently_deleted", object_id="43")], False),
    ],
)
def test_a_list_is_short_that_lacks_what_webhooks_told_of_its_span(heard: Sequence[Heard], *, short: bool) -> None:
    listed = [update("a", "comment_added", "status_changed", comment_id="7")]
    span = {"since": T - NEAR, "until": T + timedelta(minutes=58)}

    assert is_short(listed, heard, KINDS, **span) is short


def test_one_change_tells_one_update() -> None:
    listed = [update("a", "status_changed"), update("b", "status_changed", at=T + timedelta(minutes=1))]

    assert missing(listed, [told("status_changed")]) == ["b"]
    assert missing(listed, [told("status_changed", at=T + timedelta(minutes=1))]) == ["a"]


def test_a_comment_is_told_by_its_own_id_and_by_no_other_comment_of_its_second() -> None:
    listed = [update("a", "comment_added", comment_id="7"), update("b", "comment_added", comment_id="8")]

    assert missing(listed, [told("comment_added", comment_id="8")]) == ["a"]


def test_a_change_near_its_update_tells_it_and_a_farther_one_does_not() -> None:
    listed = [update("a", "status_changed")]

    assert missing(listed, [told("status_changed", at=T + NEAR)]) == []
    assert missing(listed, [told("status_changed", at=T + NEAR + timedelta(seconds=1))]) == ["a"]


def test_a_near_change_is_left_to_the_update_that_has_none_of_its_second() -> None:
    later = T + timedelta(seconds=2)
    listed = [update("a", "status_changed"), update("b", "status_changed", at=later)]
    heard = [told("status_changed", at=later + timedelta(seconds=2)), told("status_changed")]

    assert missing(listed, heard) == []


def test_of_two_updates_alike_in_one_second_nobody_can_tell_which_was_told() -> None:
    listed = [update("a", "status_changed"), update("b", "status_changed")]

    found = compare(listed, [told("status_changed")], KINDS)

    assert len(found.missing) == 1
    assert {one.update_id for one in (*found.missing, *found.doubtful)} == {"a", "b"}


def test_another_ticket_tells_nothing() -> None:
    assert missing([update("a", "created")], [told("created", object_id="43")]) == ["a"]


def test_a_hint_tells_everything_up_to_its_moment_since_the_ticket_is_read_for_it() -> None:
    hint = Heard("42", "trigger", T, hint=True)

    assert missing([update("a", "comment_added", "status_changed", comment_id="7")], [hint]) == []
    assert missing([update("b", "status_changed", at=T + timedelta(seconds=1))], [hint]) == ["b"]


def test_kinds_that_nobody_asked_for_are_neither_listed_nor_missing() -> None:
    found = compare([update("a", "priority_changed"), update("b", "tags_changed")], [], ["tags_changed"])

    assert (found.listed, [one.update_id for one in found.missing]) == (1, ["b"])


def test_any_of_the_kinds_of_a_part_tells_it() -> None:
    gone = Update(object_id="42", update_id="a", at=T, parts=[Part(frozenset({"soft_deleted", "marked_as_spam"}))])

    assert missing([gone], [told("marked_as_spam")]) == []
    assert missing([gone], []) == ["a"]


@pytest.mark.parametrize("lost", range(0, 1000, 97))
def test_one_lost_webhook_of_a_thousand_is_found_whichever_it_is(lost: int) -> None:
    listed, heard = [], []
    for number in range(500):  # a comment and a status each
        at = T + timedelta(seconds=number * 7)
        ticket, comment_id = str(number % 40), str(number)
        kinds = ("comment_added", "status_changed")
        listed.append(update(f"audit:{number}", *kinds, at=at, object_id=ticket, comment_id=comment_id))
        heard += [told(kind, at=at, object_id=ticket, comment_id=comment_id) for kind in kinds]

    assert missing(listed, heard) == []
    assert missing(listed, heard[:lost] + heard[lost + 1 :]) == [f"audit:{lost // 2}"]


HOUR = Hour(hour=T, since=T)
ALL_HEARD = Compared(listed=5, digest="d", missing=(), doubtful=())
ONE_MISSING = replace(ALL_HEARD, missing=(update("a", "created"),))


def looked(hour: Hour, compared: Compared, minutes: float, *, outstanding: int = 0, whole: bool = True) -> Hour:
    """A look so many minutes after the hour's end."""
    now = T + timedelta(minutes=60 + minutes)
    return seen(hour, compared, outstanding=outstanding, whole=whole, now=now, every=EVERY)


def test_an_hour_is_complete_once_its_list_has_not_changed_for_three_looks() -> None:
    hour = HOUR
    states = []
    for minutes in (2, 7, 12, 16.9, 17):
        hour = looked(hour, ALL_HEARD, minutes)
        states.append((hour.state, hour.settled))

    assert states == [*[("open", False)] * 4, ("complete", True)]


def test_a_list_that_still_grows_is_not_settled() -> None:
    hour = looked(HOUR, ALL_HEARD, 2)
    hour = looked(hour, replace(ALL_HEARD, digest="another", listed=6), 12)

    assert looked(hour, replace(ALL_HEARD, digest="another", listed=6), 17).state == "open"
    assert looked(hour, replace(ALL_HEARD, digest="another", listed=6), 27).state == "complete"


def test_what_is_missing_is_said_at_once_and_the_mark_stays_when_it_was_taken_in() -> None:
    found = looked(HOUR, ONE_MISSING, -30, outstanding=1, whole=False)
    mended = looked(found, ONE_MISSING, -30, whole=False)
    settled = looked(looked(mended, ONE_MISSING, 2), ONE_MISSING, 17)

    assert (found.state, mended.state) == ("missing", "backfilled")
    assert (settled.state, settled.settled, settled.missing) == ("backfilled", True, 1)


def test_an_hour_with_something_missing_never_settles() -> None:
    hour = looked(HOUR, ONE_MISSING, 2, outstanding=1)

    assert not looked(hour, ONE_MISSING, 600, outstanding=1).settled


def test_an_hour_whose_list_cannot_be_had_is_unknown_and_not_complete() -> None:
    def after(minutes: float, hour: Hour = HOUR) -> Hour:
        return not_had(hour, "forbidden", now=T + timedelta(minutes=60 + minutes), every=EVERY)

    assert after(29.9) == HOUR
    assert (after(30).state, after(30).code, after(30).settled) == ("unknown", "forbidden", False)


def test_an_unknown_hour_is_judged_once_the_list_is_there() -> None:
    unknown = not_had(HOUR, "forbidden", now=T + timedelta(hours=2), every=EVERY)

    first = looked(unknown, ALL_HEARD, 70)
    settled = looked(first, ALL_HEARD, 85)

    assert (first.state, first.code) == ("unknown", "forbidden")
    assert (settled.state, settled.code, settled.settled) == ("complete", None, True)


def test_looks_before_and_after_an_outage_of_the_list_do_not_add_up() -> None:
    before = looked(HOUR, ALL_HEARD, 2)
    unknown = not_had(before, "unavailable", now=T + timedelta(hours=2), every=EVERY)

    assert looked(unknown, ALL_HEARD, 70).state == "unknown"


def test_what_is_known_to_be_missing_is_not_hidden_behind_unknown() -> None:
    hour = looked(HOUR, ONE_MISSING, 2, outstanding=1)

    assert not_had(hour, "unavailable", now=T + timedelta(hours=9), every=EVERY) == hour


def vain(hour: Hour, age: timedelta) -> Hour:
    """A look at that age at which its own list is refused."""
    return refused(hour, "rejected", now=hour.end + age, every=EVERY)


def test_an_hour_whose_own_list_is_refused_is_asked_for_more_and_more_rarely() -> None:
    ages = [timedelta(minutes=40), timedelta(minutes=48), timedelta(hours=8)]
    due = [vain(HOUR, age).due_at for age in ages]

    assert due == [None, HOUR.end + timedelta(minutes=54), HOUR.end + timedelta(hours=9)]
    assert looked(vain(HOUR, timedelta(hours=8)), ALL_HEARD, 540).due_at is None


def test_an_hour_whose_own_list_is_refused_stays_unknown_or_missing_for_good_once_it_is_old() -> None:
    lacking = looked(HOUR, ONE_MISSING, 2, outstanding=1)
    before, old = REACH - timedelta(seconds=1), REACH

    assert [vain(HOUR, age).settled for age in (before, old)] == [False, True]
    assert (vain(HOUR, old).state, vain(HOUR, old).code) == ("unknown", "rejected")
    assert (vain(lacking, old).state, vain(lacking, old).settled) == ("missing", True)


def test_an_old_hour_whose_list_cannot_be_had_in_an_outage_is_asked_for_again() -> None:
    hour = not_had(HOUR, "server_error", now=HOUR.end + 2 * REACH, every=EVERY)

    assert (hour.state, hour.settled, hour.due_at) == ("unknown", False, None)


def test_an_hour_with_something_missing_comes_after_those_that_were_not_asked_for() -> None:
    assert looked(HOUR, ONE_MISSING, 2, outstanding=1).due_at == HOUR.end + timedelta(minutes=2)
    assert looked(HOUR, ONE_MISSING, -30, outstanding=1, whole=False).due_at is None


def test_only_news_is_said() -> None:
    found = looked(HOUR, ONE_MISSING, 2, outstanding=1)

    assert looked(HOUR, ALL_HEARD, 2).word() == HOUR.word()
    assert looked(found, ONE_MISSING, 7, outstanding=1).word() == found.word() != HOUR.word()
