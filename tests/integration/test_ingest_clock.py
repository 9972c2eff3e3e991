"""A machine whose clock is off dates no receipt wrong."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import orjson
import pytest

from connectors.protocol import PlainChange
from connectors.zendesk import webhooks
from contracts.basis import version_of
from contracts.envelope import decode
from contracts.events.cases import CaseChanged
from services.ingest.outbound.clock import PostgresClock
from services.runtime.changes import seal_change
from services.runtime.postgres import Database, connect
from services.runtime.process import load
from services.runtime.vault import CaseKeys
from tests.conftest import MigratedDatabase
from tests.integration.ingest_app import NOW, comment, intake

SUPPORT = load("support")
NEVER = "postgresql://nobody@127.0.0.1:1/nowhere"


def own_clock(off: timedelta) -> tuple[Callable[[], float], Callable[[], float]]:
    """A machine's clock that is off, and its seconds since it began: a second passes at each look."""
    seconds = [0.0]

    def rising() -> float:
        seconds[0] += 1.0
        return seconds[0]

    return (datetime(2026, 11, 22).astimezone() + off).timestamp, rising


async def postgres_now(database: Database) -> datetime:
    async with database.connection() as connection:
        now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        return now


@pytest.mark.parametrize("off", [timedelta(minutes=-5), timedelta(minutes=5), timedelta(days=365)])
async def test_receipts_are_dated_by_postgres_however_far_the_machine_is_off(
    migrated: MigratedDatabase, off: timedelta
) -> None:
    async with connect(migrated.url("nightshift_ingest"), schema="ingest") as database:
        own, rising = own_clock(off)
        clock = PostgresClock(database, own=own, rising=rising)
        await clock.look()

        assert abs(clock() - await postgres_now(database)) <= timedelta(seconds=3)


async def test_without_postgres_the_machine_s_own_clock_goes_on() -> None:
    async with connect(NEVER, schema="ingest") as database:
        clock = PostgresClock(database, own=lambda: 1_000_000.0, rising=lambda: 5.0)
        await clock.look()

        assert clock().timestamp() == 1_000_000.0


@pytest.mark.parametrize("off", [timedelta(0), timedelta(minutes=-5), timedelta(minutes=5)])
async def test_a_hint_that_comes_after_a_read_asks_for_another_whatever_the_machine_s_clock_says(
    migrated: MigratedDatabase, off: timedelta
) -> None:
    async with connect(migrated.url("nightshift_ingest"), schema="ingest") as database:
        own, rising = own_clock(off)
        clock = PostgresClock(database, own=own, rising=rising)
        await clock.look()
        keys = CaseKeys("support:zendesk:42", {1: bytes(32)})

        def told(change: PlainChange, received_at: datetime) -> object:
            return seal_change(change, door="zendesk", keys=keys, received_at=received_at)

        [hint] = webhooks.changes_in({"ticket_id": "42"}, b"a trigger's body", clock(), our_user_id="1")
        read_at = await postgres_now(database) - timedelta(seconds=60)
        read = PlainChange(
            object_id="42",
            kind="read",
            identity="state:7:x",
            version="2026-11-22T03:00:00.000000Z",
            update_id="audit:7",
            author="system",
            occurred_at=read_at,
            fields={"status": "open", "updated_at": "2026-11-22T03:00:00Z"},
        )
        case = SUPPORT.case.fold(None, told(read, read_at))  # type: ignore[arg-type]
        assert not SUPPORT.case.needs_reading(case)
        case = SUPPORT.case.fold(case, told(hint, clock()))  # type: ignore[arg-type]

        assert SUPPORT.case.needs_reading(case)


@pytest.mark.parametrize(
    ("ahead", "hint"), [(timedelta(minutes=59), False), (timedelta(minutes=61), True), (timedelta(days=1), True)]
)
async def test_a_webhook_dated_tomorrow_is_a_hint_of_today(
    migrated: MigratedDatabase, ahead: timedelta, *, hint: bool
) -> None:
    dated = NOW + ahead
    body = comment("e1", updated_at=dated.isoformat()).replace(b"2026-11-25T06:31:20Z", dated.isoformat().encode())
    async with intake(migrated.url("nightshift_ingest")) as running:
        answer = await running.zendesk(body, "i1")
        again = await running.zendesk(body, "i2")
        [row] = await running.rows("SELECT headers, body FROM outbox")

    told = decode(row["headers"], row["body"]).data
    assert isinstance(told, CaseChanged)
    assert (answer.status, again.json["duplicate"]) == (202, True)
    assert told.hint is hint
    assert (told.occurred_at, told.version) == ((NOW, version_of(NOW)) if hint else (dated, version_of(dated)))


@pytest.mark.parametrize(
    "dates",
    [
        pytest.param({"created_at": (NOW + timedelta(minutes=61)).isoformat()}, id="a ticket of tomorrow"),
        pytest.param({"created_at": "9999-12-31T23:59:59Z"}, id="a ticket of the last day"),
        pytest.param({"created_at": "0001-01-01T00:00:00Z"}, id="a ticket of the first day"),
        pytest.param({"time": "0001-01-01T00:00:00Z"}, id="an event of the first day"),
        pytest.param({"updated_at": "1969-12-31T23:59:59Z"}, id="an update before 1970"),
    ],
)
async def test_no_date_of_a_webhook_is_believed_that_no_ticket_can_have(
    migrated: MigratedDatabase, dates: Mapping[str, str]
) -> None:
    told = orjson.loads(comment("e1"))
    told["type"] = "zen:event-type:ticket.created"
    (told if "time" in dates else told["detail"]).update(dates)
    async with intake(migrated.url("nightshift_ingest")) as running:
        answer = await running.zendesk(orjson.dumps(told), "i1")
        [row] = await running.rows("SELECT headers, body FROM outbox")

    event = decode(row["headers"], row["body"])
    assert answer.status == 202
    assert isinstance(event.data, CaseChanged)
    assert (event.data.hint, event.time, event.data.version) == (True, NOW, version_of(NOW))
    assert SUPPORT.case.basis(SUPPORT.case.fold(None, event.data)) is None
