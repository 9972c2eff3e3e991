"""The quick way to make an event's bytes equals the contracts' own."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from connectors.protocol import PlainChange
from contracts.envelope import Event, decode
from contracts.failures import PermanentError
from services.ingest.domain.delivery import Change, Delivery, delivery_id_of, event_id_of
from services.ingest.outbound.events import SOURCE, record_of
from services.runtime.changes import seal_change
from services.runtime.process import case_id_of
from services.runtime.vault import CaseKeys

CASE = "support:zendesk:42"
KEYS = CaseKeys(CASE, {1: bytes(range(32)), 2: bytes(range(1, 33))})
NOW = datetime(2026, 11, 25, 6, 31, 24, 500, tzinfo=UTC)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
MOMENTS = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001  # hypothesis adds the zone
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001  # as above
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(-timedelta(hours=3, minutes=30))]),
)
CHANGES = st.builds(
    PlainChange,
    object_id=st.just("42"),
    kind=WORDS,
    identity=WORDS,
    version=WORDS,
    author=st.sampled_from(["customer", "staff", "ours", "system", "unknown"]),
    occurred_at=MOMENTS,
    position=st.integers(0, 1000),
    update_id=st.none() | WORDS,
    opens=st.booleans(),
    hint=st.booleans(),
    fields=st.dictionaries(
        WORDS, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS | st.lists(WORDS, max_size=3).map(tuple)
    ),
    texts=st.dictionaries(WORDS, st.text(max_size=50), max_size=3),
)


def delivered(plain: PlainChange) -> tuple[Delivery, Change]:
    case_id = case_id_of("support", "zendesk", plain.object_id)
    change = Change(plain, case_id, event_id_of("support", "zendesk", plain.identity))
    delivery = Delivery(
        delivery_id=delivery_id_of("support", "zendesk", "i1"),
        process="support",
        source="zendesk",
        sender_id="i1",
        case_ids=(CASE,),
        signed={},
        body=b"{}",
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        received_at=NOW,
        changes=(change,),
    )
    return delivery, change


@given(plain=CHANGES)
def test_both_ways_make_equal_events(plain: PlainChange) -> None:
    delivery, change = delivered(plain)

    record = record_of(delivery, change, KEYS, bytes_max=1_000_000)

    expected = Event(
        event_id=UUID(change.event_id),
        source=SOURCE,
        time=plain.occurred_at,
        process="support",
        case_id=CASE,
        correlation_id=UUID(change.event_id),
        causation_id=UUID(delivery.delivery_id),
        traceparent=delivery.traceparent,
        data=seal_change(plain, door="zendesk", keys=KEYS, received_at=NOW),
    )
    slow = expected.to_record()
    assert (record.topic, record.key, record.headers) == (slow.topic, slow.key, slow.headers)
    assert decode(record.headers, record.body) == decode(slow.headers, slow.body)


def a_change(**other: object) -> PlainChange:
    usual: dict[str, object] = {
        "object_id": "42",
        "kind": "created",
        "identity": "e1",
        "version": "v",
        "author": "customer",
        "occurred_at": NOW,
    }
    return PlainChange(**(usual | other))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "other"),
    [
        ("unreadable_body", {"occurred_at": NOW.replace(tzinfo=None)}),
        ("unreadable_body", {"fields": {"n": 2**70}}),
        ("unreadable_body", {"fields": {"word": "\ud83d"}}),
        ("unreadable_body", {"fields": {"word": "\0"}}),
        ("unreadable_body", {"kind": "\0"}),
        ("unreadable_body", {"object_id": "4" * 300}),
        ("too_large", {"texts": {"body": "x" * 2000}}),
    ],
)
def test_what_no_consumer_could_read_is_no_event(code: str, other: dict[str, object]) -> None:
    delivery, change = delivered(a_change(**other))
    with pytest.raises(PermanentError) as failed:
        record_of(delivery, change, KEYS, bytes_max=2000)
    assert failed.value.code == code
