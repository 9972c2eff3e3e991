"""What is kept of a delivery, how it is kept, and what becomes of what cannot be kept."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import asyncpg
import orjson
import pytest

from connectors.protocol import PlainChange
from connectors.zendesk import webhooks
from contracts.base import Fact
from contracts.envelope import Event, decode
from contracts.events.cases import CaseChanged, CaseOpened
from contracts.events.control import RedriveRequested
from contracts.events.dead_letters import DeadLetterRaised
from contracts.failures import PermanentError
from contracts.sealed import UnsealableError
from services.ingest.app import ZendeskDoor
from services.ingest.handlers.redrive_requested import read_again
from services.ingest.outbound.postgres import WORK
from services.runtime import vault
from services.runtime.changes import seal_change
from services.runtime.inbox import Inbox
from tests.conftest import MigratedDatabase
from tests.integration.ingest_app import (
    NOW,
    SECRET,
    ZENDESK,
    RunningIntake,
    change,
    comment,
    door,
    hmac_headers,
    intake,
    usual_doors,
    zendesk_headers,
)

ROLE = "nightshift_ingest"
OPEN = "/webhooks/support/open"
UNREADABLE = b'{"type": "zen:event-type:ticket.created", "id": "t1", "detail": {"subject": "purple elephants"}}'


async def events(running: RunningIntake) -> list[Event[Fact]]:
    rows = await running.rows("SELECT headers, body FROM outbox ORDER BY id")
    return [decode(row["headers"], row["body"]) for row in rows]


async def test_the_event_is_what_the_contracts_make_of_the_change(migrated: MigratedDatabase) -> None:
    body = comment("e1")
    async with intake(migrated.url(ROLE)) as running:
        answer = await running.zendesk(body, "i1")
        (event,) = await events(running)
        async with running.database.connection() as connection:
            keys = await vault.read(connection, ["support:zendesk:42"])

    (plain,) = webhooks.changes_in(orjson.loads(body), body, NOW, our_user_id="999")
    assert event == Event(
        event_id=event.event_id,
        source="nightshift/ingest",
        time=datetime(2026, 11, 25, 6, 31, 20, tzinfo=UTC),
        process="support",
        case_id="support:zendesk:42",
        correlation_id=event.event_id,
        causation_id=UUID(answer.json["delivery"]),
        traceparent=event.traceparent,
        data=seal_change(plain, door="zendesk", keys=keys["support:zendesk:42"], received_at=NOW),
    )


async def test_a_change_that_opens_a_case_says_so(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.post(OPEN, change("c1", opens=True))
        await running.post(OPEN, change("c2"))

        assert [type(event.data) for event in await events(running)] == [CaseOpened, CaseChanged]


async def test_our_own_change_is_marked_as_ours(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.zendesk(comment("e1").replace(b'"author":{"id":"7"}', b'"author":{"id":"999"}'), "i1")

        (event,) = await events(running)
        assert isinstance(event.data, CaseChanged)
        assert event.data.author == "ours"


async def test_the_signed_bytes_are_recoverable_byte_for_byte_with_their_proof(migrated: MigratedDatabase) -> None:
    body = b'{  "type" : "zen:event-type:ticket.created" , "id":"\\u00e9\\u0000", "x": 1.0e5 }'
    async with intake(migrated.url(ROLE)) as running:
        for invocation, one in (("i1", body), ("i2", comment("e2"))):
            await running.zendesk(one, invocation)

            (row,) = await running.rows("SELECT max(id) AS id FROM deliveries")
            async with running.database.connection() as connection:
                delivery = await running.store.open(connection, row["id"])

            assert delivery is not None
            assert delivery.body == one
            sent = zendesk_headers(one, invocation)
            assert delivery.signed == {name: sent[name] for name in sent if "signature" in name}


async def test_no_table_holds_what_a_person_wrote_in_plain(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.zendesk(comment("e1", text="yellow submarine"), "i1")
        await running.zendesk(UNREADABLE, "i2")
        await running.zendesk(b'{"type": "zen:event-type:user.created", "detail": {"name": "green walrus"}}', "i3")
        await running.post("/webhooks/support/form", b'{"m": "red fox"}', hmac_headers(b'{"m": "red fox"}'))

    connection = await asyncpg.connect(migrated.admin_url)
    tables = await connection.fetch(
        "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname <> ALL($1)",
        ["pg_catalog", "information_schema"],
    )
    held = ""
    for (table,) in tables:
        for row in await connection.fetch(f"SELECT t::text FROM {table} t"):
            held += row[0]
        held += "".join(str(tuple(row)) for row in await connection.fetch(f"SELECT * FROM {table}"))
    await connection.close()

    assert "support:zendesk:42" in held
    for words in ("yellow submarine", "purple elephants", "green walrus", "red fox", "A quiet subject"):
        assert words not in held
        assert words.encode().hex() not in held


async def test_erasing_a_case_makes_its_deliveries_unreadable_and_news_gets_a_new_key(
    migrated: MigratedDatabase,
) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.zendesk(comment("e1"), "i1")
        connection = await asyncpg.connect(migrated.admin_url)
        await connection.execute("SELECT vault.erase('support:zendesk:42')")
        await connection.close()

        async with running.database.connection() as reader:
            with pytest.raises(UnsealableError):
                await running.store.open(reader, 1)
        assert (await running.zendesk(comment("e2"), "i2")).status == 202
        (newest,) = await running.rows("SELECT max(version) FROM vault.case_keys")
        assert newest[0] == 2


async def test_a_type_that_concerns_no_case_is_kept_and_makes_no_event(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        answer = await running.zendesk(b'{"type": "zen:event-type:user.created", "id": "u1"}', "i1")

        assert answer.json["duplicate"] is False
        (row,) = await running.rows("SELECT about -> 'case_ids' AS case_ids FROM deliveries")
        assert row["case_ids"] == ["support:zendesk:no-case-2026-11-25"]
        assert await running.count("outbox") == 0


async def test_what_is_signed_and_cannot_be_understood_becomes_a_dead_letter(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        first = await running.zendesk(UNREADABLE, "i1")
        retry = await running.zendesk(UNREADABLE, "i1")

        assert (first.status, retry.json["duplicate"]) == (202, True)
        (event,) = await events(running)
        assert isinstance(event.data, DeadLetterRaised)
        assert (event.data.service, event.data.work, event.data.code) == ("ingest", WORK, "unreadable_body")
        assert await running.count("dead_letters") == await running.count("deliveries") == 1


def redrive(dead_letter_id: UUID, number: int) -> Event[RedriveRequested]:
    order = RedriveRequested(dead_letter_id=dead_letter_id, service="ingest", nonce=UUID(int=number), by="a tester")
    return Event(
        event_id=UUID(int=number),
        source="nightshift/control",
        time=NOW,
        process="support",
        case_id="support",
        correlation_id=UUID(int=number),
        causation_id=None,
        data=order,
    )


async def test_a_redriven_delivery_is_read_again_from_what_was_signed(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE), record_bytes_max=10) as narrow:
        await narrow.zendesk(comment("e1"), "i1")
        (row,) = await narrow.rows("SELECT dead_letter_id, code FROM dead_letters")
        assert row["code"] == "too_large"
    async with intake(migrated.url(ROLE)) as running:
        inbox = Inbox(running.database, "ingest", {}, {WORK: read_again(usual_doors(), running.store)})
        for number in (1, 2):
            await inbox.take([redrive(row["dead_letter_id"], number).to_record()])

        kinds = [event.type for event in await events(running)]
        assert kinds[:3] == ["dead_letter.raised.v1", "case.changed.v1", "dead_letter.redriven.v1"]
        assert kinds.count("case.changed.v1") == 1


class _Unmended(ZendeskDoor):
    """As long as it cannot read what is sent."""

    def receive(self, payload: object, body: bytes, received_at: datetime) -> Sequence[PlainChange]:  # noqa: ARG002  # Receives
        raise PermanentError("unreadable_body", "not known yet")


async def test_a_redriven_delivery_of_which_nobody_knew_the_case_is_the_news_of_its_case(
    migrated: MigratedDatabase,
) -> None:
    before = door("zendesk", "zendesk", _Unmended("999"), SECRET)
    async with intake(migrated.url(ROLE), [before]) as running:
        await running.zendesk(comment("e1"), "i1")
        (row,) = await running.rows("SELECT dead_letter_id, case_id FROM dead_letters")
        inbox = Inbox(running.database, "ingest", {}, {WORK: read_again(usual_doors(), running.store)})

        await inbox.take([redrive(row["dead_letter_id"], 1).to_record()])

        told = [(event.type, event.case_id) for event in await events(running)]
    assert row["case_id"] == "support:zendesk:no-case-2026-11-25"
    assert ("case.changed.v1", "support:zendesk:42") in told
    assert ("dead_letter.redriven.v1", row["case_id"]) in told


async def test_erasing_a_case_erases_what_a_redrive_told_was_about_it(migrated: MigratedDatabase) -> None:
    before = door("zendesk", "zendesk", _Unmended("999"), SECRET)
    body = comment("e1")
    async with intake(migrated.url(ROLE), [before]) as running:
        await running.zendesk(body, "i1")
        (row,) = await running.rows("SELECT dead_letter_id FROM dead_letters")
        (stored,) = await running.rows("SELECT id FROM deliveries")
        inbox = Inbox(running.database, "ingest", {}, {WORK: read_again(usual_doors(), running.store)})

        async with running.database.connection() as reader:
            unread = await running.store.open(reader, stored["id"])
            await inbox.take([redrive(row["dead_letter_id"], 1).to_record()])
            read = await running.store.open(reader, stored["id"])
            async with asyncpg.create_pool(migrated.admin_url, min_size=1) as pool:
                await pool.execute("SELECT vault.erase('support:zendesk:42')")
            with pytest.raises(UnsealableError):
                await running.store.open(reader, stored["id"])

    assert unread is not None
    assert unread.body == body
    assert read == unread._replace(case_ids=["support:zendesk:42"])


async def test_a_redrive_that_fails_again_leaves_the_dead_letter_open(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.zendesk(UNREADABLE, "i1")
        (row,) = await running.rows("SELECT dead_letter_id FROM dead_letters")
        inbox = Inbox(running.database, "ingest", {}, {WORK: read_again(usual_doors(), running.store)})

        await inbox.take([redrive(row["dead_letter_id"], 1).to_record()])

        (still,) = await running.rows("SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL")
        assert still[0] == 1


POISON = {
    "a NUL in the case's id": change("p1", object_id="4\0002"),
    "an id no index takes": change("p2", object_id="".join(sha256(bytes([n])).hexdigest() for n in range(200))),
    "a time without a zone": change("p3", occurred_at="2026-11-25T06:31:20"),
    "half a character": change("p4")[:-1] + b', "fields": {"word": "\\ud83d"}}',
    "a number no JSON takes": b'{"fields": {"n": ' + b"9" * 400 + b"}," + change("p5")[1:],
}


async def test_one_poison_delivery_in_a_group_fails_alone(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        async with asyncio.TaskGroup() as group:  # all of them ask before the writer runs: one group
            good = [group.create_task(running.post(OPEN, change(f"c{n}", object_id=str(n)))) for n in range(10)]
            bad = [group.create_task(running.post(OPEN, body)) for body in POISON.values()]

        assert {task.result().status for task in (*good, *bad)} == {202}
        kinds = [event.type for event in await events(running)]
        assert kinds.count("case.changed.v1") == 10
        assert kinds.count("dead_letter.raised.v1") == len(POISON)
        assert await running.count("deliveries") == 10 + len(POISON)


async def test_an_event_larger_than_the_broker_takes_becomes_a_dead_letter_of_its_case(
    migrated: MigratedDatabase,
) -> None:
    async with intake(migrated.url(ROLE), record_bytes_max=2000) as running:
        answer = await running.zendesk(comment("e1", text="long " * 400), "i1")

        assert answer.status == 202
        (row,) = await running.rows("SELECT case_id, code FROM dead_letters")
        assert tuple(row) == ("support:zendesk:42", "too_large")


async def test_a_hostile_delivery_id_is_harmless(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for hostile in ("\0'; DROP TABLE seen", "\xff" * 5000, "x" * 60_000, ""):
            body = comment(f"e{len(hostile)}")
            headers = {**zendesk_headers(body, hostile), "content-type": "application/json"}
            assert (await running.post(ZENDESK, body, headers)).status == 202
        assert await running.count("deliveries") == 4
        assert SECRET not in str(await running.rows("SELECT * FROM deliveries"))
