"""GitHub's issues and comments become changes of cases; everything else it sends is taken and gives nothing."""

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.github import GitHub
from connectors.protocol import PlainChange
from contracts.failures import PermanentError

DATA = Path(__file__).parents[2] / "data" / "webhooks" / "github"
PAYLOADS = sorted(path.name for path in DATA.glob("*.*.*.json"))
ISSUES = [name for name in PAYLOADS if name.startswith("issue")]
NOW = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)


def payload_of(name: str) -> dict[str, object]:
    payload: dict[str, object] = orjson.loads((DATA / name).read_bytes())
    return payload


def changes_in(payload: object, *, our_login: str | None = None) -> list[PlainChange]:
    return list(GitHub(our_login=our_login).receive(payload, orjson.dumps(payload), NOW))


def test_all_public_payloads_are_here() -> None:
    assert len(PAYLOADS) == 67
    assert len(ISSUES) == 26


@pytest.mark.parametrize("name", ISSUES)
def test_an_issues_payload_is_one_change(name: str) -> None:
    payload: Any = payload_of(name)

    (change,) = changes_in(payload)

    assert change.object_id == f"{payload['repository']['full_name']}#{payload['issue']['number']}"
    assert change.opens == name.startswith("issues.opened")
    assert change.texts["subject"]
    assert change.version.endswith("Z")
    assert change.occurred_at.tzinfo is not None


@pytest.mark.parametrize("name", sorted(set(PAYLOADS) - set(ISSUES)))
def test_any_other_payload_gives_nothing(name: str) -> None:
    assert changes_in(payload_of(name)) == []


@pytest.mark.parametrize("payload", [None, [], "text", 7, {}, {"issue": {}}])
def test_what_is_no_event_gives_nothing(payload: object) -> None:
    assert changes_in(payload) == []


def test_what_the_body_does_not_hold_is_not_told() -> None:
    (pinned,) = changes_in(payload_of("issues.pinned.19.json"))
    (closed,) = changes_in(payload_of("issues.deleted.4.json"))

    assert "status" not in pinned.fields
    assert closed.fields["status"] == "closed"


def test_an_opened_issue_opens_a_case_with_its_words() -> None:
    (change,) = changes_in(payload_of("issues.opened.15.json"))

    assert (change.object_id, change.kind, change.opens) == ("Codertocat/Hello-World#1", "created", True)
    assert change.texts == {
        "subject": "Spelling error in the README file",
        "body": "It looks like you accidently spelled 'commit' with two 't's.",
    }
    assert change.fields["tags"] == ("bug",)
    assert change.fields["comment_id"] == "description"
    assert change.fields["is_pull_request"] is False


def test_a_comment_is_added_to_its_issue() -> None:
    (change,) = changes_in(payload_of("issue_comment.created.0.json"))

    assert (change.object_id, change.kind, change.opens) == ("Codertocat/Hello-World#1", "comment_added", False)
    assert change.fields["comment_id"] == "492700400"
    assert change.texts["body"].startswith("You are totally right!")


def test_a_redelivery_is_the_same_change() -> None:
    for name in ISSUES:
        payload = payload_of(name)
        assert [c.identity for c in changes_in(payload)] == [c.identity for c in changes_in(copy.deepcopy(payload))]


def test_different_changes_have_different_identities() -> None:
    payload = payload_of("issues.labeled.9.json")
    other = payload | {"label": {"name": "urgent"}}

    assert changes_in(payload)[0].identity != changes_in(other)[0].identity


@pytest.mark.parametrize(
    ("sender", "association", "author"),
    [
        ({"id": 21031067, "login": "Codertocat", "type": "User"}, "OWNER", "staff"),
        ({"id": 21031067, "login": "Codertocat", "type": "User"}, "NONE", "customer"),
        ({"id": 9, "login": "somebody", "type": "User"}, "NONE", "staff"),
        ({"id": 9, "login": "renovate[bot]", "type": "Bot"}, "NONE", "system"),
        ({"id": 9, "login": "nightshift", "type": "Bot"}, "NONE", "ours"),
    ],
)
def test_the_author_is_told_from_the_body(sender: dict[str, object], association: str, author: str) -> None:
    payload = payload_of("issue_comment.created.0.json")
    comment = payload["comment"]
    assert isinstance(comment, dict)
    payload |= {"sender": sender, "comment": comment | {"author_association": association}}

    assert changes_in(payload, our_login="nightshift")[0].author == author


def test_card_numbers_are_masked() -> None:
    payload = payload_of("issues.opened.15.json")
    issue = payload["issue"]
    assert isinstance(issue, dict)

    (change,) = changes_in(payload | {"issue": issue | {"body": "my card 4111 1111 1111 1111"}})

    assert change.texts["body"] == "my card [card ending 1111]"


def test_an_issue_that_cannot_be_understood_is_refused_without_its_words() -> None:
    payload = payload_of("issues.opened.15.json")
    issue = payload["issue"]
    assert isinstance(issue, dict)

    with pytest.raises(PermanentError) as refused:
        changes_in(payload | {"issue": issue | {"updated_at": "people's words"}})

    assert refused.value.code == "unreadable_body"
    assert str(refused.value) == "issue.updated_at"
    assert refused.value.__cause__ is None


def test_a_delivery_is_known_by_its_header_else_by_its_bytes() -> None:
    door = GitHub()

    assert door.delivery_id({"x-github-delivery": "d1"}, b"a") == "d1"
    assert door.delivery_id({}, b"a") == door.delivery_id({}, b"a") != door.delivery_id({}, b"b")
