"""Which cases of the log a person put right."""

import pytest

from nightshift.evals.from_log import Correction, corrections_of
from services.reporter.domain.log import history_of
from tests.unit.reporter.night import Story, tell


def corrected(ending: str) -> list[str]:
    return [one.why for one in corrections_of(history_of(tell("1", ending)))]


@pytest.mark.parametrize(
    ("ending", "whys"),
    [
        ("denied", ["kim said no: too much"]),
        ("staff", ["staff answered"]),
        ("answered", []),
        ("approval", []),
        ("refused", []),
        ("waiting", []),
        ("dead_letter", []),
    ],
)
def test_a_proposal_is_put_right_by_a_no_or_by_an_answer_of_staff(ending: str, whys: list[str]) -> None:
    assert corrected(ending) == whys


def answer_after(story: Story, text: str) -> str:
    change = story.changes("comment_added", text, "staff", comment_public=True)
    body: str = change.data.texts["body"]  # type: ignore[attr-defined]  # it is a change
    return body


def test_an_answer_of_staff_belongs_to_the_question_before_it() -> None:
    story = Story("1")
    story.opens()
    story.proposes()
    first = story.basis
    story.asks_again()
    story.proposes("refund")
    body = answer_after(story, "Here it is.")

    [correction] = corrections_of(history_of(story.events))

    assert correction == Correction(correction.made, "staff answered", body)
    assert (correction.made.label, correction.made.basis > first) == ("refund", True)


def test_what_staff_notes_for_themselves_answers_nobody() -> None:
    story = Story("1")
    story.opens()
    story.proposes()
    story.changes("comment_added", "Looks odd.", "staff", comment_public=False)

    assert corrections_of(history_of(story.events)) == []
