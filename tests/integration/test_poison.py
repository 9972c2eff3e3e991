"""An event that raises wherever it comes: one dead letter in each service, and everything else flows."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.base import Fact
from contracts.envelope import Event, Record
from contracts.events.control import RedriveRequested, SkipRequested
from contracts.events.dead_letters import DeadLetterRaised
from services.actor.app import handlers_of
from services.classifier.handlers.case_changed import CaseChangedHandler
from services.classifier.inbound.kafka import handlers
from services.reporter.domain.sla import Policy
from services.reporter.domain.views import CaseRow, DeadLetterRow
from services.reporter.handlers.append import Appender, Projector
from services.reporter.handlers.rebuild import rebuild
from services.reporter.outbound import queries
from services.reporter.outbound.causes import PostgresCauses
from services.reporter.outbound.event_log import PostgresStore, digest
from services.reporter.outbound.rebuilding import rebuilding
from services.runtime.inbox import Inbox
from services.runtime.postgres import Database, connect
from tests.conftest import MigratedDatabase
from tests.fakes.acting import case_of, tiny
from tests.fakes.events import NOW, change, event, named

ROUNDS_MAX = 6
"""News of news of news … ends before."""
CONSUMERS = ("ingest", "classifier", "actor")
POLICY = Policy(first_reply_minutes=60, automated_reply_counts=True)


@dataclass
class System:
    """Every service's inbox on one database, without a broker: what any of them says all of them hear."""

    databases: dict[str, Database]

    def __post_init__(self) -> None:
        processes = {"tiny": tiny()}
        of_classifier = handlers(CaseChangedHandler(processes))
        of_service = {"ingest": {}, "classifier": of_classifier, "actor": handlers_of(processes)}
        self.inboxes = {name: Inbox(self.databases[name], name, of_service[name]) for name in CONSUMERS}
        self.appender = Appender(PostgresStore(self.databases["reporter"]), Projector({"tiny": POLICY}))

    async def hear(self, *events: Event[Fact]) -> int:
        """Everybody hears these, and then what each says of it, until nobody says anything new. Returns the rounds."""
        records, heard = [one.to_record() for one in events], set[str]()
        for rounds in range(ROUNDS_MAX):
            if not records:
                return rounds
            heard |= {record.headers["ce_id"] for record in records}
            for inbox in self.inboxes.values():
                await inbox.take(records)
            await self.appender.take(records)
            records = [record for record in await self.said() if record.headers["ce_id"] not in heard]
        raise AssertionError("it never ends")

    async def said(self) -> list[Record]:
        rows: list[Any] = []
        for name in CONSUMERS:
            async with self.databases[name].connection() as connection:
                rows += await connection.fetch("SELECT topic, key, headers, body FROM outbox ORDER BY id")
        return [Record(*row) for row in rows]

    async def letters(self) -> dict[str, DeadLetterRow]:
        async with self.databases["reporter"].connection() as connection:
            return {row.service: row for row in await queries.dead_letters(connection)}

    async def case(self, object_id: str) -> CaseRow:
        async with self.databases["reporter"].connection() as connection:
            row = (await queries.case_timeline(connection, case_of(object_id), reveal=False)).row
        assert row is not None
        return row

    async def is_told_and_can_be_rebuilt(self) -> bool:
        """Whether the reporter can count what needs a person, and a rebuild gives what it shows."""
        database = self.databases["reporter"]
        await PostgresCauses(database, {"tiny": timedelta(0)}).count()
        async with database.connection() as connection:
            live = await digest(connection)
        async with rebuilding(database) as tables:
            await rebuild(tables, Projector({"tiny": POLICY}), version="anew", progress=lambda _: None)
        async with database.connection() as connection:
            return live == await digest(connection)

    async def cases_of(self, service: str) -> list[str]:
        async with self.databases[service].connection() as connection:
            return [row[0] for row in await connection.fetch("SELECT case_id FROM cases ORDER BY 1")]


@pytest.fixture
async def system(migrated: MigratedDatabase) -> AsyncIterator[System]:
    async with AsyncExitStack() as stack:
        yield System(
            {
                name: await stack.enter_async_context(connect(migrated.url(f"nightshift_{name}"), schema=name))
                for name in (*CONSUMERS, "reporter")
            }
        )


def news(object_id: str, *, version: str = "2026-11-22T04:00:00+00:00", name: str = "") -> Event[Fact]:
    """A change; one whose version is no time raises wherever a case is folded."""
    return event(f"change {object_id} {name}", change(object_id, version=version), case_id=case_of(object_id))


POISON = news("1", version="no time at all")


async def test_an_event_that_raises_in_every_service_is_a_dead_letter_in_each_and_stops_nobody(
    system: System,
) -> None:
    await system.hear(news("0"), POISON, news("2"))

    letters = await system.letters()
    assert {name: (row.case_id, row.work, row.code, row.state) for name, row in letters.items()} == {
        name: (case_of("1"), "case.changed.v1", "unforeseen", "open") for name in ("classifier", "actor")
    }
    for service in ("classifier", "actor"):
        assert await system.cases_of(service) == [case_of("0"), case_of("2")]
    assert (await system.case("1")).state == "dead_letter"


async def test_a_redrive_is_for_one_service_alone_and_one_that_fails_again_is_told(system: System) -> None:
    await system.hear(POISON)
    before = await system.letters()
    order = RedriveRequested(
        dead_letter_id=before["classifier"].dead_letter_id, service="classifier", nonce=named("n"), by="ana"
    )

    await system.hear(event("order", order, case_id=case_of("1")))

    after = await system.letters()
    assert {name: (row.state, row.attempts) for name, row in after.items()} == {
        "classifier": ("open", 2),
        "actor": ("open", 1),
    }


def skip(service: str, letter: UUID) -> Event[Fact]:
    order = SkipRequested(dead_letter_id=letter, service=service, reason="its sender is mended", by="ana")
    return event(f"skip in {service}", order, case_id=case_of("1"))


async def test_a_case_whose_poison_was_skipped_everywhere_flows_on_and_shows_as_skipped(system: System) -> None:
    await system.hear(POISON)
    letters = await system.letters()

    await system.hear(*(skip(name, row.dead_letter_id) for name, row in letters.items()))
    skipped = (await system.case("1")).state
    await system.hear(news("1", version=(NOW + timedelta(hours=1)).isoformat(), name="later"))

    assert skipped == "skipped"
    assert await system.letters() == {}
    for service in ("classifier", "actor"):
        assert await system.cases_of(service) == [case_of("1")]


async def test_the_same_poison_heard_again_is_the_same_dead_letter(system: System) -> None:
    await system.hear(POISON)
    before = await system.letters()

    await system.hear(POISON, news("0"), POISON)

    assert await system.letters() == before


ENDLESS = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(9000))
"""Postgres cannot make it small."""
LETTER = DeadLetterRaised(
    dead_letter_id=named("letter"), service="actor", work="\0", basis=None, code="\0", message="\0", attempts=1
)


def damaged(what: Fact, **headers: str) -> Record:
    record = event("damaged", what, case_id=case_of("1")).to_record()
    return record._replace(headers={**record.headers, **headers})


NAMELESS = damaged(change("1"))
NAMELESS = NAMELESS._replace(body=NAMELESS.body.replace(b'"fields":{}', b'"fields":{"a\\u0000":{}}'))


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(NAMELESS, id="a field's name that nobody can store"),
        pytest.param(damaged(LETTER), id="texts that nobody can store"),
        pytest.param(damaged(change("1"), ce_subject=case_of(ENDLESS)), id="a subject without end"),
        pytest.param(damaged(change("1"), ce_subject=""), id="no subject"),
        pytest.param(damaged(change("1"), ce_process=ENDLESS), id="a process without end"),
        pytest.param(damaged(change("1"), ce_type=ENDLESS), id="a type without end"),
        pytest.param(damaged(change("1"), ce_time="0001-01-01T00:00:00Z"), id="the first day of all"),
    ],
)
async def test_no_record_stops_a_service_whatever_it_holds_and_the_log_shows_it(system: System, record: Record) -> None:
    for inbox in system.inboxes.values():
        await inbox.take([record, news("0").to_record()])
    await system.appender.take([record, news("0").to_record()])
    await system.appender.take(await system.said())

    assert await system.cases_of("classifier") == await system.cases_of("actor") == [case_of("0")]
    async with system.databases["reporter"].connection() as connection:
        assert (await queries.status(connection)).unread == 1
        shown = await connection.fetchval("SELECT case_id FROM event_log WHERE event_id = $1", named("damaged"))
        assert len((await queries.case_timeline(connection, shown)).lines) >= 1
    assert await system.is_told_and_can_be_rebuilt()
