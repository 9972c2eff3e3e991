"""Stolen signatures, odd bytes and floods: refused with a reason, stored whole or not at all, then forgotten."""

import asyncio
import gc
import gzip
import tracemalloc
from contextlib import closing
from datetime import timedelta
from itertools import permutations

import pytest

from services.ingest.inbound.quick import QuickProtocol
from tests.conftest import MigratedDatabase
from tests.integration.ingest_app import (
    NOW,
    SECRET,
    ZENDESK,
    change,
    comment,
    hmac_headers,
    intake,
    zendesk_headers,
)
from tests.serving import served
from tests.unit.connectors.test_signatures import signed

ROLE = "nightshift_ingest"
BODY = comment("e1")
SCHEMES = {"zendesk": "zendesk", "github": "github", "form": "hmac", "slack": "slack", "stripe": "stripe"}


def headers_for(name: str, body: bytes) -> dict[str, str]:
    """What the honest sender of a door sets. Every one of these doors has the same secret, the worst case."""
    if name == "zendesk":
        return zendesk_headers(body, "i1")
    return signed(SCHEMES[name], body, secret=SECRET, at=str(int(NOW.timestamp())))  # type: ignore[arg-type]  # a scheme


async def test_a_signature_for_one_source_opens_no_other_even_under_the_same_secret(
    migrated: MigratedDatabase,
) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for ours, theirs in permutations(SCHEMES, 2):
            answer = await running.post(f"/webhooks/support/{theirs}", BODY, headers_for(ours, BODY))
            assert answer.status == 401, (ours, theirs)
        assert await running.wrote_nothing()
        for name in SCHEMES:
            answer = await running.post(f"/webhooks/support/{name}", BODY, headers_for(name, BODY))
            assert answer.status == 202, "each is good at its own door"


async def test_a_signature_moved_to_another_scheme_s_header_opens_nothing(migrated: MigratedDatabase) -> None:
    """The same HMAC in the other's form: the zendesk door signs time and body, the form door the body alone."""
    form = hmac_headers(BODY)["x-signature"]
    zendesk = zendesk_headers(BODY, "i1")
    async with intake(migrated.url(ROLE)) as running:
        moved = [
            await running.post("/webhooks/support/github", BODY, {"x-hub-signature-256": form}),
            await running.post(ZENDESK, BODY, {**zendesk, "x-zendesk-webhook-signature": form}),
            await running.post("/webhooks/support/form", BODY, {"x-signature": zendesk["x-zendesk-webhook-signature"]}),
        ]

        assert [answer.status for answer in moved] == [401] * 3
        assert await running.wrote_nothing()


async def test_a_recorded_request_sent_again_and_again_is_one_event_and_stale_in_the_end(
    migrated: MigratedDatabase,
) -> None:
    async with intake(migrated.url(ROLE)) as running:
        first = await running.zendesk(BODY, "i1")
        again = [await running.zendesk(BODY, "i1") for _ in range(20)]
        renamed = [await running.zendesk(BODY, f"forged {n}") for n in range(20)]
        late = await running.zendesk(BODY, "i1", at=NOW - timedelta(seconds=3601))

        assert first.json["duplicate"] is False
        assert {(a.status, a.json["duplicate"]) for a in again + renamed} == {(202, True)}, "the id is not signed"
        assert (late.status, late.json["error"]) == (401, "stale")
        assert await running.count("deliveries") == await running.count("outbox") == 1


ENCODED = {
    "utf-16": BODY.decode().encode("utf-16"),
    "utf-16 without a mark": BODY.decode().encode("utf-16-le"),
    "utf-32": BODY.decode().encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "latin-1": BODY.replace(b"parcel", "Päckchen".encode("latin-1")),
    "too long a form of /": BODY.replace(b"parcel", b"\xc0\xaf"),
    "half a character": BODY.replace(b"parcel", b"\xed\xa0\xbd"),
    "cut within a character": BODY.replace(b"parcel", b"\xf0\x9f\x98"),
    "raw NUL bytes": BODY.replace(b"parcel", b"par\0cel"),
    "only NUL bytes": b"\0" * 1000,
    "gzip": gzip.compress(BODY),
    "a bomb": gzip.compress(b" " * 10_000_000),
    "100,000 lists": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"":' * 100_000 + b"1" + b"}" * 100_000,
    "lists within an event": BODY.replace(b'"where is my parcel"', b"[" * 100_000 + b"]" * 100_000),
}


@pytest.mark.parametrize("said", ["application/json", "application/json; charset=utf-16"])
async def test_what_is_signed_in_another_encoding_is_400_and_is_not_guessed(
    migrated: MigratedDatabase, said: str
) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for case, body in ENCODED.items():
            headers = {**zendesk_headers(body, case), "content-type": said, "content-encoding": "gzip"}
            answer = await running.post(ZENDESK, body, headers)

            assert (answer.status, answer.json["error"]) == (400, "no_json"), case
        assert await running.wrote_nothing()


async def test_escaped_nul_bytes_and_odd_text_are_stored_whole(migrated: MigratedDatabase) -> None:
    texts = ["a\\u0000b", "\\ud83d", "\\u202e\\u2066", "\\ufeff", "\\uffff", "x" * 200_000]
    async with intake(migrated.url(ROLE)) as running:
        for number, text in enumerate(texts):
            body = comment(f"e{number}", ticket=str(number + 1)).replace(b"where is my parcel", text.encode())
            answer = await running.zendesk(body, f"i{number}")
            assert (answer.status, answer.json["duplicate"]) == (202, False), text[:20]

        assert await running.count("deliveries") == await running.count("outbox") == len(texts)
        assert await running.count("dead_letters") == 0


async def test_hostile_headers_of_a_good_webhook_are_kept_apart_from_it(migrated: MigratedDatabase) -> None:
    hostile = {
        "x-zendesk-webhook-invocation-id": "'; DROP TABLE deliveries; --" + "x" * 5000,
        "traceparent": "00-" + "é" * 200,
        "user-agent": "\x00\x01",
        **{f"x-{n}": "a" for n in range(1000)},
    }
    async with intake(migrated.url(ROLE)) as running:
        answer = await running.post(ZENDESK, BODY, {**zendesk_headers(BODY, ""), **hostile})

        assert answer.status == 202
        assert await running.count("deliveries") == await running.count("outbox") == 1


async def ask(url: str, *requests: bytes) -> list[int]:
    """Statuses, one connection, each request after the answer to the one before; 0 where it was cut off."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    found = []
    with closing(writer):
        for request in requests:
            try:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
                found.append(int(head[9:12]))
            except (ConnectionError, asyncio.IncompleteReadError):
                return [*found, 0]
    return found


def post(path: str, body: bytes, **headers: str) -> bytes:
    lines = {"host": "x", "content-type": "application/json", "content-length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Hasty(QuickProtocol):
    request_seconds_max = 0.2


@pytest.mark.parametrize("part", ["the head", "the body", "the rest of what was refused"])
async def test_a_sender_that_drips_is_cut_off_and_leaves_nothing(migrated: MigratedDatabase, part: str) -> None:
    whole = post(ZENDESK, BODY, **zendesk_headers(BODY, "i1"))
    start = {
        "the head": whole[:60],
        "the body": whole[: -len(BODY) + 10],
        "the rest of what was refused": post(ZENDESK, b"", **{"content-length": "5000000"}),
    }[part]
    async with (
        intake(migrated.url(ROLE), body_seconds_max=0.1) as running,
        served(running.app, http=Hasty) as url,
        asyncio.timeout(20),
    ):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with closing(writer):
            writer.write(start)
            answering = asyncio.ensure_future(reader.read())
            while not answering.done():
                writer.write(b"a")
                await asyncio.wait([answering], timeout=0.02)
            answer = b"" if answering.exception() else answering.result()

        assert b"HTTP/1.1 2" not in answer
        assert await running.wrote_nothing()


GROWTH_BYTES_MAX = 100_000
"""A round grows by some 5 kB of caches. A label kept for each unknown door is 400 kB, a scope for each refusal 6 MB, a
single large body half a megabyte: whatever is kept of a request shows."""
ROUND_LARGE = 40
ROUND_SMALL = 2000


async def flood(url: str, number: int) -> None:
    """One round: small ones that are refused in every way, and large ones on the limit, beyond it and without end."""
    deep, noise = b"[" * 1000, b'{"a": "' + b"x" * 1000 + b'"'
    for first in range(0, ROUND_SMALL, 100):
        small = []
        for n in range(first, first + 100, 4):
            small += [
                post(f"/webhooks/support/door-{number}-{n}", noise),
                post(ZENDESK, BODY, **zendesk_headers(noise, f"{number} {n}")),
                post(ZENDESK, deep, **{**zendesk_headers(deep, f"{number} {n}"), "x-a": "b" * 5000}),
                post("/webhooks/support/open", noise, **{f"x-{number}-{n}": "c"}),
            ]
        assert {*await ask(url, *small)} <= {400, 401, 404}
    for n in range(ROUND_LARGE // 4):
        limit = b'"' + b"x" * (512 * 1024 - 1)
        assert await ask(url, post(ZENDESK, limit, **zendesk_headers(limit, f"{n}"))) == [400]
        assert await ask(url, post(ZENDESK, b"x" * 5_000_000)) in ([413], [0])
        chunk = b"%x\r\n%b\r\n" % (100_000, b"y" * 100_000)
        endless = post(ZENDESK, b"", **{"transfer-encoding": "chunked"}).replace(b"content-length: 0\r\n", b"")
        assert await ask(url, endless + chunk * 50) in ([413], [0])
        assert await ask(url, b"GET /healthz HTTP/1.1\r\nx: " + b"z" * 1_000_000) in ([431], [0])


async def test_a_flood_of_hostile_bodies_leaves_nothing_in_memory(migrated: MigratedDatabase) -> None:
    """Three rounds of 2,000 small and 40 large requests. The first one fills caches; the others must add nothing."""
    async with intake(migrated.url(ROLE)) as running, served(running.app, http=QuickProtocol) as url:
        await flood(url, 0)
        gc.collect()
        tracemalloc.start()
        try:
            await flood(url, 1)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            await flood(url, 2)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert after - before < GROWTH_BYTES_MAX
        assert await running.wrote_nothing()
        assert (await running.post("/webhooks/support/open", change("c1"))).status == 202, "it works as before"
