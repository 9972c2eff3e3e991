import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY

from contracts.base import Fact
from contracts.envelope import Event, Record, decode
from contracts.events.control import ProcessPaused, ProcessResumed, RedriveRequested, SkipRequested
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterSkipped
from services.runtime import outbox
from services.runtime.inbox import Inbox
from services.runtime.postgres import Connection, Database
from services.runtime.relay import Relay
from services.runtime.stop import Wake
from tests.fakes.events import event, named


class Handling:
    """Counts what was handled; raises for the names it was told to."""

    def __init__(self, *poison: str) -> None:
        self.names: list[str] = []
        self.poison = set(poison)

    async def __call__(self, connection: Connection, events: Sequence[Event[Fact]]) -> None:
        del connection
        for one in events:
            assert isinstance(one.data, ProcessPaused)
            if one.data.reason in self.poison:
                raise ValueError("customer words")
        self.names += [one.data.reason for one in events if isinstance(one.data, ProcessPaused)]


async def rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(statement)]


def of_unknown_type(name: str) -> Record:
    record = event(name).to_record()
    return record._replace(headers=record.headers | {"ce_type": "process.teleported.v9"})


async def test_an_event_that_comes_again_is_handled_once(database: Database) -> None:
    handling = Handling()
    inbox = Inbox(database, "actor", {ProcessPaused: handling})
    one = event("one").to_record()

    await inbox.take([one, one])
    await inbox.take([one, event("two").to_record()])

    assert handling.names == ["one", "two"]


async def test_a_poison_event_becomes_a_dead_letter_and_its_batch_flows_on(database: Database) -> None:
    handling = Handling("bad")
    inbox = Inbox(database, "actor", {ProcessPaused: handling})

    await inbox.take([event(name).to_record() for name in ("one", "bad", "two")])

    assert handling.names == ["one", "two"]
    assert await rows(database, "SELECT work, code, message FROM dead_letters") == [
        ("process.paused.v1", "unforeseen", "ValueError")
    ]


async def test_an_event_is_counted_once_though_its_batch_failed_and_was_tried_again(database: Database) -> None:
    async def cannot(connection: Connection, events: Sequence[Event[Fact]]) -> None:
        raise ValueError(connection, events)

    inbox = Inbox(database, "counted once", {ProcessPaused: Handling(), ProcessResumed: cannot})
    resumed = event("resumed", ProcessResumed(generation=2, reason="r", by="ana"))

    await inbox.take([event("one").to_record(), resumed.to_record()])

    def counted(contract: type[Fact]) -> float | None:
        labels = {"service": "counted once", "type": contract.TYPE}
        return REGISTRY.get_sample_value("nightshift_events_handled_total", labels)

    assert (counted(ProcessPaused), counted(ProcessResumed)) == (1, None)


async def test_a_record_that_is_no_event_becomes_a_dead_letter(database: Database) -> None:
    inbox = Inbox(database, "actor", {})
    record = event("one").to_record()

    await inbox.take([record._replace(body=b"{"), record._replace(headers={})])

    assert await rows(database, "SELECT code FROM dead_letters") == [("unreadable",), ("unreadable",)]


async def test_an_unknown_type_is_kept_and_handled_by_the_build_that_knows_it(database: Database) -> None:
    old = Inbox(database, "actor", {ProcessPaused: Handling()})
    await old.take([of_unknown_type("early")])
    kept = await rows(database, "SELECT type FROM unread")
    async with database.connection() as connection:  # the newer build calls that type by its right name
        await connection.execute(
            "UPDATE unread SET type = 'process.paused.v1', headers = headers || '{\"ce_type\": \"process.paused.v1\"}'"
        )
    handling = Handling()
    newer = Inbox(database, "actor", {ProcessPaused: handling})

    taken = await newer.take_what_became_readable()

    assert kept == [("process.teleported.v9",)]
    assert (taken, handling.names) == (1, ["early"])
    assert await rows(database, "SELECT 1 FROM unread") == []


def order(dead_letter_id: uuid.UUID, nonce: str) -> Event[RedriveRequested]:
    data = RedriveRequested(dead_letter_id=dead_letter_id, service="actor", nonce=named(nonce), by="ana")
    made = event(f"order {nonce}", data)
    assert isinstance(made.data, RedriveRequested)
    return made  # type: ignore[return-value]  # narrowed on the line above


@pytest.mark.parametrize(("nonces", "handled"), [(["a", "a"], ["bad"]), (["a", "b"], ["bad"])])
async def test_a_redrive_handles_the_event_again_once(
    database: Database, nonces: list[str], handled: list[str]
) -> None:
    handling = Handling("bad")
    inbox = Inbox(database, "actor", {ProcessPaused: handling})
    await inbox.take([event("bad").to_record()])
    [(dead_letter_id,)] = await rows(database, "SELECT dead_letter_id FROM dead_letters")
    assert isinstance(dead_letter_id, uuid.UUID)
    handling.poison.clear()

    for nonce in nonces:
        await inbox.take([order(dead_letter_id, nonce).to_record()])

    assert handling.names == handled
    assert await rows(database, "SELECT headers->>'ce_type' FROM outbox ORDER BY id") == [
        ("dead_letter.raised.v1",),
        ("dead_letter.redriven.v1",),
    ]


async def test_an_event_that_fails_again_keeps_its_dead_letter_and_says_so(database: Database) -> None:
    handling = Handling("bad")
    inbox = Inbox(database, "actor", {ProcessPaused: handling})
    await inbox.take([event("bad").to_record()])
    [(dead_letter_id,)] = await rows(database, "SELECT dead_letter_id FROM dead_letters")
    assert isinstance(dead_letter_id, uuid.UUID)

    first = order(dead_letter_id, "a")
    for one in (first, first, event("the same order in another event", first.data)):
        await inbox.take([one.to_record()])

    assert await rows(database, "SELECT work, attempts, redriven_at FROM dead_letters") == [
        ("process.paused.v1", 2, None)
    ], "a nonce is one order"
    said: list[Any] = await rows(database, "SELECT topic, key, headers, body FROM outbox ORDER BY id")
    raised, again = [decode(Record(*row).headers, Record(*row).body) for row in said]
    assert isinstance(again.data, DeadLetterRaised)
    assert again.data == raised.data.model_copy(update={"attempts": 2})
    assert (again.causation_id, again.event_id != raised.event_id) == (first.event_id, True)


async def test_a_redrive_after_one_that_failed_is_not_taken_for_the_same(database: Database) -> None:
    handling = Handling("bad")
    inbox = Inbox(database, "actor", {ProcessPaused: handling})
    await inbox.take([event("bad").to_record()])
    [(dead_letter_id,)] = await rows(database, "SELECT dead_letter_id FROM dead_letters")
    assert isinstance(dead_letter_id, uuid.UUID)
    await inbox.take([order(dead_letter_id, "a").to_record()])
    handling.poison.clear()

    await inbox.take([order(dead_letter_id, "b").to_record()])

    assert handling.names == ["bad"]
    assert await rows(database, "SELECT headers->>'ce_type' FROM outbox ORDER BY id") == [
        ("dead_letter.raised.v1",),
        ("dead_letter.raised.v1",),
        ("dead_letter.redriven.v1",),
    ]


async def test_two_redrives_of_one_dead_letter_at_the_same_moment_handle_it_once(database: Database) -> None:
    handling = Handling("bad")
    inboxes = [Inbox(database, "actor", {ProcessPaused: handling}) for _ in range(2)]
    await inboxes[0].take([event("bad").to_record()])
    [(dead_letter_id,)] = await rows(database, "SELECT dead_letter_id FROM dead_letters")
    assert isinstance(dead_letter_id, uuid.UUID)
    handling.poison.clear()

    orders = [order(dead_letter_id, nonce).to_record() for nonce in "ab"]
    await asyncio.gather(*(inbox.take([one]) for inbox, one in zip(inboxes, orders, strict=True)))

    assert handling.names == ["bad"]


async def test_a_skipped_event_is_never_handled_and_cannot_be_redriven(database: Database) -> None:
    handling = Handling("bad")
    inbox = Inbox(database, "actor", {ProcessPaused: handling})
    await inbox.take([event("bad").to_record()])
    [(dead_letter_id,)] = await rows(database, "SELECT dead_letter_id FROM dead_letters")
    assert isinstance(dead_letter_id, uuid.UUID)
    handling.poison.clear()
    for service in ("classifier", "actor"):
        skips = SkipRequested(dead_letter_id=dead_letter_id, service=service, reason="a test", by="ana")
        await inbox.take([event(f"skip in {service}", skips).to_record()])

    await inbox.take([order(dead_letter_id, "a").to_record(), event("bad").to_record()])

    assert handling.names == []
    said: list[Any] = await rows(database, "SELECT headers->>'ce_type', body FROM outbox ORDER BY id")
    assert [row[0] for row in said] == ["dead_letter.raised.v1", "dead_letter.skipped.v1"]
    skipped = DeadLetterSkipped.model_validate_json(said[1][1])
    assert (skipped.service, skipped.reason, skipped.by) == ("actor", "a test", "ana")


async def test_a_skipped_record_that_is_no_event_stays_skipped_when_a_broker_tells_it_again(
    database: Database,
) -> None:
    inbox = Inbox(database, "actor", {})
    damaged = event("one").to_record()._replace(body=b"{")
    await inbox.take([damaged])
    [(dead_letter_id,)] = await rows(database, "SELECT dead_letter_id FROM dead_letters")
    assert isinstance(dead_letter_id, uuid.UUID)
    skips = SkipRequested(dead_letter_id=dead_letter_id, service="actor", reason="its sender is mended", by="ana")
    await inbox.take([event("skip", skips).to_record()])

    await inbox.take([damaged])

    assert await rows(database, "SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL") == [(0,)]


@pytest.mark.parametrize("odd", [{"ce_subject": "a\0b"}, {"a\0": "b"}, {"ce_type": "process.\0"}])
async def test_a_record_that_postgres_cannot_keep_as_it_is_stops_no_other(
    database: Database, odd: dict[str, str]
) -> None:
    handling = Handling()
    inbox = Inbox(database, "actor", {ProcessPaused: handling})
    record = event("one").to_record()
    damaged = record._replace(headers=record.headers | odd, body=b"{")

    await inbox.take([damaged, event("two").to_record()])

    assert handling.names == ["two"]
    kept = await rows(database, "SELECT 1 FROM dead_letters UNION ALL SELECT 1 FROM unread")
    assert len(kept) == 1


async def test_an_event_that_became_readable_and_is_poison_is_a_dead_letter_and_stops_no_start(
    database: Database,
) -> None:
    old = Inbox(database, "actor", {ProcessPaused: Handling()})
    unreadable = of_unknown_type("unreadable")._replace(body=b"{}")
    await old.take([of_unknown_type("good"), of_unknown_type("bad"), unreadable])
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE unread SET type = 'process.paused.v1', headers = headers || '{\"ce_type\": \"process.paused.v1\"}'"
        )
    handling = Handling("bad")

    taken = await Inbox(database, "actor", {ProcessPaused: handling}).take_what_became_readable()

    assert (taken, handling.names) == (3, ["good"])
    assert await rows(database, "SELECT code FROM dead_letters ORDER BY code") == [("unforeseen",), ("unreadable",)]
    assert await rows(database, "SELECT 1 FROM unread") == []


class Refusing:
    """A broker that will never take what it is given."""

    async def publish(self, records: Sequence[Record]) -> Sequence[str | None]:
        return ["too_large" if r.headers["ce_type"] == ProcessPaused.TYPE else None for r in records]


async def test_a_redriven_event_that_the_broker_refused_is_owed_again_and_refused_again_is_a_new_dead_letter(
    database: Database,
) -> None:
    async with database.connection() as connection:
        await outbox.append(connection, [event("large")])
    relay = Relay(database, "actor", Refusing(), Wake())
    handling = Handling()
    inbox = Inbox(database, "actor", {ProcessPaused: handling})
    await relay.publish_once()
    [(first,)] = await rows(database, "SELECT dead_letter_id FROM dead_letters")
    assert isinstance(first, uuid.UUID)

    await inbox.take([order(first, "a").to_record()])
    owed = await rows(database, "SELECT refused FROM outbox WHERE headers->>'ce_type' = 'process.paused.v1'")
    await relay.publish_once()

    assert (owed, handling.names) == ([(None,)], [])
    letters = await rows(database, "SELECT redriven_at IS NULL, code FROM dead_letters ORDER BY raised_at")
    assert letters == [(False, "refused_by_broker"), (True, "refused_by_broker")]


async def test_a_redrive_knows_an_event_by_its_id_however_it_is_spelt(database: Database) -> None:
    handling = Handling("bad")
    inbox = Inbox(database, "actor", {ProcessPaused: handling})
    await inbox.take([event("bad").to_record()])
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE dead_letters SET record = "
            "jsonb_set(record, '{headers,ce_id}', to_jsonb(upper(record#>>'{headers,ce_id}')))"
        )
    [(dead_letter_id,)] = await rows(database, "SELECT dead_letter_id FROM dead_letters")
    assert isinstance(dead_letter_id, uuid.UUID)
    handling.poison.clear()

    await inbox.take([order(dead_letter_id, "a").to_record()])

    assert handling.names == ["bad"]


async def test_a_dead_letter_that_nobody_can_handle_raises_no_other(database: Database) -> None:
    async def cannot(connection: Connection, events: Sequence[Event[Fact]]) -> None:
        del connection, events
        raise ValueError("customer words")

    inbox = Inbox(database, "actor", {ProcessPaused: Handling("bad"), DeadLetterRaised: cannot})
    await inbox.take([event("bad").to_record()])

    for _ in range(3):  # the service hears of its own dead letters too
        said: list[Any] = await rows(database, "SELECT topic, key, headers, body FROM outbox")
        await inbox.take([Record(*row) for row in said])

    assert await rows(database, "SELECT work FROM dead_letters") == [("process.paused.v1",)]
