"""Facts from a real Postgres: read-only, bounded, and in JSON's own types."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg
import pytest

from connectors.protocol import LooksUp
from connectors.sql import SqlSource
from contracts.failures import LaterError, PermanentError
from nightshift.stack import as_role
from tests.contract.promises import LooksUpPromises

SECONDS = 10.0
SHOP = """
CREATE TABLE orders (id text PRIMARY KEY, total numeric(10, 2), ordered_on date);
INSERT INTO orders VALUES ('A-1', 19.90, '2026-11-01');
"""


@asynccontextmanager
async def shop(url: str, seconds: float = SECONDS, **queries: str) -> AsyncIterator[SqlSource]:
    source = SqlSource(url=url, queries=queries, timeout_seconds=seconds)
    try:
        yield source
    finally:
        await source.close()


@pytest.fixture
async def shop_url(database_url: str) -> str:
    connection = await asyncpg.connect(database_url)
    await connection.execute(SHOP)
    await connection.close()
    return database_url


class TestSqlLooksUp(LooksUpPromises):
    @pytest.fixture
    async def source(self, shop_url: str) -> AsyncIterator[LooksUp]:
        async with shop(
            shop_url,
            order="SELECT * FROM orders WHERE id = :id",
            many="SELECT n FROM generate_series(1, 150) n",
        ) as source:
            yield source


async def test_values_become_json(database_url: str) -> None:
    everything = """
        SELECT 12345678901234567890.123456789::numeric AS exact, 1.5::float8 AS real, 'NaN'::float8 AS none,
            '2026-11-25 06:00:00+00'::timestamptz AS at, '2026-11-25'::date AS day, interval '1 hour' AS span,
            '00000000-0000-0000-0000-000000000001'::uuid AS id, '\\x00ff'::bytea AS bytes, ARRAY['a', 'b'] AS tags,
            '{"a": [1, null]}'::jsonb AS document, row(1, 'x') AS pair, '10.0.0.1'::inet AS address,
            int4range(1, 5) AS span_of_numbers, NULL::text AS nothing, true AS yes
    """
    async with shop(database_url, everything=everything) as source:
        (row,) = await source.look_up("everything", {})

    assert isinstance(row.pop("span_of_numbers"), str)
    assert row == {
        "exact": "12345678901234567890.123456789",
        "real": 1.5,
        "none": None,
        "at": "2026-11-25T06:00:00+00:00",
        "day": "2026-11-25",
        "span": "1:00:00",
        "id": "00000000-0000-0000-0000-000000000001",
        "bytes": "AP8=",
        "tags": ["a", "b"],
        "document": {"a": [1, None]},
        "pair": [1, "x"],
        "address": "10.0.0.1",
        "nothing": None,
        "yes": True,
    }


async def test_parameters_travel_in_their_types(database_url: str) -> None:
    query = "SELECT :n::int + 1 AS n, :day::text::date + 1 AS day, :document::jsonb ->> 'a' AS a, :none::text AS none"
    async with shop(database_url, q=query) as source:
        rows = await source.look_up("q", {"n": 1, "day": "2026-11-25", "document": {"a": "b"}, "none": None})

    assert rows == [{"n": 2, "day": "2026-11-26", "a": "b", "none": None}]


@pytest.mark.parametrize(
    ("query", "params", "code"),
    [
        ("WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone", {}, None),
        ("SELECT lo_create(0)", {}, "not_read_only"),
        ("SELECT * FROM nowhere", {}, "bad_query"),
        ("SELECT FROM WHERE", {}, "bad_query"),
        ("SELECT id FROM orders WHERE total = :n::int", {"n": "people's words"}, "bad_parameter"),
        ("SELECT :day::text::date", {"day": "people's words"}, "bad_parameter"),
        ("SELECT :a::text", {"a": "people's words\0"}, "bad_parameter"),
        ("SELECT :a::text", {}, "bad_parameter"),
        ("SELECT 1", {"a": 1}, "bad_parameter"),
        ("SELECT repeat('x', 300000) AS x", {}, "too_large"),
        ("SELECT set_config('transaction_read_only', 'off', true)", {}, None),
    ],
)
async def test_what_cannot_be_asked_is_refused_for_ever_and_without_the_words(
    shop_url: str, query: str, params: Mapping[str, str], code: str | None
) -> None:
    async with shop(shop_url, q=query, count="SELECT count(*) AS n FROM orders") as source:
        with pytest.raises(PermanentError) as refused:
            await source.look_up("q", {**params})

        assert code is None or refused.value.code == code
        assert "people's words" not in f"{refused.value!r} {refused.value.__cause__!r}"
        assert await source.look_up("count", {}) == [{"n": 1}]


async def test_a_role_without_the_right_is_forbidden(shop_url: str) -> None:
    connection = await asyncpg.connect(shop_url)
    await connection.execute(
        "CREATE ROLE stranger; GRANT stranger TO CURRENT_USER"
    )  # roles belong to the server, which other tests share
    try:
        async with shop(as_role(shop_url, "stranger"), q="SELECT * FROM orders") as source:
            with pytest.raises(PermanentError) as refused:
                await source.look_up("q", {})
    finally:
        await connection.execute("DROP ROLE stranger")
        await connection.close()

    assert refused.value.code == "forbidden"


async def test_a_slow_query_is_cut_off_and_asked_again_later(database_url: str) -> None:
    async with shop(database_url, 1.5, slow="SELECT pg_sleep(60)::text", quick="SELECT 1 AS n") as source:
        with pytest.raises(LaterError) as later:
            await source.look_up("slow", {})

        assert later.value.code == "slow"
        assert await source.look_up("quick", {}) == [{"n": 1}]


async def test_a_source_that_is_down_is_asked_again_later(free_port: int) -> None:
    async with shop(f"postgresql://reader@127.0.0.1:{free_port}/shop", q="SELECT 1") as source:
        with pytest.raises(LaterError) as later:
            await source.look_up("q", {})

    assert later.value.code == "unavailable"


async def test_a_cut_connection_heals(database_url: str) -> None:
    async with shop(database_url, pid="SELECT pg_backend_pid() AS pid") as source:
        (before,) = await source.look_up("pid", {})
        admin = await asyncpg.connect(database_url)
        await admin.execute("SELECT pg_terminate_backend($1, 5000)", before["pid"])
        await admin.close()

        for _ in range(2):
            try:
                (after,) = await source.look_up("pid", {})
            except LaterError:
                continue
            assert after != before
            break
        else:
            pytest.fail("the source did not come back")


async def test_a_malformed_address_says_so() -> None:
    async with shop("postgresql://a:b:c@[/", q="SELECT 1") as source:
        with pytest.raises(PermanentError) as refused:
            await source.look_up("q", {})

    assert refused.value.code == "misconfigured"


async def test_many_look_ups_at_once_share_a_few_connections(database_url: str) -> None:
    async with shop(database_url, n="SELECT :n::int AS n") as source, asyncio.TaskGroup() as group:
        tasks = [group.create_task(source.look_up("n", {"n": n})) for n in range(30)]

    assert [task.result() for task in tasks] == [[{"n": n}] for n in range(30)]
