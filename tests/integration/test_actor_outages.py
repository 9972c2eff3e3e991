"""Hours of trouble with the third party, in seconds: the actor's own loops against a remote that keeps its own books.

What a test measured is in its report: `make test ARGS="--junitxml=report.xml"` writes it as the property `outage`.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from contracts.events.dead_letters import DeadLetterRaised
from services.actor.outbound.lane import CLAIM_TO_CALL_SECONDS
from services.reporter.domain.views import CaseRow
from tests.conftest import MigratedDatabase
from tests.fakes import remote
from tests.fakes.living import Living, living, zendesk_like
from tests.fakes.remote import Landed, Remote, Trouble
from tests.virtual import VirtualTime, live

BEGINS_AT = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
CUT_AT = 30.0
PER_SECOND, BREAKER_OPEN_SECONDS, ANSWERS_WITHIN_SECONDS, FIRST_REPLY_MINUTES = 5.0, 15.0, 11.0, 60.0
IN_A_SECOND_MAX = PER_SECOND * (1 + CLAIM_TO_CALL_SECONDS) + 1
"""Requests take their turn at the pace, one was saved up, and each arrives within that time after its turn."""
OPENS_WITHIN_SECONDS = 30.0
CALM_SECONDS = 15.0
"""Of looking at what was sent last, and of idle lanes."""
Record = Callable[[str, object], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What was measured of one outage. Seconds are of virtual time."""

    waited: int
    """Tickets that waited when it ended."""
    opened_after: float
    """From the first request that met trouble until only probes were let through."""
    probes: int
    probes_apart: float
    """The least time between two of them."""
    back_after: float
    """From the end until the first request was answered."""
    per_second_after: int
    """The most requests in one second after the end."""
    out_of_order: int
    """Answers after the end that overtook an older one."""
    drained_after: float
    """From the end until everything was seen outside."""
    requests_after: int


def asks(count: int, *, until: float) -> list[tuple[float, str]]:
    """A few questions in quiet times, a rush as the trouble begins, then one now and then."""
    rush = count // 4
    early = [(10.0 * n, str(n)) for n in range(3)]
    rushing = [(CUT_AT + n / 4, str(3 + n)) for n in range(rush)]
    rest = count - 3 - rush
    every = (until - CUT_AT - rush) / rest
    return early + rushing + [(CUT_AT + rush + n * every, str(3 + rush + n)) for n in range(rest)]


def measured(actor: Living, *, ends: float, ended: float) -> Outage:
    found = actor.remote
    met = [at for at in found.requests if CUT_AT <= at < ends]
    apart = [later - earlier for earlier, later in pairwise(met)]
    probing = next((n for n in range(len(apart)) if min(apart[n:]) >= BREAKER_OPEN_SECONDS - 0.1), len(apart))
    after = [one for one in found.landed if one.seconds >= ends]
    return Outage(
        waited=len({one.object_id for one in after}),
        opened_after=met[probing] - met[0],
        probes=len(met) - probing - 1,
        probes_apart=min(apart[probing:], default=math.inf),
        back_after=min(at for at in found.requests if at >= ends) - ends,
        per_second_after=found.requests_most(since=ends),
        out_of_order=_overtaking(after),
        drained_after=ended - ends,
        requests_after=sum(at >= ends for at in found.requests),
    )


def _overtaking(landed: Sequence[Landed]) -> int:
    order = [int(one.object_id) for one in landed]
    return sum(earlier > min(order[n + 1 :], default=earlier) for n, earlier in enumerate(order))


async def outage(
    time: VirtualTime, migrated: MigratedDatabase, trouble: Trouble, *, minutes: float, tickets: int, lanes: int = 1
) -> Outage:
    """One outage from its beginning until everything was made good; each ticket is answered once, and in its time."""
    ends = CUT_AT + 60 * minutes
    async with living(migrated, time, (CUT_AT, ends, trouble)) as actor:
        ended = await actor.live(asks(tickets, until=ends), until_seconds=ends + 900, lanes=lanes)
        await answered_once_each(actor, tickets)
        sla_is_right(await actor.cases(), actor.remote)
        return measured(actor, ends=ends, ended=ended)


async def answered_once_each(actor: Living, tickets: int) -> None:
    found = actor.remote
    assert (len(found.tickets), found.answers_most) == (tickets, 1), "by the remote's own books"
    assert all(ticket.answers_since_customer == [1] for ticket in found.tickets.values())
    assert Counter((await actor.states()).values()) == {"observed": tickets}
    assert await actor.said(DeadLetterRaised) == []


def sla_is_right(rows: dict[str, CaseRow], found: Remote) -> None:
    """The clocks ran on: each verdict is what the remote's clock says."""
    for one in found.landed:
        row = rows[one.object_id]
        assert row.opened_at is not None
        waited = (found.time.begins_at.timestamp() + one.seconds - row.opened_at.timestamp()) / 60
        assert row.sla.minutes == pytest.approx(waited, abs=1 / 60)
        assert row.sla.state == ("met" if waited <= FIRST_REPLY_MINUTES else "breached")


def held(found: Outage, *, lanes: int = 1) -> None:
    """What is promised of every outage."""
    assert found.opened_after <= OPENS_WITHIN_SECONDS
    assert found.probes_apart >= BREAKER_OPEN_SECONDS - 0.1
    assert found.back_after <= BREAKER_OPEN_SECONDS + ANSWERS_WITHIN_SECONDS
    assert found.per_second_after <= lanes * IN_A_SECOND_MAX, "paced, and no herd"
    assert found.out_of_order <= lanes, "the probe"
    assert found.drained_after <= found.back_after + found.requests_after / (lanes * PER_SECOND) + CALM_SECONDS
    assert found.requests_after <= 3 * found.waited + 10, "a call and a look each, and one more look where it is unsure"


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(remote.refused, id="refused"),
        pytest.param(remote.failing, id="500"),
        pytest.param(remote.silent, id="silent"),
        pytest.param(remote.asks_for_patience("unavailable", 20), id="503 with Retry-After"),
    ],
)
def test_forty_minutes_without_the_third_party(
    migrated: MigratedDatabase, record_property: Record, trouble: Trouble
) -> None:
    found = live(lambda time: outage(time, migrated, trouble, minutes=40, tickets=100), begins_at=BEGINS_AT)

    record_property("outage", asdict(found))
    held(found)
    assert found.waited >= 95
    assert found.probes <= 40 * 60 / BREAKER_OPEN_SECONDS


def test_five_hours_without_the_third_party(migrated: MigratedDatabase, record_property: Record) -> None:
    found = live(lambda time: outage(time, migrated, remote.refused, minutes=300, tickets=150), begins_at=BEGINS_AT)

    record_property("outage", asdict(found))
    held(found)
    assert found.waited >= 145


def test_two_senders_come_back_from_an_outage_as_calmly_as_one(migrated: MigratedDatabase) -> None:
    found = live(
        lambda time: outage(time, migrated, remote.refused, minutes=10, tickets=60, lanes=2), begins_at=BEGINS_AT
    )

    assert found.per_second_after <= 2 * IN_A_SECOND_MAX
    assert found.out_of_order <= 2 * 2, "each sender's probe, and what two send at the same moment"


def test_who_asks_for_patience_gets_it_whole_and_nothing_arrives_meanwhile(migrated: MigratedDatabase) -> None:
    async def scenario(time: VirtualTime) -> None:
        limited = remote.asks_for_patience("rate_limited", 30)
        async with living(migrated, time, (CUT_AT, CUT_AT + 300, limited)) as actor:
            await actor.live(asks(40, until=330), until_seconds=900)
            await answered_once_each(actor, 40)
            met = [at for at in actor.remote.requests if CUT_AT <= at < CUT_AT + 330]
            assert all(later - earlier >= 30 for earlier, later in pairwise(met) if earlier < 330)
            assert actor.remote.requests_most(since=CUT_AT) <= IN_A_SECOND_MAX
            assert actor.lane.breaker.state(actor.clock()) == "closed"

    live(scenario, begins_at=BEGINS_AT)


def test_one_ticket_that_cannot_be_written_keeps_no_breaker_open_and_no_other_waiting(
    migrated: MigratedDatabase,
) -> None:
    async def scenario(time: VirtualTime) -> None:
        down = (CUT_AT, CUT_AT + 300, remote.refused)
        alone = (CUT_AT + 300, 3600.0, remote.about("3", remote.asks_for_patience("unavailable", 5)))
        async with living(migrated, time, down, alone) as actor:  # 3 is the first that waits
            await actor.live(asks(40, until=330), until_seconds=4500)
            others = [one.seconds for one in actor.remote.landed if one.object_id != "3"]
            assert max(others) <= CUT_AT + 300 + 120
            await answered_once_each(actor, 40)

    live(scenario, begins_at=BEGINS_AT)


WAYS = {
    remote.failing: 0.15,
    remote.refused: 0.05,
    remote.silent: 0.03,
    remote.asks_for_patience("rate_limited", 7): 0.03,
    remote.done_and("server_error", 0.1): 0.05,
    remote.done_and("cut", 0.0): 0.05,
    remote.done_and("timeout", 10.0): 0.05,
    remote.late: 0.05,
    remote.nothing: 0.05,
}


@pytest.mark.parametrize("seed", [3, 8, 10])
def test_a_third_party_that_fails_in_every_way_answers_each_customer_once_or_a_person_has_the_case(
    migrated: MigratedDatabase, seed: int
) -> None:
    async def scenario(time: VirtualTime) -> None:
        async with living(migrated, time, (0, math.inf, remote.sometimes(seed, WAYS))) as actor:
            ended = await actor.live([(10.0 * n, str(n)) for n in range(60)], until_seconds=1800)
            rows, found = await actor.cases(), actor.remote
            assert ended <= 600 + 600
            assert found.answers_most == 1
            for ticket, row in rows.items():
                answered = found.tickets[ticket].answers_since_customer == [1]
                assert row.state == ("answered" if answered else "held"), "as the remote's books say"
                assert (row.sla.state == "met") == answered
                noted = any(not written.public for written in found.tickets[ticket].written)
                assert answered or noted, "a person was told where people work"
            assert await actor.said(DeadLetterRaised) == []

    live(scenario, begins_at=BEGINS_AT)


def test_a_call_that_lands_a_minute_late_is_answered_once_however_often_it_was_sent(migrated: MigratedDatabase) -> None:
    async def scenario(time: VirtualTime) -> None:
        async with living(migrated, time, (0, 5, remote.late)) as actor:
            await actor.live([(1.0, "1")], until_seconds=300)
            assert len(actor.remote.calls) > 1
            await answered_once_each(actor, 1)
            await actor.live([(200.0, "2")], until_seconds=400)  # by then the late one has landed
            await answered_once_each(actor, 2)

    live(scenario, begins_at=BEGINS_AT)


@pytest.mark.parametrize(
    ("setting", "kinds"), [("resend", ["reply", "reply", "handover"]), ("person", ["reply", "handover"])]
)
def test_what_was_acknowledged_and_is_not_there_is_found_in_time_and_redone_or_given_to_a_person(
    migrated: MigratedDatabase, setting: str, kinds: list[str]
) -> None:
    async def scenario(time: VirtualTime) -> None:
        process = zendesk_like(not_there=setting, seen_within_seconds=20)
        replies = remote.of_kind("reply", remote.nothing)
        async with living(migrated, time, (0, math.inf, replies), process=process) as actor:
            await actor.live([(1.0, "1")], until_seconds=300)

            assert [call.request.kind for call in actor.remote.calls] == kinds
            for earlier, later in pairwise(actor.remote.called_at):
                assert 20 <= later - earlier <= 22
            assert (await actor.states()) == {"reply 1.1": "person", "handover 1.1": "observed"}
            [row] = (await actor.cases()).values()
            assert (row.state, row.sla.state, row.first_reply_at) == ("held", "waiting", None)
            assert row.last_error is not None
            assert row.last_error.code == "not_there"

    live(scenario, begins_at=BEGINS_AT)


def test_what_was_acknowledged_is_not_given_up_while_nobody_can_look(migrated: MigratedDatabase) -> None:
    async def scenario(time: VirtualTime) -> None:
        blind = remote.of_kind("read", remote.failing)
        async with living(migrated, time, (0, 3600, blind)) as actor:
            ended = await actor.live([(1.0, "1")], until_seconds=4000)

            assert ended >= 3600
            assert len(actor.remote.calls) == 1
            await answered_once_each(actor, 1)

    live(scenario, begins_at=BEGINS_AT)


def test_while_nobody_can_look_customers_are_answered_all_the_same(migrated: MigratedDatabase) -> None:
    async def scenario(time: VirtualTime) -> None:
        blind = remote.of_kind("read", remote.failing)
        async with living(migrated, time, (0, 3600, blind)) as actor:
            asked_at = [(60.0 * n, str(n)) for n in range(1, 41)]
            await actor.live(asked_at, until_seconds=4500)

            await answered_once_each(actor, 40)
            answered_at = {one.object_id: one.seconds for one in actor.remote.landed}
            waited = [answered_at[ticket] - at for at, ticket in asked_at]
            assert max(waited) <= 2 * BREAKER_OPEN_SECONDS, waited
            sla_is_right(await actor.cases(), actor.remote)

    live(scenario, begins_at=BEGINS_AT)
