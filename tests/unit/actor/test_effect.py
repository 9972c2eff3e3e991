from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.decision import Action, Reason, Request
from services.actor.domain import effect
from services.actor.domain.effect import Standing

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
REQUEST = Request(kind="reply", connector="desk", object_id="1", semantics="conditional", body={"b": 1, "a": "é"})


def standing(**other: Any) -> Standing:
    told: dict[str, Any] = {
        "kind": "reply",
        "basis": "2|b",
        "newest_basis": "2|b",
        "now": NOW,
        "asked_at": NOW - timedelta(hours=1),
        "max_age": timedelta(hours=1),
        "approval_state": None,
        "granted": {"reply": "draft"},
        "modes": {"reply": "draft"},
        "effects_last_hour": 3,
        "effects_max": 4,
        "dead_letter_open": False,
        "held": False,
        "refusal": None,
    }
    return Standing(**(told | other))


def code(**other: Any) -> str | None:
    reason = effect.why_not(standing(**other))
    return None if reason is None else reason.code


def test_what_still_holds_may_go() -> None:
    assert code() is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"newest_basis": "3|c"}, "newer_basis"),
        ({"newest_basis": "1|a"}, "basis_gone"),
        ({"modes": {"reply": "watch"}}, "mode_lowered"),
        ({"modes": {}}, "mode_lowered"),
        ({"modes": {"reply": "act"}}, None),
        ({"effects_last_hour": 4}, "effects_per_hour"),
        ({"approval_state": "approved"}, None),
        ({"approval_state": "superseded"}, "approval_invalid"),
        ({"asked_at": NOW - timedelta(hours=1, seconds=1)}, "too_old"),
        ({"dead_letter_open": True}, "dead_letter_open"),
        ({"held": True}, "case_held"),
        ({"refusal": Reason(code="taken", text="t")}, "taken"),
    ],
)
def test_each_change_since_the_plan_is_seen(changed: dict[str, Any], expected: str | None) -> None:
    assert code(**changed) == expected


def test_a_handover_goes_whatever_became_of_the_case_but_only_one_beyond_the_limit() -> None:
    handover = {
        "kind": "handover",
        "granted": {"handover": "act"},
        "modes": {"handover": "act"},
        "newest_basis": "3|c",
        "held": True,
        "dead_letter_open": True,
    }

    assert code(**handover, effects_last_hour=4) is None
    assert code(**handover, effects_last_hour=5) == "effects_per_hour"
    assert code(**(handover | {"modes": {"handover": "watch"}})) == "mode_lowered"


@pytest.mark.parametrize(
    ("semantics", "may_repeat", "setting", "can_read_back", "expected"),
    [
        ("conditional", False, "read_back", True, "read_back"),
        ("conditional", False, "person", True, "person"),
        ("conditional", False, "resend", False, "person"),
        ("idempotent", False, "read_back", True, "read_back"),
        ("idempotent", False, "read_back", False, "resend"),
        ("blind", False, "read_back", True, "person"),
        ("blind", False, "person", False, "person"),
        ("blind", False, "resend", False, "resend"),
        ("blind", True, "person", False, "resend"),
    ],
)
def test_only_what_can_be_told_apart_or_may_repeat_is_sent_again(
    semantics: str, setting: effect.AfterUnknown, expected: str, *, may_repeat: bool, can_read_back: bool
) -> None:
    found = effect.after_unknown(
        semantics=semantics, may_repeat=may_repeat, setting=setting, can_read_back=can_read_back
    )

    assert found == expected


def test_an_approval_covers_basis_requests_and_their_order() -> None:
    other = REQUEST.model_copy(update={"body": {"b": 2}})
    digests = {
        effect.approval_digest("2|b", [REQUEST]),
        effect.approval_digest("3|c", [REQUEST]),
        effect.approval_digest("2|b", [other]),
        effect.approval_digest("2|b", [REQUEST, other]),
        effect.approval_digest("2|b", [other, REQUEST]),
    }

    assert len(digests) == 5


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    turned = REQUEST.model_copy(update={"body": {"a": "é", "b": 1}})

    assert effect.digest_of(turned) == effect.digest_of(REQUEST)


def test_an_effect_relies_on_the_actions_behind_it() -> None:
    actions = [Action(name="reply"), Action(name="refund"), Action(name="tag")]

    granted = effect.granted_modes(actions, {"reply": "act", "refund": "draft", "tag": "watch", "route": "act"})

    assert granted == {"reply": "act", "refund": "draft"}


@pytest.mark.parametrize(
    ("body", "mode"),
    [
        ({"ticket": {"comment": {"body": "b", "public": True}}}, "act"),
        ({"ticket": {"comment": {"body": "b", "public": False}}}, "draft"),
        ({"parts": [{"public": True}]}, "act"),
        ({"text": "public: true"}, "draft"),
    ],
)
def test_what_the_customer_sees_is_told_by_the_body(body: dict[str, Any], mode: str) -> None:
    request = REQUEST.model_copy(update={"body": body})

    assert effect.is_public(request) == (mode == "act")
    assert effect.mode_of(request, {"reply": "act", "refund": "draft"}) == mode


def test_an_effect_that_no_action_grants_goes_nowhere() -> None:
    assert effect.mode_of(REQUEST, {}) == "watch"


def looked_at(seen_within_seconds: float) -> list[float]:
    """The seconds, since it was acknowledged, of each look that finds nothing."""
    at, looks = [effect.SETTLED_SECONDS], 1
    while True:
        wait = effect.look_again_seconds(looks, waited_seconds=at[-1], seen_within_seconds=seen_within_seconds)
        if wait is None:
            return at
        at.append(at[-1] + wait)
        looks += 1


@pytest.mark.parametrize(
    ("seen_within_seconds", "at"),
    [(2, [2]), (3, [2, 3]), (30, [2, 4, 8, 16, 30]), (32, [2, 4, 8, 16, 32]), (33, [2, 4, 8, 16, 32, 33])],
)
def test_what_was_acknowledged_is_looked_for_ever_more_seldom_and_last_at_the_limit(
    seen_within_seconds: float, at: list[float]
) -> None:
    assert looked_at(seen_within_seconds) == at


def test_after_an_hour_without_looks_the_second_one_decides() -> None:
    def again(looks: int) -> float | None:
        return effect.look_again_seconds(looks, waited_seconds=3600, seen_within_seconds=30)

    assert (again(0), again(1), again(2)) == (1, 2, None)
