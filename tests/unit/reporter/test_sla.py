"""First reply: met, breached, waiting, not owed, and the events that prove it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from contracts.events.cases import Author
from services.reporter.domain.log import history_of
from services.reporter.domain.sla import Policy, sla_of
from services.reporter.domain.views import SlaRow
from tests.unit.reporter.night import POLICY, START, Story, records, told_by

HOUR = 3600.0


def verdict(story: Story, policy: Policy | None = POLICY) -> SlaRow:
    return sla_of(history_of(map(told_by, records(story.events))), policy)


def opened() -> Story:
    story = Story("1")
    story.opens()
    return story


@pytest.mark.parametrize(("seconds", "state"), [(HOUR, "met"), (HOUR + 0.000001, "breached")])
def test_an_automated_reply_counts_up_to_the_last_microsecond(seconds: float, state: str) -> None:
    story = opened()
    story.observes(after=seconds)

    row = verdict(story)

    assert (row.state, row.replied_by) == (state, "automated")
    assert row.evidence == (story.events[0].event_id, story.events[1].event_id)
    assert row.minutes == pytest.approx(seconds / 60)


@pytest.mark.parametrize(("seconds", "state"), [(HOUR, "met"), (HOUR + 0.000001, "breached")])
def test_a_reply_by_staff_counts_up_to_the_last_microsecond(seconds: float, state: str) -> None:
    story = opened()
    story.changes("comment_added", "Hello", "staff", after=seconds, comment_public=True)

    assert (verdict(story).state, verdict(story).replied_by) == (state, "staff")


def test_an_automated_reply_does_not_count_where_the_policy_says_so() -> None:
    strict = replace(POLICY, automated_reply_counts=False)
    story = opened()
    story.observes(after=60)
    assert verdict(story, strict).state == "waiting"

    story.changes("comment_added", "Hello", "staff", after=120, comment_public=True)
    assert (verdict(story, strict).state, verdict(story, strict).replied_by) == ("met", "staff")


@pytest.mark.parametrize(
    "say",
    [
        lambda s: s.changes("comment_added", "note", "staff", comment_public=False),
        lambda s: s.changes("comment_added", "again", "customer", comment_public=True),
        lambda s: s.changes("comment_added", "echo", "ours", comment_public=True),
        lambda s: s.observes(kind="handover", public=False),
        lambda s: s.attempts(),
        lambda s: s.acknowledges(),
    ],
    ids=["internal note", "customer", "unmatched echo", "hidden effect", "attempt", "acknowledgement"],
)
def test_what_is_no_observed_public_reply_does_not_count(say: Callable[[Story], object]) -> None:
    story = opened()
    say(story)

    row = verdict(story)

    assert (row.state, row.due_at) == ("waiting", START + timedelta(minutes=60))


def test_the_first_reply_counts_however_late_the_news_of_it_comes() -> None:
    story = opened()
    story.observes(after=2 * HOUR)
    late = Story("1")
    late.opens()
    early = late.changes("comment_added", "Hello", "staff", after=60, comment_public=True)
    story.events.append(early)

    assert verdict(story).state == "met"


@pytest.mark.parametrize("author", ["staff", "ours"])
def test_a_case_that_no_customer_opened_owes_no_reply(author: Author) -> None:
    story = Story("1")
    story.opens(author=author)

    assert (verdict(story).state, verdict(story).why) == ("not_applicable", f"opened_by_{author}")


@pytest.mark.parametrize(("later", "state"), [(0, "waiting"), (1, "not_applicable")])
def test_a_case_from_before_the_start_owes_no_reply(later: int, state: str) -> None:
    policy = replace(POLICY, start_at={"zendesk": START + timedelta(microseconds=later)})

    assert verdict(opened(), policy).state == state


def test_a_deleted_case_owes_no_reply_until_it_is_brought_back() -> None:
    story = opened()
    story.changes("soft_deleted", author="staff")
    assert verdict(story).why == "gone_without_reply"

    story.changes("undeleted", author="staff")
    assert verdict(story).state == "waiting"


def test_a_case_solved_without_a_reply_owes_none() -> None:
    story = opened()
    story.changes("status_changed", author="staff", status="solved")

    assert verdict(story).why == "closed_without_reply"


def test_a_case_whose_opening_nobody_told_is_judged_by_what_a_proposal_says() -> None:
    story = Story("1")
    story.changes("comment_added", "Hello?", comment_public=True)
    assert verdict(story).why == "opening_not_seen"

    story.proposes()
    told = replace(POLICY, opened_at=lambda _: START)
    assert verdict(story, told).state == "waiting"
    assert verdict(story, told).evidence == (story.events[-1].event_id,)


def test_without_a_policy_nothing_is_owed() -> None:
    assert verdict(opened(), None).why == "no_policy"
