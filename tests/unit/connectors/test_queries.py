"""Queries of process.toml are checked when a source is made, not when a case waits for them."""

import httpx
import pytest

from connectors.http import HttpSource
from connectors.none import NoOutside
from connectors.queries import InvalidQueryError
from connectors.sql import Prepared, SqlSource, prepare


@pytest.mark.parametrize(
    ("written", "prepared"),
    [
        ("SELECT 1", Prepared("SELECT 1", ())),
        ("SELECT :a, :b, :a;", Prepared("SELECT $1, $2, $1", ("a", "b"))),
        ("SELECT :day::text::date", Prepared("SELECT $1::text::date", ("day",))),
        ("SELECT ':a', '''b:b', E'\\':c', :d", Prepared("SELECT ':a', '''b:b', E'\\':c', $1", ("d",))),
        ('SELECT ":a" -- :b\n, :c', Prepared('SELECT ":a" -- :b\n, $1', ("c",))),
        ("SELECT /* :a ; */ :b", Prepared("SELECT /* :a ; */ $1", ("b",))),
        ("SELECT $$:a;$$, $t$:b$$:c$t$, :d", Prepared("SELECT $$:a;$$, $t$:b$$:c$t$, $1", ("d",))),
        ("with a as (SELECT ';') TABLE a", Prepared("with a as (SELECT ';') TABLE a", ())),
        (
            "SELECT j ->> 'x' FROM t WHERE d[1 : 2] = :e",
            Prepared("SELECT j ->> 'x' FROM t WHERE d[1 : 2] = $1", ("e",)),
        ),
    ],
)
def test_named_parameters_are_numbered_outside_of_literals_and_comments(written: str, prepared: Prepared) -> None:
    assert prepare("q", written) == prepared


@pytest.mark.parametrize(
    "written",
    [
        "",
        "DELETE FROM orders",
        "SELECT 1; SELECT 2",
        "SELECT $1",
        "SELECT 'open",
        'SELECT "open',
        "SELECT /* open",
        "SELECT $$open",
        "SELECT $t$open$$",
        "COPY orders TO PROGRAM 'x'",
    ],
)
def test_sql_that_cannot_be_asked_is_refused_at_start(written: str) -> None:
    with pytest.raises(InvalidQueryError) as refused:
        SqlSource(url="postgresql://shop.test/shop", queries={"orders": written}, timeout_seconds=1)

    assert refused.value.query == "orders"


@pytest.mark.parametrize(
    "written",
    [
        "orders",
        "//elsewhere.test/orders",
        "https://elsewhere.test/orders",
        "/a/../orders",
        "/./orders",
        "/orders/{}",
        "/orders/{0}",
        "/orders/{id.__class__}",
        "/orders/{id!r}",
        "/orders/{id:>9}",
        "/orders/{id",
        "/orders/{{id}}",
        "/orders#{id}",
        "/or ders",
        "/bücher",
        "",
    ],
)
async def test_a_template_that_could_leave_its_place_is_refused_at_start(written: str) -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(InvalidQueryError) as refused:
            HttpSource(client=client, base_url="http://shop.test", queries={"orders": written}, timeout_seconds=1)

    assert refused.value.query == "orders"


@pytest.mark.parametrize("written", ["", "{}", "[1]", "SELECT 1"])
def test_rows_that_are_no_rows_are_refused_at_start(written: str) -> None:
    with pytest.raises(InvalidQueryError):
        NoOutside(clock=lambda: pytest.fail("nothing happens yet"), queries={"orders": written})
