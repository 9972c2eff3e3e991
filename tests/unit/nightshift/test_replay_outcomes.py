"""Equal decisions have equal digests, whoever made them and when; a difference has one name."""

from dataclasses import replace
from typing import Any

import pytest

from contracts.decision import Action, Decision, Execute, Hold, Ignore, Reason, Refuse, Request, decision_digest
from nightshift.replay.decisions import Verdict
from services.actor.domain.difference import difference_of

UNSURE = Reason(code="low_confidence", text="Not certain enough.")
REPLY, TAG = Action(name="reply"), Action(name="tag", params={"tag": "a", "of": "b"})
SENT = Request(kind="reply", connector="none", object_id="1", semantics="conditional", body={"body": "Hello \ud800"})


def test_a_digest_does_not_depend_on_the_order_of_names_and_holds_every_part() -> None:
    decided = Hold(reasons=(UNSURE,), actions=(REPLY, TAG))
    turned = replace(decided, actions=(REPLY, Action(name="tag", params={"of": "b", "tag": "a"})))
    others: list[tuple[Decision, tuple[Request, ...]]] = [
        (Execute(reasons=(UNSURE,), actions=(REPLY, TAG)), (SENT,)),
        (replace(decided, actions=(TAG, REPLY)), (SENT,)),
        (replace(decided, reasons=()), (SENT,)),
        (decided, ()),
        (decided, (SENT.model_copy(update={"body": {"body": "Hello"}}),)),
        (Refuse(reasons=(UNSURE,)), ()),
        (Ignore(reasons=(UNSURE,)), ()),
    ]

    digest = decision_digest(decided, (SENT,))

    assert digest == decision_digest(turned, (SENT,))
    assert len({digest, *(decision_digest(*other) for other in others)}) == len(others) + 1


def test_the_definition_of_the_digest_stays_what_recorded_decisions_were_made_by() -> None:
    assert decision_digest(Hold(reasons=(UNSURE,), actions=(REPLY,)), ()) == (
        "a7b44b5a65c6ebe0c55981f528a5525ce7b63a52258687994821eff8fd00e914"
    )


def verdict(word: str, **parts: Any) -> Verdict:
    return Verdict(verdict=word, digest=f"{word} {parts}", **parts)


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (verdict("hold"), verdict("hold"), "same"),
        (verdict("execute"), verdict("hold"), "stricter"),
        (verdict("hold"), verdict("refuse"), "stricter"),
        (verdict("hold"), verdict("none"), "stricter"),
        (verdict("hold"), verdict("execute"), "looser"),
        (verdict("ignore"), verdict("hold"), "looser"),
        (verdict("execute", actions=(REPLY,)), verdict("execute", actions=(REPLY, TAG)), "other actions"),
        (verdict("hold", reasons=(UNSURE,)), verdict("hold"), "other reasons"),
        (verdict("execute"), verdict("execute").model_copy(update={"digest": "of other words"}), "other requests"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.verdict,
)
def test_a_difference_has_one_name(before: Verdict, after: Verdict, outcome: str) -> None:
    assert difference_of(before, after) == outcome
