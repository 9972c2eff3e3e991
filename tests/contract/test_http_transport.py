"""Our way to the socket keeps what httpx promises its callers, and never sends twice."""

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from connectors import http_transport
from tests.fakes.other_side import Answer, Cut, OtherSide, Silence

KEPT = Answer(200, headers={"connection": "keep-alive"})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with http_transport.client() as client:
        yield client


@pytest.fixture
async def other_side() -> AsyncIterator[OtherSide]:
    async with OtherSide() as server:
        yield server


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE", "POST"])
async def test_what_was_cut_on_a_kept_connection_is_not_sent_again(
    client: httpx.AsyncClient, other_side: OtherSide, method: str
) -> None:
    other_side.answers = [KEPT, Cut(), KEPT]
    await client.put(other_side.url, json={})

    with pytest.raises(httpx.ReadError):
        await client.request(method, other_side.url)

    assert len(other_side.asked) == 2


async def test_a_connection_is_used_again(client: httpx.AsyncClient, other_side: OtherSide) -> None:
    other_side.answers = [KEPT]
    for _ in range(3):
        assert (await client.put(other_side.url, json={"a": 1})).text == "ok"

    assert other_side.connections == 1
    assert [asked.body for asked in other_side.asked] == [b'{"a":1}'] * 3


async def test_only_a_refused_connection_is_told_as_never_sent(
    client: httpx.AsyncClient, other_side: OtherSide, free_port: int
) -> None:
    with pytest.raises(httpx.ConnectError):
        await client.get(f"http://127.0.0.1:{free_port}")

    other_side.answers = [Cut()]
    with pytest.raises(httpx.ReadError):
        await client.get(other_side.url)


async def test_an_answer_that_stops_halfway_is_told(client: httpx.AsyncClient, other_side: OtherSide) -> None:
    other_side.answers = [Answer(200, b"half", {"content-length": "100"})]

    with pytest.raises(httpx.ReadError):
        await client.get(other_side.url)


async def test_silence_ends_at_its_limit(client: httpx.AsyncClient, other_side: OtherSide) -> None:
    other_side.answers = [Silence()]

    with pytest.raises(httpx.ReadTimeout):
        await client.get(other_side.url, timeout=0.2)


async def test_an_address_and_a_compressed_answer_arrive_as_they_were_sent(
    client: httpx.AsyncClient, other_side: OtherSide
) -> None:
    other_side.answers = [Answer(200, gzip.compress(b"plain"), {"content-encoding": "gzip"})]

    answer = await client.get(f"{other_side.url}/a%2Fb%3Fc?x=%26%20", params=None)

    assert answer.text == "plain"
    assert other_side.asked[0].target == "/a%2Fb%3Fc?x=%26%20"


async def test_a_redirect_is_not_followed_and_no_cookie_is_kept(
    client: httpx.AsyncClient, other_side: OtherSide
) -> None:
    other_side.answers = [Answer(302, headers={"location": other_side.url, "set-cookie": "a=b"}), Answer(200)]

    assert (await client.get(other_side.url)).status_code == 302
    assert len(other_side.asked) == 1


async def test_a_header_that_cannot_be_is_our_own_mistake(client: httpx.AsyncClient, other_side: OtherSide) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        await client.get(other_side.url, headers={"x": "a\r\nb"})

    assert other_side.asked == []


@pytest.mark.parametrize("url", ["ftp://host.test/", "file:///etc/hosts"])
async def test_another_protocol_is_our_own_mistake(client: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await client.get(url)


@pytest.mark.parametrize(
    "headers",
    [{"content-security-policy": "a" * 9_000}, {"x": "a" * 60_000}, {f"x-{number}": "a" for number in range(200)}],
    ids=["long", "very long", "many"],
)
async def test_an_answer_with_much_in_its_head_is_an_answer(
    client: httpx.AsyncClient, other_side: OtherSide, headers: dict[str, str]
) -> None:
    other_side.answers = [Answer(200, b"ok", headers)]

    assert (await client.put(other_side.url, json={})).text == "ok"


async def test_a_password_in_an_address_becomes_a_header(client: httpx.AsyncClient, other_side: OtherSide) -> None:
    await client.get(other_side.url.replace("http://", "http://anna:secret@"))

    assert other_side.asked[0].headers["authorization"] == "Basic YW5uYTpzZWNyZXQ="
