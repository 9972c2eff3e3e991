import json
from datetime import UTC, datetime
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from connectors.protocol import PlainChange
from connectors.zendesk.webhooks import _read, _read_quickly, changes_in, delivery_id
from connectors.zendesk.wire import readable
from contracts.failures import PermanentError

DATA = Path(__file__).parents[2] / "data" / "webhooks" / "zendesk"
NOW = datetime(2026, 11, 25, 7, 0, tzinfo=UTC)
OURS = "900001"


def detail(**more: object) -> dict[str, object]:
    return {
        "actor_id": "100001",
        "assignee_id": None,
        "brand_id": "7001",
        "created_at": "2026-11-25T06:00:00Z",
        "description": "Where is it?",
        "group_id": None,
        "id": "42",
        "is_public": True,
        "organization_id": None,
        "priority": None,
        "requester_id": "100001",
        "status": "OPEN",
        "subject": "Order",
        "submitter_id": "100001",
        "tags": ["a", "b"],
        "updated_at": "2026-11-25T06:10:00Z",
        "via": {"channel": "email"},
    } | more


def event(kind: str, what: dict[str, object] | None = None, **more: object) -> dict[str, object]:
    sequence = {"id": "s1", "position": 2, "total": 3}
    return {
        "type": f"zen:event-type:ticket.{kind}",
        "id": "e1",
        "account_id": 1,
        "time": "2026-11-25T06:10:00.500Z",
        "zendesk_event_version": "2022-11-06",
        "subject": "zen:ticket:42",
        "detail": detail(**more),
        "event": {"meta": {"sequence": sequence}} | (what or {}),
    }


def comment(body: str = "Hello?", *, author: str = "100001", staff: bool = False) -> dict[str, object]:
    who = {"id": author, "is_staff": staff, "name": "Somebody"}
    return {"comment": {"id": "77", "body": body, "is_public": True, "author": who}}


def only(payload: object, body: bytes = b"{}") -> PlainChange:
    (change,) = changes_in(payload, body, NOW, our_user_id=OURS)
    return change


def test_an_event_names_its_identity_version_update_and_place() -> None:
    change = only(event("status_changed"))

    assert (change.object_id, change.kind, change.identity) == ("42", "status_changed", "e1")
    assert (change.version, change.update_id, change.position) == ("2026-11-25T06:10:00.000000Z", "s1", 2)
    assert not change.opens
    assert not change.hint


def test_a_change_carries_the_state_after_it_with_ids_as_text_and_nothing_as_empty() -> None:
    change = only(event("tags_changed", priority="HIGH"))

    assert change.fields == {
        "status": "open",
        "priority": "high",
        "assignee_id": "",
        "group_id": "",
        "requester_id": "100001",
        "brand_id": "7001",
        "organization_id": "",
        "channel": "email",
        "tags": ("a", "b"),
        "is_public": True,
        "created_at": "2026-11-25T06:00:00Z",
        "updated_at": "2026-11-25T06:10:00Z",
    }


def test_only_what_the_body_held_is_told() -> None:
    payload = event("status_changed")
    payload["detail"] = {"id": "42", "status": "OPEN", "updated_at": "2026-11-25T06:10:00Z"}

    assert set(only(payload).fields) == {"status", "updated_at"}


def test_the_first_comment_is_called_description() -> None:
    change = only(event("created"))

    assert change.opens
    assert (change.author, change.texts) == ("customer", {"subject": "Order", "body": "Where is it?"})
    assert change.fields["comment_id"] == "description"
    assert change.fields["comment_created_at"] == "2026-11-25T06:00:00Z"


def test_a_first_comment_by_staff_is_not_the_customer_speaking() -> None:
    change = only(event("created", submitter_id="800001"))

    assert (change.author, change.fields["author_is_staff"]) == ("staff", True)


def test_a_first_comment_that_is_told_twice_is_one_comment() -> None:
    twice = event("comment_added", comment("Where is it?"), updated_at="2026-11-25T06:00:00Z")

    assert only(twice).fields["comment_id"] == "description"


def test_the_same_words_a_second_later_are_another_comment() -> None:
    later = event("comment_added", comment("Where is it?"), updated_at="2026-11-25T06:00:01Z")

    assert only(later).fields["comment_id"] == "77"


@pytest.mark.parametrize(
    ("author", "staff", "expected"), [("100001", False, "customer"), ("800001", True, "staff"), (OURS, True, "ours")]
)
def test_a_comment_says_who_wrote_it(author: str, *, staff: bool, expected: str) -> None:
    change = only(event("comment_added", comment(author=author, staff=staff)))

    assert (change.author, change.fields["author_id"], change.texts["body"]) == (expected, author, "Hello?")


@pytest.mark.parametrize(
    ("actor", "expected"),
    [("100001", "customer"), (OURS, "ours"), ("-1", "system"), ("555", "unknown"), ("", "unknown")],
)
def test_a_change_without_words_says_whose_it_is_as_far_as_that_is_known(actor: str, expected: str) -> None:
    assert only(event("status_changed", actor_id=actor)).author == expected


def test_a_comment_is_as_old_as_its_event_where_the_detail_is_newer() -> None:
    change = only(event("comment_added", comment(), updated_at="2026-11-25T06:30:00Z"))

    assert change.fields["comment_created_at"] == "2026-11-25T06:10:00Z"


def test_html_is_reduced_to_what_a_person_reads() -> None:
    body = "<html><style>p{}</style><p>Hello,</p><p>where &amp; when?<br>Bye</p><script>x()</script></html>"

    assert only(event("comment_added", comment(body))).texts["body"] == "Hello,\n\nwhere & when?\nBye"


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ("<p>a<![if !supportLists]>b<![endif]>c</p>", "abc"),
        ("<p>a<![what is this", "a<![what is this"),
        ("<p>a<!-- <b>not shown</b> -->b", "ab"),
        ("<p>a<!-- never closed", "a never closed"),
        ("<p>a<head>never closed", "anever closed"),
        ("<p>a&#" + "9" * 5000 + ";b", "a&#" + "9" * 5000 + ";b"),
        ("<p>&#128512; &#x1F600;", "\U0001f600 \U0001f600"),
    ],
)
def test_html_that_mail_programs_and_people_break_is_read_as_far_as_it_goes(body: str, read: str) -> None:
    assert only(event("comment_added", comment(body))).texts["body"] == read


@pytest.mark.parametrize(
    "piece", ["<a ", "<a href='", '<a href="x', "<p\n", "<p =", "<p /", "<!--", "<script", "<style>", "<?", "</", "&#"]
)
def test_what_a_customer_writes_costs_no_more_than_its_length(piece: str) -> None:
    body = "<p>" + piece * (100_000 // len(piece))
    begun = process_time()

    readable(body)

    assert process_time() - begun < 2.0


def test_a_smaller_than_sign_is_no_html() -> None:
    assert only(event("comment_added", comment("a < b and c > d"))).texts["body"] == "a < b and c > d"


def test_card_numbers_are_masked_in_every_text() -> None:
    change = only(event("created", subject="4111111111111111", description="4111 1111 1111 1111"))

    assert change.texts == {"subject": "[card ending 1111]", "body": "[card ending 1111]"}


def test_an_event_about_something_else_gives_nothing() -> None:
    body = (DATA / "group_membership_created.json").read_bytes()

    assert changes_in(json.loads(body), body, NOW, our_user_id=OURS) == ()


@pytest.mark.parametrize("kind", ["soft_deleted", "merged", "marked_as_spam", "undeleted", "a_kind_of_next_year"])
def test_every_ticket_event_is_understood(kind: str) -> None:
    assert only(event(kind)).kind == kind


@pytest.mark.parametrize(
    "broken",
    [
        {**event("created"), "id": ""},
        {**event("created"), "detail": None},
        {**event("created"), "time": "yesterday"},
        event("created", id="x"),
        event("created", updated_at="soon"),
        event("comment_added"),
        [],
        "text",
        {"status": "Open"},
    ],
)
def test_what_cannot_be_understood_is_a_permanent_failure_without_its_words(broken: object) -> None:
    with pytest.raises(PermanentError) as refused:
        changes_in(broken, b"{}", NOW, our_user_id=OURS)

    assert refused.value.code == "unreadable_body"
    assert "Where is it?" not in str(refused.value)


def test_a_trigger_is_a_hint_of_the_ticket_to_read() -> None:
    body = (DATA / "trigger_ticket_update.json").read_bytes()

    change = only(json.loads(body), body)

    assert (change.object_id, change.kind, change.hint) == ("12345", "trigger", True)
    assert change.fields == {"priority": "normal", "assignee_id": "9001", "group_id": "9000"}


def test_a_triggers_identity_is_the_ticket_its_stamp_and_the_bytes() -> None:
    payload = {"ticket_id": "42", "status": "Open", "updated_at": "2026-11-25T06:10:00Z"}

    same, later_copy = only(payload, b"one"), changes_in(payload, b"one", NOW.replace(hour=9), our_user_id=OURS)[0]

    assert same.identity == later_copy.identity
    assert same.identity != only(payload, b"two").identity
    assert same.version == "2026-11-25T06:10:00.000000Z"


def test_triggers_without_a_stamp_are_never_taken_for_one_another() -> None:
    payload = {"ticket_id": 42, "updated_at": "Nov 25, 2026 at 06:10"}

    first, second = only(payload), changes_in(payload, b"{}", NOW.replace(hour=9), our_user_id=OURS)[0]

    assert first.identity != second.identity
    assert "updated_at" not in first.fields


def test_a_retry_keeps_its_delivery_id() -> None:
    assert delivery_id({"x-zendesk-webhook-invocation-id": "i1"}, b"a") == "i1"
    assert delivery_id({}, b"a") == delivery_id({}, b"a") != delivery_id({}, b"b")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def outcome(payload: object) -> PlainChange | str | None:
    """The change, or the code of the failure."""
    try:
        return next(iter(changes_in(payload, b"{}", NOW, our_user_id=OURS)), None)
    except PermanentError as error:
        return error.code


@given(_JSON, st.sampled_from(["detail", "event", "time", "id", "type"]))
def test_no_body_raises_anything_but_a_permanent_failure(value: object, place: str) -> None:
    for payload in (value, event("comment_added", comment()) | {place: value}):
        found = outcome(payload)
        assert found is None or found == "unreadable_body" or isinstance(found, PlainChange)


@given(st.dictionaries(st.sampled_from(sorted(detail())), _JSON, max_size=5))
def test_no_detail_raises_anything_but_a_permanent_failure(more: dict[str, object]) -> None:
    for payload in (event("created", None, **more), event("comment_added", comment(), **more)):
        found = outcome(payload)
        assert found == "unreadable_body" or (isinstance(found, PlainChange) and "\0" not in repr(found.fields))


def places(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where a body can be changed."""
    here = [path] if path else []
    if isinstance(value, dict):
        for name, inner in value.items():
            here += places(inner, (*path, name))
    return here


def changed(payload: dict[str, object], path: tuple[str, ...], value: object) -> dict[str, object]:
    """A copy with `value` at `path`, or without the path where the value is `...`."""
    first, *rest = path
    inner = payload[first]
    if rest:
        assert isinstance(inner, dict)
        return payload | {first: changed(inner, tuple(rest), value)}
    return {name: held for name, held in (payload | {first: value}).items() if held is not ...}


USUAL = [
    event("created") | {"detail": detail(description="\u00e9 <p>a</p>", id=42)},
    event("comment_added", comment(), priority=" High "),
    {"type": "zen:event-type:ticket.merged", "id": 7, "time": "2026-11-25T06:10:00Z", "detail": {"id": "42"}},
]
# fmt: off
_NEARLY = st.sampled_from([
    ..., None, True, False, 0, 1, 999, 1000, -1, 1.0, 10**19, [], {}, [None, 1, "t", "\ud83d"], [1.5], {"id": "1"},
    "", "0", "true", "x", "42", "4" * 20, "4" * 21, "4\n", "\u0664\u0662", "a\0b", "\ud83d", "\u00c9 ", " ", "e" * 201,
])
# fmt: on


@pytest.mark.parametrize("payload", USUAL)
def test_the_usual_events_are_read_quickly(payload: dict[str, object]) -> None:
    assert _read_quickly(payload) == _read(payload)


@settings(max_examples=500)
@given(st.sampled_from(USUAL), st.data())
def test_what_is_read_quickly_is_what_the_models_read(payload: dict[str, object], data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        payload = changed(payload, data.draw(st.sampled_from(places(payload))), data.draw(_NEARLY | _JSON))
        if "type" not in payload or not str(payload["type"]).startswith("zen:event-type:ticket."):
            return  # no event comes here

    quick = _read_quickly(payload)

    if quick is not None:
        try:
            assert quick == _read(payload)
        except ValidationError as error:
            raise AssertionError(f"the models refuse it: {error}") from error
