from datetime import date

import asyncpg
import pytest

from nightshift.world.shop import READER, customers_of, fill

TODAY = date(2026, 11, 25)


async def test_a_shop_is_filled_once_and_grows(database_url: str) -> None:
    await fill(database_url, 40, 1, today=TODAY)
    await fill(database_url, 60, 1, today=TODAY)

    people = customers_of(60, 1)
    connection = await asyncpg.connect(database_url)
    try:
        orders = await connection.fetch("SELECT order_number, requester_id, total FROM shop.orders ORDER BY 1")
        lines = await connection.fetchval("SELECT sum(quantity * price) FROM shop.order_items")
        invoices = await connection.fetchval("SELECT sum(total) FROM shop.invoices")
    finally:
        await connection.close()
    expected = sorted((order.number, str(one.id), order.total) for one in people for order in one.orders)
    assert [tuple(row) for row in orders] == expected
    assert lines == invoices == sum(total for _, _, total in expected)


async def test_the_reader_can_read_and_nothing_else(database_url: str) -> None:
    await fill(database_url, 5, 1, today=TODAY)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f"SET ROLE {READER}")
        assert await connection.fetchval("SELECT count(*) FROM shop.customers") == 5
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM shop.tickets")
    finally:
        await connection.close()
