"""Webhooks that never come, and a help desk full of old tickets: what is missed is found, and what is old is left."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

from nightshift.demo.play import PROCESS
from nightshift.world.deliveries import Mischief
from nightshift.world.model import AGENT_ID
from services.ingest.domain.delivery import delivery_id_of
from services.runtime.process import SHIPPED, load
from tests.chaos.conftest import Chaos
from tests.chaos.system import Plan, System
from tests.waiting import until

FOUND_SECONDS_MAX = 120.0
OFTEN = {
    "NIGHTSHIFT_RECONCILE_SECONDS": "2",
    "NIGHTSHIFT_RECONCILE_GRACE_SECONDS": "5",
    "NIGHTSHIFT_LIST_CALLS_PER_MINUTE": "600",
}
"""An hour's comparison in seconds; webhooks are shuffled by less than the grace."""
_BEGUN = "SELECT 1 FROM ingest.reconciled_doors"
_TAKEN_IN = "SELECT count(*) FROM ingest.seen WHERE delivery = ANY($1::uuid[]) HAVING count(*) >= $2"
_MARKED = """
SELECT sum((row ->> 'missing')::integer) FROM reporter.projections WHERE kind = 'intake' AND state = 'backfilled'
"""
_ALL_MARKED = f"{_MARKED} HAVING sum((row ->> 'missing')::integer) >= $1"
_NOT_MENDED = "SELECT count(*) FROM reporter.projections WHERE kind = 'intake' AND state IN ('missing', 'unknown')"


async def test_a_thousandth_of_the_webhooks_is_lost_found_and_taken_in_late(chaos: Chaos) -> None:
    tickets = chaos.size(full=1400, short=120)
    percent = chaos.size(full=1, short=10) / 10
    plan = Plan(mischief=Mischief(copies_max=3, shuffled_percent=100), settings=OFTEN)
    async with chaos.system(plan) as system, asyncio.TaskGroup() as group:
        system.world.api.lag_seconds, system.world.api.lists_per_minute = 1, 100_000
        playing = group.create_task(system.play(tickets, tickets * 0.2))
        await comes_true(system, _BEGUN)
        system.world.sender.mischief.dropped_percent = percent
        await playing
        system.world.sender.mischief.dropped_percent = 0
        lost = missing_updates(system)
        assert lost, "the night is long enough"
        deliveries = [delivery_id_of(PROCESS, "zendesk", f"audit:{audit}") for audit in lost]
        began = asyncio.get_running_loop().time()
        await comes_true(system, _TAKEN_IN, deliveries, len(lost))
        await comes_true(system, _ALL_MARKED, len(lost))
        chaos.figures.notes["webhooks dropped"] = len(system.world.sender.dropped)
        chaos.figures.notes["updates missed"] = len(lost)
        chaos.figures.notes["seconds until the last was in"] = asyncio.get_running_loop().time() - began
        await system.judge()

        async with system.operator() as connection:
            assert await connection.fetchval(_NOT_MENDED) == 0


async def test_connecting_to_a_help_desk_of_open_tickets_sends_nothing(chaos: Chaos) -> None:
    old, new, lost = chaos.size(full=3000, short=300), 10, 20
    today = datetime.now(UTC).replace(microsecond=0)
    overrides = f"support.doors.zendesk.start_at = {today:%Y-%m-%dT%H:%M:%S}Z\n"
    grace = chaos.size(full=40, short=10)  # so many webhooks at once need longer on their way
    settings = OFTEN | {"NIGHTSHIFT_RECONCILE_GRACE_SECONDS": str(grace)}
    async with chaos.system(Plan(mischief=Mischief(), settings=settings, overrides=overrides)) as system:
        zendesk, sender = system.world.zendesk, system.world.sender
        system.world.api.lag_seconds, system.world.api.lists_per_minute = 1, 100_000
        sender.mischief.dropped_percent = 100  # nobody had connected it
        system.clock.ahead = timedelta(days=-3)
        people = [zendesk.add_customer(f"Old {n}", f"old{n}@example.com") for n in range(old)]
        tickets = [zendesk.create(person.id, "Order", "Where is my order?") for person in people]
        system.older = frozenset(ticket.id for ticket in tickets)
        system.clock.ahead = timedelta()
        sender.mischief.dropped_percent = 0
        await system.play(new, 2.0)
        await comes_true(system, _BEGUN)
        for number, ticket in enumerate(tickets):  # a macro: for some of them no webhook comes
            sender.mischief.dropped_percent = 100 if number < lost else 0
            zendesk.update(ticket.id, {"additional_tags": ["winter"]}, actor_id=AGENT_ID)
        sender.mischief.dropped_percent = 0
        deliveries = [delivery_id_of(PROCESS, "zendesk", f"audit:{ticket.audits[-1].id}") for ticket in tickets[:lost]]
        await comes_true(system, _TAKEN_IN, deliveries, lost)
        await comes_true(system, _ALL_MARKED, lost)
        async with system.operator() as connection:
            assert await connection.fetchval(_MARKED) == lost, "what came is not missed"
        found = await system.judge()

    assert found.writes, "the new ones are answered"


def missing_updates(system: System) -> set[int]:
    """The audits of which an event was dropped that the door compares."""
    zendesk = system.world.zendesk
    compared = load(PROCESS, SHIPPED).settings.doors["zendesk"].compared
    told_by = {
        str(zendesk._uuid("event", audit.id, position)): audit.id
        for ticket in zendesk.state.tickets.values()
        for audit in ticket.audits
        for position in range(1, len(audit.events) + 2)
    }
    return {told_by[one.event_id] for one in system.world.sender.dropped if one.type.rpartition(".")[2] in compared}


async def comes_true(system: System, sql: str, *arguments: object) -> None:
    """Once the query answers with a row."""
    async with system.operator() as connection:
        await until(partial(connection.fetchval, sql, *arguments), seconds=FOUND_SECONDS_MAX)
