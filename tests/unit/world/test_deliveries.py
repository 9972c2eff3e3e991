import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

from nightshift.world.deliveries import Mischief, Sender, signature
from nightshift.world.zendesk import Zendesk
from tests.fakes.world import SECRET, Clock

VECTORS = Path(__file__).parents[2] / "data" / "webhooks" / "zendesk"
Handler = Callable[[httpx.Request], httpx.Response]


def accepted(request: httpx.Request) -> httpx.Response:
    timestamp = request.headers["x-zendesk-webhook-signature-timestamp"]
    expected = base64.b64encode(hmac.digest(SECRET.encode(), timestamp.encode() + request.content, hashlib.sha256))
    right = request.headers["x-zendesk-webhook-signature"].encode() == expected
    return httpx.Response(202 if right and timestamp > "2026-11-25T05" else 401)


@asynccontextmanager
async def sending(handler: Handler, mischief: Mischief | None = None) -> AsyncIterator[tuple[Zendesk, Sender]]:
    clock = Clock()
    zendesk = Zendesk(clock)
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        sender = Sender(
            url="http://intake/webhooks",
            secret=SECRET,
            client=client,
            clock=clock,
            random=Random(3),
            mischief=mischief,
        )
        zendesk.listeners.append(sender)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sender.run())
            yield zendesk, sender
            running.cancel()


async def finished(sender: Sender) -> None:
    async with asyncio.timeout(10):
        while not sender.idle:
            await asyncio.sleep(0)


def tickets(zendesk: Zendesk, count: int) -> None:
    ann = zendesk.add_customer("Ann", "ann@example.com")
    for number in range(count):
        zendesk.create(ann.id, f"ticket {number}", "text")


def test_signatures_are_those_of_the_public_vectors() -> None:
    for vector in json.loads((VECTORS / "vectors.json").read_text()):
        body = (VECTORS / vector["body_file"]).read_bytes() if "body_file" in vector else vector["body"].encode()
        assert signature(vector["secret"], vector["timestamp"], body) == vector["signature"]


async def test_every_event_is_delivered_signed() -> None:
    async with sending(accepted) as (zendesk, sender):
        tickets(zendesk, 5)
        await finished(sender)

    assert sender.counts == {"genuine": 5, "answered_202": 5}


async def test_copies_have_invocation_ids_of_their_own_and_equal_bodies() -> None:
    seen: list[tuple[str, bytes]] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["x-zendesk-webhook-invocation-id"], request.content))
        return httpx.Response(202)

    async with sending(note, Mischief(copies_max=3, shuffled_seconds=0.01)) as (zendesk, sender):
        tickets(zendesk, 40)
        await finished(sender)

    assert len({invocation for invocation, _ in seen}) == len(seen)
    copies = Counter(body for _, body in seen)
    assert len(copies) == 40
    assert set(copies.values()) == {1, 2, 3}


async def test_stragglers_stay_pending_until_they_are_let_go_and_then_nothing_straggles() -> None:
    async with sending(accepted, Mischief(copies_min=2, copies_max=2, straggling_percent=100)) as (zendesk, sender):
        tickets(zendesk, 20)
        assert sender.counts["answered_202"] == 0

        let_go = sender.let_stragglers_go()
        tickets(zendesk, 20)
        await finished(sender)

    assert let_go == 40
    assert sender.counts["answered_202"] == 80


async def test_forged_and_stale_deliveries_are_refused_by_an_honest_check() -> None:
    async with sending(accepted, Mischief(forged_percent=50, stale_percent=50)) as (zendesk, sender):
        tickets(zendesk, 40)
        await finished(sender)

    assert sender.counts["forged"] > 0
    assert sender.counts["stale"] > 0
    assert sender.counts["answered_202"] == 40
    assert sender.counts["answered_401"] == sender.counts["forged"] + sender.counts["stale"]


@pytest.mark.parametrize(("answer", "attempts"), [(202, 1), (500, 1), (404, 1), (401, 1), (409, 3)])
async def test_only_some_answers_are_tried_again(answer: int, attempts: int) -> None:
    async with sending(lambda _: httpx.Response(answer)) as (zendesk, sender):
        tickets(zendesk, 1)
        await finished(sender)

    (delivery,) = sender.deliveries.values()
    assert (delivery.attempts, delivery.status) == (attempts, answer)


async def test_a_retry_after_an_outage_keeps_its_invocation_id() -> None:
    seen: list[str] = []

    def flaky(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["x-zendesk-webhook-invocation-id"])
        if len(seen) == 1:
            raise httpx.ConnectError("down")
        return httpx.Response(503, headers={"retry-after": "0"}) if len(seen) == 2 else httpx.Response(202)

    async with sending(flaky) as (zendesk, sender):
        tickets(zendesk, 1)
        await finished(sender)

    assert len(seen) == 3
    assert len(set(seen)) == 1


async def test_an_update_may_be_told_by_a_triggers_body() -> None:
    bodies: list[dict[str, object]] = []

    def note(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(202)

    async with sending(note, Mischief(trigger_percent=100)) as (zendesk, sender):
        tickets(zendesk, 1)
        await finished(sender)

    assert bodies == [
        {
            "ticket_id": "1",
            "subject": "ticket 0",
            "status": "New",
            "priority": "",
            "assignee_id": "",
            "updated_at": "2026-11-25T06:00:00Z",
        }
    ]


async def test_a_dropped_event_is_never_sent_and_is_on_record() -> None:
    async with sending(accepted, Mischief(dropped_percent=100)) as (zendesk, sender):
        tickets(zendesk, 2)
        sender.mischief.dropped_percent = 0
        tickets(zendesk, 1)
        await finished(sender)

    assert sender.counts == {"dropped": 2, "genuine": 1, "answered_202": 1}
    assert [(one.ticket_id, one.type) for one in sender.dropped] == [
        (1, "zen:event-type:ticket.created"),
        (2, "zen:event-type:ticket.created"),
    ]
