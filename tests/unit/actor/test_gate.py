from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.decision import Hold, Ignore
from services.actor.domain.gate import Situation, before_rules

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


def situation(**other: Any) -> Situation:
    told: dict[str, Any] = {
        "basis": "2|b",
        "newest_basis": "2|b",
        "awaits_answer": True,
        "already_decided": False,
        "opened_at": NOW,
        "asked_at": NOW - timedelta(hours=24),
        "start_at": NOW,
        "max_age": timedelta(hours=24),
        "now": NOW,
        "held": False,
    }
    return Situation(**(told | other))


def test_an_ordinary_proposal_is_left_to_the_rules() -> None:
    assert before_rules(situation()) is None


@pytest.mark.parametrize(
    ("changed", "kind", "code"),
    [
        ({"newest_basis": "3|c"}, Ignore, "stale_basis"),
        ({"newest_basis": None}, Ignore, "stale_basis"),
        ({"newest_basis": "1|a"}, Hold, "basis_gone"),
        ({"newest_basis": "1|a", "awaits_answer": False}, Ignore, "stale_basis"),
        ({"already_decided": True}, Ignore, "already_decided"),
        ({"opened_at": NOW - timedelta(seconds=1)}, Ignore, "before_start"),
        ({"asked_at": NOW - timedelta(hours=24, seconds=1)}, Hold, "too_old"),
        ({"held": True}, Hold, "case_held"),
        ({"opened_at": NOW - timedelta(seconds=1), "held": True}, Ignore, "before_start"),
    ],
)
def test_what_no_rule_may_widen(changed: dict[str, Any], kind: type[Hold | Ignore], code: str) -> None:
    settled = before_rules(situation(**changed))

    assert isinstance(settled, kind)
    assert [reason.code for reason in settled.reasons] == [code]
