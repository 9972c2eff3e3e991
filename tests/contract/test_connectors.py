"""Each connector keeps the promises of its kind, against a real server below it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Literal

import httpx
import orjson
import pytest

from connectors import http_transport
from connectors.http import HttpSource
from connectors.none import NoOutside
from connectors.protocol import LooksUp, PlainChange
from connectors.slack import Slack
from contracts.base import Json
from contracts.basis import version_of
from contracts.decision import Request
from contracts.failures import ConflictError, LaterError, PermanentError
from tests.contract.promises import (
    NO_PATIENCE_SECONDS,
    PATIENCE_SECONDS,
    Account,
    Destination,
    Job,
    ListsPromises,
    LooksUpPromises,
    SendsPromises,
)
from tests.fakes.other_side import Answer, Cut, OtherSide, Silence

NOW = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)


def a_request(semantics: Literal["conditional", "idempotent", "blind"] = "blind") -> Request:
    body: Json = {"text": "held: a refund"}
    return Request(kind="notice", connector="team", object_id="room", semantics=semantics, may_repeat=True, body=body)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with http_transport.client() as client:
        yield client


@pytest.fixture
async def other_side() -> AsyncIterator[OtherSide]:
    async with OtherSide() as server:
        yield server


class TestSlackSends(SendsPromises):
    @pytest.fixture
    def destination(self, client: httpx.AsyncClient) -> Destination:
        return lambda url, seconds: Slack(client=client, url=url, timeout_seconds=seconds, clock=lambda: NOW)

    @pytest.fixture
    def job(self) -> Job:
        return Job(a_request(), None, Answer(200, b"ok"))


class TestSlack:
    async def test_the_body_goes_out_as_the_process_rendered_it(
        self, client: httpx.AsyncClient, other_side: OtherSide
    ) -> None:
        other_side.answers = [Answer(200, headers={"date": "Wed, 25 Nov 2026 06:31:24 GMT"})]
        slack = Slack(client=client, url=other_side.url, timeout_seconds=1, clock=lambda: NOW)

        done = await slack.send(a_request(), effect_key="k1", stamp=None)

        assert [orjson.loads(asked.body) for asked in other_side.asked] == [{"text": "held: a refund"}]
        assert done.at == datetime(2026, 11, 25, 6, 31, 24, tzinfo=UTC)

    async def test_only_blind_requests_are_taken(self, client: httpx.AsyncClient, other_side: OtherSide) -> None:
        slack = Slack(client=client, url=other_side.url, timeout_seconds=1, clock=lambda: NOW)

        with pytest.raises(PermanentError):
            await slack.send(a_request("conditional"), effect_key="k1", stamp="s")

        assert other_side.asked == []

    async def test_without_a_date_the_time_is_ours(self, client: httpx.AsyncClient, other_side: OtherSide) -> None:
        slack = Slack(client=client, url=other_side.url, timeout_seconds=1, clock=lambda: NOW)

        assert (await slack.send(a_request(), effect_key="k1", stamp=None)).at == NOW


class TestHttpLooksUp(LooksUpPromises):
    @pytest.fixture
    async def source(self) -> AsyncIterator[LooksUp]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(_shop)) as client:
            yield HttpSource(
                client=client,
                base_url="http://shop.test/api/",
                queries={"order": "/orders?id={id}", "many": "/many"},
                timeout_seconds=PATIENCE_SECONDS,
            )


def _shop(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/api/many":
        return httpx.Response(200, json=[{"n": n} for n in range(150)])
    assert request.url.path == "/api/orders"
    found = request.url.params.multi_items() == [("id", "A-1")]
    return httpx.Response(200, json=[{"id": "A-1", "total": "19.90"}] if found else [])


class TestNoOutsideLooksUp(LooksUpPromises):
    @pytest.fixture
    def source(self) -> LooksUp:
        many = orjson.dumps([{"n": n} for n in range(150)]).decode()
        queries = {"order": '[{"id": "A-1", "total": "19.90"}]', "many": many}
        return NoOutside(clock=lambda: NOW, queries=queries)


class TestNoOutsideLists(ListsPromises):
    @pytest.fixture
    def account(self) -> Account:
        outside = NoOutside(clock=lambda: NOW)
        ordinals = count(1)

        def comment(object_id: str) -> None:
            number = next(ordinals)
            at = NOW + timedelta(seconds=number)
            change = PlainChange(
                object_id=object_id,
                kind="comment_added",
                identity=f"c{number}",
                update_id=f"u{number}",
                version=version_of(at),
                author="customer",
                occurred_at=at,
                fields={"comment_id": str(number)},
            )
            outside.put(change)

        return Account(outside, outside, NOW, comment)


class TestHttpSource:
    @pytest.mark.parametrize("broken", [Answer(500), Answer(503), Answer(429), Cut()])
    async def test_reading_can_always_be_tried_again(
        self, client: httpx.AsyncClient, other_side: OtherSide, broken: Answer | Cut
    ) -> None:
        other_side.answers = [broken]

        with pytest.raises(LaterError):
            await _source(client, other_side.url, "/orders").look_up("q", {})

    async def test_silence_has_a_limit(self, client: httpx.AsyncClient, other_side: OtherSide) -> None:
        other_side.answers = [Silence()]

        with pytest.raises(LaterError) as later:
            await _source(client, other_side.url, "/orders", seconds=NO_PATIENCE_SECONDS).look_up("q", {})

        assert later.value.code == "timeout"

    async def test_a_parameter_travels_as_one_segment(self, client: httpx.AsyncClient, other_side: OtherSide) -> None:
        other_side.answers = [Answer(200, b'{"id": 1}')]

        rows = await _source(client, other_side.url, "/orders/{id}/lines?of={of}").look_up(
            "q", {"id": "a/b?c#d", "of": ""}
        )

        assert rows == [{"id": 1}]
        assert other_side.asked[0].target == "/orders/a%2Fb%3Fc%23d/lines?of="
        assert other_side.asked[0].method == "GET"

    @pytest.mark.parametrize("value", ["..", ".", "", None, ["a"], {"a": "b"}])
    async def test_a_parameter_cannot_change_the_path(
        self, client: httpx.AsyncClient, other_side: OtherSide, value: None
    ) -> None:
        with pytest.raises(PermanentError) as refused:
            await _source(client, other_side.url, "/orders/{id}/lines").look_up("q", {"id": value})

        assert refused.value.code == "bad_parameter"
        assert other_side.asked == []

    @pytest.mark.parametrize("params", [{}, {"id": "1", "more": "2"}])
    async def test_parameters_are_complete(self, client: httpx.AsyncClient, params: dict[str, str]) -> None:
        with pytest.raises(PermanentError) as refused:
            await _source(client, "http://shop.test", "/orders/{id}").look_up("q", {**params})

        assert refused.value.code == "bad_parameter"

    @pytest.mark.parametrize(
        ("body", "code"),
        [(b"<html>", "unreadable"), (b'["a"]', "unreadable"), (b'"a"', "unreadable"), (b" " * 300_000, "too_large")],
    )
    async def test_an_answer_that_is_no_rows_is_refused(
        self, client: httpx.AsyncClient, other_side: OtherSide, body: bytes, code: str
    ) -> None:
        other_side.answers = [Answer(200, body)]

        with pytest.raises(PermanentError) as refused:
            await _source(client, other_side.url, "/orders").look_up("q", {})

        assert refused.value.code == code


def _source(client: httpx.AsyncClient, url: str, template: str, *, seconds: float = PATIENCE_SECONDS) -> HttpSource:
    return HttpSource(client=client, base_url=url, queries={"q": template}, timeout_seconds=seconds)


class TestNoOutside:
    async def test_a_blind_request_is_carried_out_every_time(self) -> None:
        outside = NoOutside(clock=lambda: NOW)

        for _ in range(2):
            await outside.send(a_request("blind"), effect_key="k1", stamp=None)

        assert [sent.effect_key for sent in outside.sent] == ["k1", "k1"]

    async def test_an_idempotent_request_is_carried_out_once(self) -> None:
        outside = NoOutside(clock=lambda: NOW)

        first, second = [await outside.send(a_request("idempotent"), effect_key="k1", stamp=None) for _ in range(2)]

        assert first == second
        assert len(outside.sent) == 1

    async def test_a_conditional_request_holds_on_its_stamp_alone(self) -> None:
        outside = NoOutside(clock=lambda: NOW)
        await outside.send(a_request(), effect_key="k0", stamp=None)
        stamp = await outside.current_stamp("room")

        done = await outside.send(a_request("conditional"), effect_key="k1", stamp=stamp)
        with pytest.raises(ConflictError):
            await outside.send(a_request("conditional"), effect_key="k2", stamp=stamp)

        assert done.stamp == await outside.current_stamp("room") != stamp

    async def test_what_was_written_is_found_by_its_key(self) -> None:
        outside = NoOutside(clock=lambda: NOW)

        done = await outside.send(a_request(), effect_key="k1", stamp=None)

        assert [(w.effect_key, w.reference) for w in await outside.written("room")] == [("k1", done.reference)]

    async def test_what_is_not_there_is_gone(self) -> None:
        outside = NoOutside(clock=lambda: NOW)

        with pytest.raises(PermanentError) as gone:
            await outside.current_stamp("room")

        assert gone.value.code == "gone"
        assert await outside.read("room") == ()
        assert await outside.written("room") == ()
