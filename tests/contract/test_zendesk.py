"""The connector against the simulated Zendesk: what is written there comes out here, and the other way round."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import orjson
import pytest
from pydantic import JsonValue

from connectors import http_transport
from connectors.protocol import PlainChange, Update
from connectors.zendesk import Zendesk
from contracts.base import Json
from contracts.basis import basis_of, version_of
from contracts.decision import Request
from contracts.failures import ConflictError, LaterError, OutcomeUnknownError, PermanentError
from nightshift.world.app import build
from nightshift.world.books import books
from nightshift.world.model import AGENT_ID, OUR_USER_ID, Ticket
from nightshift.world.night import play
from nightshift.world.world import World
from services.ingest.domain.reconciliation import Heard, compare
from tests.contract.promises import Account, Destination, Job, ListsPromises, SendsPromises
from tests.fakes.other_side import Answer
from tests.fakes.world import START, Clock, connector, served, world as new_world

OURS = str(OUR_USER_ID)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def world(clock: Clock) -> AsyncIterator[World]:
    async with httpx.AsyncClient() as client:
        yield new_world(clock, client)


@pytest.fixture
async def zendesk(world: World) -> AsyncIterator[Zendesk]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build(world))) as client:
        yield connector(client)


@pytest.fixture
def events(world: World) -> list[Json]:
    """Every event that the world told of, in order."""
    told: list[Json] = []
    world.zendesk.listeners.append(lambda _, siblings: told.extend(siblings))
    return told


@pytest.fixture
def ticket(world: World) -> Ticket:
    ann = world.zendesk.add_customer("Ann", "ann@example.com")
    return world.zendesk.create(ann.id, "Order", "Where is it?", channel="email")


def reply(ticket: Ticket, text: str = "It is on its way.", *, public: bool = True, **more: JsonValue) -> Request:
    body: Json = {"ticket": {"comment": {"body": text, "public": public}, **more}}
    return Request(kind="reply", connector="zendesk", object_id=str(ticket.id), semantics="conditional", body=body)


def received(zendesk: Zendesk, events: list[Json]) -> list[PlainChange]:
    return [one for event in events for one in zendesk.receive(event, orjson.dumps(event), START)]


def comments(changes: list[PlainChange]) -> dict[str, tuple[str, str, str]]:
    """Basis, author and text of each comment, by its name."""
    return {
        str(c.fields["comment_id"]): (
            basis_of(version_of(START.fromisoformat(str(c.fields["comment_created_at"]))), str(c.fields["comment_id"])),
            c.author,
            c.texts["body"],
        )
        for c in changes
        if "comment_id" in c.fields
    }


class TestZendeskSends(SendsPromises):
    @pytest.fixture
    async def destination(self) -> AsyncIterator[Destination]:
        async with http_transport.client() as client:
            yield lambda url, seconds: connector(client, url, timeout_seconds=seconds)

    @pytest.fixture
    def job(self, ticket: Ticket) -> Job:
        stamp = "2026-11-25T06:00:00Z"
        yes = {
            "ticket": {"id": ticket.id, "updated_at": stamp},
            "audit": {"id": 7, "author_id": OUR_USER_ID, "created_at": stamp},
        }
        return Job(request=reply(ticket), stamp=stamp, yes=Answer(200, orjson.dumps(yes)))


async def test_a_reply_is_acknowledged_with_its_audit_and_read_back_by_its_key(
    zendesk: Zendesk, ticket: Ticket, clock: Clock
) -> None:
    stamp = await zendesk.current_stamp(str(ticket.id))
    clock.tick(3)

    done = await zendesk.send(reply(ticket, status="solved"), effect_key="k1", stamp=stamp)

    assert ticket.comments[-1].body == "It is on its way."
    assert (done.at, done.stamp) == (START + timedelta(seconds=3), "2026-11-25T06:00:03Z")
    (written,) = await zendesk.written(str(ticket.id))
    assert (written.reference, written.effect_key, written.public) == (done.reference, "k1", True)


async def test_an_internal_note_is_read_back_as_not_public(zendesk: Zendesk, ticket: Ticket) -> None:
    stamp = await zendesk.current_stamp(str(ticket.id))

    await zendesk.send(reply(ticket, public=False, additional_tags=["held"]), effect_key="k1", stamp=stamp)

    assert [one.public for one in await zendesk.written(str(ticket.id))] == [False]
    assert ticket.tags == ["held"]


async def test_what_somebody_else_writes_with_our_account_has_no_key(
    zendesk: Zendesk, world: World, ticket: Ticket
) -> None:
    world.zendesk.comment(ticket.id, OUR_USER_ID, "typed by hand")

    assert [one.effect_key for one in await zendesk.written(str(ticket.id))] == [None]


async def test_a_conditional_write_loses_against_what_happened_since(
    zendesk: Zendesk, world: World, ticket: Ticket, clock: Clock
) -> None:
    stamp = await zendesk.current_stamp(str(ticket.id))
    clock.tick(1)
    world.zendesk.comment(ticket.id, ticket.requester_id, "Hello?")

    with pytest.raises(ConflictError):
        await zendesk.send(reply(ticket), effect_key="k1", stamp=stamp)

    assert books(world.zendesk.state)["replies"] == 0


async def test_closed_and_deleted_tickets_refuse_for_ever(zendesk: Zendesk, world: World, ticket: Ticket) -> None:
    stamp = await zendesk.current_stamp(str(ticket.id))
    world.zendesk.update(ticket.id, {"status": "closed"}, actor_id=AGENT_ID)
    with pytest.raises(PermanentError) as closed:
        await zendesk.send(reply(ticket), effect_key="k1", stamp=stamp)
    world.zendesk.remove(ticket.id)
    with pytest.raises(PermanentError) as deleted:
        await zendesk.current_stamp(str(ticket.id))

    assert (closed.value.code, deleted.value.code) == ("closed", "gone")


async def test_wrong_credentials_are_mended_by_a_person_and_waited_for(world: World) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build(world))) as client:
        stranger = Zendesk(base_url="http://world", email="x", token="y", our_user_id=OURS, client=client)
        with pytest.raises(LaterError) as refused:
            await stranger.user_id()

    assert refused.value.code == "forbidden"


@pytest.mark.parametrize(
    ("ticket_answers", "me_answers", "me", "kind"),
    [
        (403, 200, {"id": 999, "role": "agent"}, PermanentError),
        (200, 200, {"id": 999, "role": "agent"}, LaterError),
        (403, 200, {"id": 999, "role": "end-user"}, LaterError),
        (403, 200, {"id": None, "role": "end-user"}, LaterError),
        (403, 403, {}, LaterError),
        (403, 401, {}, LaterError),
    ],
)
async def test_a_403_is_about_the_ticket_only_where_a_known_agent_may_not_see_it(
    ticket_answers: int, me_answers: int, me: Json, kind: type[Exception]
) -> None:
    def answers(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            return httpx.Response(403)
        if request.url.path.endswith("/users/me.json"):
            return httpx.Response(me_answers, json={"user": me})
        return httpx.Response(ticket_answers)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answers)) as client:
        zendesk = Zendesk(base_url="http://world", email="x", token="y", our_user_id=OURS, client=client)
        request = Request(kind="reply", connector="zendesk", object_id="1", semantics="idempotent", body={"ticket": {}})
        with pytest.raises(kind) as refused:
            await zendesk.send(request, effect_key="k1", stamp=None)

    assert getattr(refused.value, "code", None) == "forbidden"


async def test_the_connector_knows_who_it_is(zendesk: Zendesk) -> None:
    assert await zendesk.user_id() == OURS


async def test_a_comment_has_one_name_one_basis_and_one_text_by_either_way(
    zendesk: Zendesk, world: World, events: list[Json], ticket: Ticket, clock: Clock
) -> None:
    clock.tick(2)
    world.zendesk.comment(ticket.id, ticket.requester_id, "<p>Hello?</p>")
    clock.tick(2)
    world.zendesk.comment(ticket.id, AGENT_ID, "I look.", public=False)
    clock.tick(2)
    await zendesk.send(reply(ticket), effect_key="k1", stamp=await zendesk.current_stamp(str(ticket.id)))

    told = comments(received(zendesk, events))
    read = comments(list(await zendesk.read(str(ticket.id))))

    assert read == told
    assert sorted(author for _, author, _ in read.values()) == ["customer", "customer", "ours", "staff"]


async def test_the_last_change_of_a_reading_holds_the_state(
    zendesk: Zendesk, world: World, ticket: Ticket, clock: Clock
) -> None:
    clock.tick(1)
    world.zendesk.update(ticket.id, {"status": "pending", "assignee_id": AGENT_ID}, actor_id=AGENT_ID)

    changes = await zendesk.read(str(ticket.id))

    assert changes[0].opens
    assert changes[-1].kind == "read"
    assert (changes[-1].fields["status"], changes[-1].fields["assignee_id"]) == ("pending", str(AGENT_ID))
    assert changes[-1].fields["updated_at"] == await zendesk.current_stamp(str(ticket.id))


async def test_updates_of_one_second_keep_the_order_of_their_audits(
    zendesk: Zendesk, world: World, ticket: Ticket
) -> None:
    for status in ("pending", "open", "solved"):
        world.zendesk.update(ticket.id, {"status": status, "priority": None}, actor_id=AGENT_ID)

    changes = await zendesk.read(str(ticket.id))

    order = sorted(changes, key=lambda c: (c.version, c.position))
    assert [c.fields["status"] for c in order if "status" in c.fields] == [
        "new",
        "pending",
        "open",
        "solved",
        "solved",
    ]


async def test_reading_twice_gives_the_same_changes(zendesk: Zendesk, ticket: Ticket) -> None:
    assert await zendesk.read(str(ticket.id)) == await zendesk.read(str(ticket.id))


async def test_a_ticket_that_is_gone_reads_as_deleted(zendesk: Zendesk, world: World, ticket: Ticket) -> None:
    world.zendesk.remove(ticket.id)

    (change,) = await zendesk.read(str(ticket.id))

    assert (change.kind, change.version) == ("soft_deleted", version_of(START))


async def test_a_long_history_is_read_over_its_pages(zendesk: Zendesk, world: World, ticket: Ticket) -> None:
    for number in range(230):
        world.zendesk.comment(ticket.id, ticket.requester_id, f"message {number}")

    read = comments(list(await zendesk.read(str(ticket.id))))

    assert len(read) == 231


class TestZendeskLists(ListsPromises):
    @pytest.fixture
    def account(self, zendesk: Zendesk, world: World, clock: Clock) -> Account:
        ann = world.zendesk.add_customer("Ann", "ann@example.com")
        world.api.lag_seconds = -1  # what is there is listed

        def comment(ticket: str) -> None:
            """A ticket that is not there yet is opened by it."""
            clock.tick(1)
            if int(ticket) not in world.zendesk.state.tickets:
                world.zendesk.create(ann.id, "Order", "Where is it?")
            else:
                world.zendesk.comment(int(ticket), ann.id, "And?")

        return Account(zendesk, zendesk, START, comment)


async def test_more_updates_of_one_second_than_a_page_takes_are_all_listed(
    zendesk: Zendesk, world: World, clock: Clock
) -> None:
    ann = world.zendesk.add_customer("Ann", "ann@example.com")
    for count in (300, 2):
        for number in range(count):
            world.zendesk.create(ann.id, f"ticket {number}", "text")
        clock.tick(1)
    clock.tick(60)

    listed = {update.object_id for update in await every_update(zendesk)}

    assert listed == {str(number) for number in range(1, 303)}


async def test_the_list_tells_what_each_update_did_and_leaves_out_the_last_minute(
    zendesk: Zendesk, world: World, clock: Clock, ticket: Ticket
) -> None:
    world.zendesk.update(
        ticket.id,
        {"comment": {"body": "Look", "public": False}, "status": "pending", "custom_fields": [{"id": 7, "value": "x"}]},
        actor_id=AGENT_ID,
    )
    world.zendesk.remove(ticket.id)
    world.zendesk.restore(ticket.id)
    clock.tick(61)
    world.zendesk.comment(ticket.id, ticket.requester_id, "too new")

    page = await zendesk.list_updates(START, None)

    assert page.end
    assert [[sorted(part.kinds) for part in update.parts] for update in page.updates] == [
        [["created"]],
        [["comment_added"], ["status_changed"]],
        [["marked_as_spam", "permanently_deleted", "soft_deleted"]],
        [["undeleted"]],
    ]
    assert page.updates[1].parts[0].comment_id == str(ticket.comments[1].id)


async def test_webhooks_tell_each_part_of_each_update_on_the_list(
    zendesk: Zendesk, world: World, clock: Clock, events: list[Json]
) -> None:
    await play(world.zendesk, world.api.faults, lambda _done, _total: clock.tick(7), tickets=60, seconds=0, seed=3)
    clock.tick(120)

    updates = await every_update(zendesk)
    heard = [_heard(change) for change in received(zendesk, events)]
    found = compare(updates, heard, {kind for update in updates for part in update.parts for kind in part.kinds})

    assert found.listed > 60
    assert found.missing == ()
    for number in range(0, len(heard), 13):
        lost = heard[number]
        without = compare(updates, heard[:number] + heard[number + 1 :], {lost.kind})
        compared = any(lost.kind in part.kinds for update in updates for part in update.parts)
        assert [update.object_id for update in without.missing] == ([lost.object_id] if compared else [])


async def every_update(zendesk: Zendesk) -> list[Update]:
    found: list[Update] = []
    cursor = None
    while True:
        page = await zendesk.list_updates(START, cursor)
        found += page.updates
        if page.end:
            return found
        cursor = page.cursor


def _heard(change: PlainChange) -> Heard:
    comment_id = change.fields.get("comment_id")
    return Heard(change.object_id, change.kind, change.occurred_at, None if comment_id is None else str(comment_id))


async def test_a_down_zendesk_asks_for_patience(zendesk: Zendesk, world: World, ticket: Ticket) -> None:
    world.api.faults.down = "503"
    world.api.faults.retry_after_seconds = 9

    with pytest.raises(LaterError) as write:
        await zendesk.send(reply(ticket), effect_key="k1", stamp="2026-11-25T06:00:00Z")
    with pytest.raises(LaterError):
        await zendesk.read(str(ticket.id))

    assert write.value.seconds == 9


async def test_a_limit_asks_for_patience_and_nothing_was_done(zendesk: Zendesk, world: World, ticket: Ticket) -> None:
    world.api.faults.upcoming = ["rate_limited"]

    with pytest.raises(LaterError):
        await zendesk.send(reply(ticket), effect_key="k1", stamp=await zendesk.current_stamp(str(ticket.id)))

    assert books(world.zendesk.state)["replies"] == 0


async def test_a_yes_that_did_nothing_is_not_found_when_read_back(
    zendesk: Zendesk, world: World, ticket: Ticket
) -> None:
    world.api.faults.upcoming = ["no_effect"]

    await zendesk.send(reply(ticket), effect_key="k1", stamp=await zendesk.current_stamp(str(ticket.id)))

    assert await zendesk.written(str(ticket.id)) == ()


async def test_an_error_after_the_effect_is_unknown_and_found_when_read_back(
    zendesk: Zendesk, world: World, ticket: Ticket
) -> None:
    world.api.faults.upcoming = ["effect_then_500"]

    with pytest.raises(OutcomeUnknownError):
        await zendesk.send(reply(ticket), effect_key="k1", stamp=await zendesk.current_stamp(str(ticket.id)))

    assert [one.effect_key for one in await zendesk.written(str(ticket.id))] == ["k1"]


async def test_a_cut_connection_after_the_effect_is_unknown_and_found_when_read_back(
    world: World, ticket: Ticket
) -> None:
    async with served(build(world)) as url, http_transport.client() as client:
        zendesk = connector(client, url)
        stamp = await zendesk.current_stamp(str(ticket.id))
        world.api.faults.upcoming = ["effect_then_cut"]

        with pytest.raises(OutcomeUnknownError) as cut:
            await zendesk.send(reply(ticket), effect_key="k1", stamp=stamp)

        assert cut.value.code == "cut"
        assert [one.effect_key for one in await zendesk.written(str(ticket.id))] == ["k1"]


async def test_a_down_zendesk_that_cuts_connections_is_unknown_for_a_write_and_later_for_a_read(
    world: World, ticket: Ticket
) -> None:
    world.api.faults.down = "cut"
    async with served(build(world)) as url, http_transport.client() as client:
        with pytest.raises(OutcomeUnknownError):
            await connector(client, url).send(reply(ticket), effect_key="k1", stamp="2026-11-25T06:00:00Z")
        with pytest.raises(LaterError):
            await connector(client, url).read(str(ticket.id))


@pytest.mark.parametrize("late_first", [True, False])
async def test_of_a_late_call_and_its_retry_under_the_same_stamp_only_one_takes_effect(
    world: World, ticket: Ticket, clock: Clock, *, late_first: bool
) -> None:
    async with served(build(world)) as url, http_transport.client() as client:
        stamp = await connector(client, url).current_stamp(str(ticket.id))
        world.api.faults.upcoming = ["late"]
        with pytest.raises(OutcomeUnknownError) as unknown:
            await connector(client, url, timeout_seconds=0.3).send(reply(ticket), effect_key="k1", stamp=stamp)
        assert unknown.value.code == "timeout"

        zendesk = connector(client, url)
        clock.tick(61 if late_first else 2)
        if late_first:
            with pytest.raises(ConflictError):
                await zendesk.send(reply(ticket), effect_key="k1", stamp=stamp)
        else:
            await zendesk.send(reply(ticket), effect_key="k1", stamp=stamp)
        clock.tick(61)
        world.zendesk.advance()

        assert [one.effect_key for one in await zendesk.written(str(ticket.id))] == ["k1"]
        assert books(world.zendesk.state)["answered_once"] == 1


async def test_an_endless_history_is_given_up(zendesk: Zendesk, world: World, ticket: Ticket) -> None:
    for number in range(3001):
        world.zendesk.comment(ticket.id, ticket.requester_id, str(number))

    with pytest.raises(PermanentError) as refused:
        await zendesk.written(str(ticket.id))

    assert refused.value.code == "history_too_long"
