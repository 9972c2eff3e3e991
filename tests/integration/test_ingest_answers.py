"""What a sender is answered, and that a refusal costs no write."""

import asyncio
from datetime import timedelta

import asyncpg
from prometheus_client import REGISTRY

from tests.conftest import MigratedDatabase
from tests.integration.ingest_app import (
    NEXT_SECRET,
    NOW,
    SECRET,
    ZENDESK,
    call,
    change,
    comment,
    door,
    intake,
    outside,
    zendesk_headers,
)

ROLE = "nightshift_ingest"
BODY = comment("e1")


def counted(source: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("nightshift_webhooks_total", {"source": source, "outcome": outcome}) or 0.0


async def test_a_signed_webhook_is_accepted_once_it_is_committed(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        answer = await running.zendesk(BODY, "i1")

        assert answer.status == 202
        assert answer.json["duplicate"] is False
        (row,) = await running.rows("SELECT delivery::text FROM deliveries")
        assert answer.json == {"delivery": row[0], "duplicate": False}
        assert await running.count("outbox") == 1
        assert running.committed, "the relay is woken"


REFUSALS = {
    "unsigned": (401, "missing_signature", BODY, {"content-type": "application/json"}),
    "forged": (401, "bad_signature", BODY, zendesk_headers(BODY, "i", secret="another")),
    "altered": (401, "bad_signature", BODY + b" ", zendesk_headers(BODY, "i")),
    "stale": (401, "stale", BODY, zendesk_headers(BODY, "i", at=NOW - timedelta(seconds=3601))),
    "from the future": (401, "future", BODY, zendesk_headers(BODY, "i", at=NOW + timedelta(seconds=3601))),
    "no type": (415, "content_type", BODY, {**zendesk_headers(BODY, "i"), "content-type": ""}),
    "a form": (415, "content_type", BODY, {**zendesk_headers(BODY, "i"), "content-type": "application/x-form"}),
    "declared too large": (413, "too_large", b"", {**zendesk_headers(b"", "i"), "content-length": "524289"}),
    "a senseless length": (413, "too_large", b"", {**zendesk_headers(b"", "i"), "content-length": "-1"}),
    "larger than allowed": (413, "too_large", b"x" * 524_289, zendesk_headers(b"", "i")),
}


async def test_what_is_refused_says_why_is_counted_and_costs_no_write(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for case, (status, reason, body, headers) in REFUSALS.items():
            before = counted("support/zendesk", reason)

            answer = await call(running.app, ZENDESK, [body], headers)

            assert (answer.status, answer.json["error"]) == (status, reason), case
            assert answer.json["mend"], case
            assert counted("support/zendesk", reason) == before + 1, case
        assert await running.wrote_nothing()


NO_JSON = {
    "words": b"hello",
    "nothing": b"",
    "cut off": b'{"a": ',
    "two values": b"{} {}",
    "a raw NUL": b'{"a": "\0"}',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "half a character in bytes": b'{"a": "\xed\xa0\xbd"}',
    "NaN": b'{"a": NaN}',
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "nested and cut off": b'{"a":' * 50_000,
}


async def test_what_is_signed_and_no_json_is_400_and_costs_no_write(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for case, body in NO_JSON.items():
            answer = await running.zendesk(body, case)

            assert (answer.status, answer.json["error"]) == (400, "no_json"), case
        assert await running.wrote_nothing()


ODD_JSON = {
    "a list": b"[]",
    "null": b"null",
    "a number": b"17",
    "an escaped NUL": b'{"type": "zen:event-type:ticket.created", "id": "\\u0000", "detail": {"id": "\\u0000"}}',
    "half a character": b'{"type": "zen:event-type:ticket.created", "id": "\\ud83d", "time": "\\ud83d"}',
    "an unknown type": b'{"type": "zen:event-type:user.created", "id": "u1"}',
    "a type of tomorrow": b'{"type": "zen:event-type:ticket.teleported", "id": "t1"}',
    "nested 500 deep": b'{"type": "zen:event-type:user.created", "a": ' + b"[" * 500 + b"]" * 500 + b"}",
}


async def test_signed_json_is_never_refused(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for case, body in ODD_JSON.items():
            answer = await running.zendesk(body, case)

            assert answer.status == 202, case
        assert await running.count("deliveries") == len(ODD_JSON)


async def test_half_a_character_in_a_customers_text_loses_nothing(migrated: MigratedDatabase) -> None:
    body = comment("e1").replace(b"where is my parcel", b"where \\ud83d is my parcel")
    async with intake(migrated.url(ROLE)) as running:
        answer = await running.zendesk(body, "i1")

        assert answer.status == 202
        assert await running.count("outbox") == 1
        assert await running.count("dead_letters") == 0


async def test_doors_and_methods_that_are_not_there_are_named(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        nowhere = await running.post("/webhooks/support/nowhere", BODY)
        stranger = await running.post("/webhooks/nobody/zendesk", BODY)
        read = await running.post(ZENDESK, b"", method="GET")
        health = await running.post("/healthz", b"", method="GET")
        other = await running.post("/", b"", method="GET")

        assert (nowhere.status, nowhere.json["error"]) == (404, "no_such_door")
        assert stranger.status == other.status == 404
        assert (read.status, read.json["error"], read.headers["allow"]) == (405, "method", "POST")
        assert health.status == 200
        assert await running.wrote_nothing()


async def test_every_way_to_say_json_is_understood(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for said in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/ld+json"):
            headers = {**zendesk_headers(BODY, "i1"), "content-type": said}
            assert (await call(running.app, ZENDESK, [BODY], headers)).status == 202, said


async def test_both_secrets_are_good_while_one_is_rotated(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        old = await running.zendesk(comment("e1"), "i1", secret=SECRET)
        new = await running.zendesk(comment("e2"), "i2", secret=NEXT_SECRET)

        assert old.status == new.status == 202


async def test_both_sides_of_the_tolerance(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        last = await running.zendesk(comment("e1"), "i1", at=NOW - timedelta(seconds=3600))
        late = await running.zendesk(comment("e2"), "i2", at=NOW - timedelta(seconds=3601))

        assert (last.status, late.status) == (202, 401)


async def test_both_sides_of_the_body_limit(migrated: MigratedDatabase) -> None:
    exact = b'{"id": "f1"}'
    doors = [door("form", "none", outside(), body_bytes_max=len(exact))]
    async with intake(migrated.url(ROLE), doors) as running:
        fits = await running.post("/webhooks/support/form", exact)
        over = await running.post("/webhooks/support/form", exact + b" ")

        assert (fits.status, over.status) == (202, 413)


async def test_a_body_of_5_mb_is_refused_after_the_limit_and_not_read_further(migrated: MigratedDatabase) -> None:
    chunks = [b"x" * 65_536] * 80
    async with intake(migrated.url(ROLE)) as running:
        answer = await call(running.app, ZENDESK, chunks, {"content-type": "application/json"}, stalls=True)

        assert (answer.status, answer.json["error"], answer.headers["connection"]) == (413, "too_large", "close")
        assert await running.wrote_nothing()


async def test_a_slow_sender_is_cut_off(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE), body_seconds_max=0.05) as running:
        answer = await call(running.app, ZENDESK, [b"{"], {"content-type": "application/json"}, stalls=True)

        assert (answer.status, answer.json["error"], answer.headers["connection"]) == (408, "slow", "close")
        assert await running.wrote_nothing()


async def test_a_sender_that_leaves_leaves_nothing(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        answer = await call(running.app, ZENDESK, [b"{"], {"content-type": "application/json"}, leaves=True)

        assert answer.status == 0
        assert await running.wrote_nothing()


async def test_a_body_in_pieces_is_whole(migrated: MigratedDatabase) -> None:
    pieces = [BODY[at : at + 100] for at in range(0, len(BODY), 100)]
    async with intake(migrated.url(ROLE)) as running:
        assert (await call(running.app, ZENDESK, pieces, zendesk_headers(BODY, "i1"))).status == 202


async def test_a_full_queue_is_503_with_a_time_and_what_was_taken_is_kept(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE), waiting_max=2) as running:
        async with asyncio.TaskGroup() as group:  # all of them ask before the writer runs
            tasks = [group.create_task(running.post("/webhooks/support/open", change(f"c{n}"))) for n in range(5)]
        answers = [task.result() for task in tasks]

        busy = [answer for answer in answers if answer.status == 503]
        assert [answer.status for answer in answers].count(202) == 2
        assert {(answer.json["error"], answer.headers["retry-after"]) for answer in busy} == {("busy", "5")}
        assert await running.count("outbox") == 2


async def test_more_requests_than_hands_are_503(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE), hands_max=0) as running:
        answer = await running.zendesk(BODY, "i1")

        assert (answer.status, answer.json["error"]) == (503, "busy")


async def test_the_senders_trace_goes_on(migrated: MigratedDatabase) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with intake(migrated.url(ROLE)) as running:
        await running.post("/webhooks/support/open", change("c1"), {"traceparent": trace})

        (row,) = await running.rows("SELECT headers FROM outbox")
        assert row["headers"]["ce_traceparent"] == trace


async def test_closing_commits_and_answers_what_was_taken(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        holder = await asyncpg.connect(migrated.admin_url)
        await holder.execute("BEGIN; LOCK TABLE ingest.seen IN ACCESS EXCLUSIVE MODE")  # no commit gets through
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(running.post("/webhooks/support/open", change(f"c{n}"))) for n in range(3)]
            await asyncio.sleep(0)
            running.writer.close()
            await holder.execute("ROLLBACK")
        await holder.close()

        assert [task.result().status for task in tasks] == [202] * 3
        assert await running.count("outbox") == 3
