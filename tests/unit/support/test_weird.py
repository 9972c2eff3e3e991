"""The cases that no specification mentions: each file of weird/ is one, from the changes to what is sent."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.basis import version_of
from contracts.decision import verdict_of
from contracts.events.cases import CaseChanged
from processes.support import effects, rules
from tests.unit.support.tickets import circumstances, facts, policy, proposal, revealed, sealed

FOLDER = Path(rules.__file__).parent / "weird"
FILES = sorted(FOLDER.glob("*.json"))


def _change(number: int, told: dict[str, Any]) -> CaseChanged:
    moment = datetime.fromisoformat(told["at"])
    return CaseChanged.model_validate(
        {
            "door": "zendesk",
            "object_id": "42",
            "identity": f"change-{number}",
            "version": version_of(moment),
            "update_id": f"update-{number}",
            "occurred_at": moment,
            "received_at": moment,
            **{name: value for name, value in told.items() if name not in ("at", "texts")},
            "texts": {name: sealed(_written(text)) for name, text in told.get("texts", {}).items()},
        }
    )


def _written(text: str | dict[str, Any]) -> str:
    return text if isinstance(text, str) else text["repeat"] * text["times"]


def _holds(expected: Any, found: Any) -> bool:
    """Whether everything that is expected is found; an object may hold more."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            name in found and _holds(value, found[name]) for name, value in expected.items()
        )
    return bool(expected == found)


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_weird(file: Path) -> None:
    told = json.loads(file.read_text())
    case = revealed(*(_change(number, change) for number, change in enumerate(told["changes"])))
    limits, read, suggested = (
        policy(**told.get("policy", {})),
        facts(**told.get("facts", {})),
        proposal(**told.get("proposal", {})),
    )
    now, around = datetime.fromisoformat(told["now"]), circumstances(**told.get("circumstances", {}))

    decision = rules.decide(case, read, suggested, limits, now, around)
    sent = [*effects.requests(case, read, suggested, decision, told["modes"], limits)]
    if verdict_of(decision) in ("hold", "refuse"):
        sent += effects.handover(case, suggested, decision.reasons, limits)

    expected = told["expected"]
    assert verdict_of(decision) == expected["verdict"]
    assert [reason.code for reason in decision.reasons] == expected["reasons"]
    assert [request.kind for request in sent] == [request["kind"] for request in expected["requests"]]
    assert all(
        _holds(wanted, found.model_dump(mode="json")) for wanted, found in zip(expected["requests"], sent, strict=True)
    )


def test_there_are_at_least_twenty_and_each_says_why() -> None:
    told = [json.loads(file.read_text()) for file in FILES]

    assert len(told) >= 20
    assert all(case["title"] and case["why"].endswith(".") for case in told)
    assert len({case["title"] for case in told}) == len(told)
