"""The simulated shop: customers and what they bought, the same for the same seed; and its database, for facts."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random

import asyncpg

CUSTOMERS_MAX = 20_000
FIRST_CUSTOMER_ID = 100_001
READER = "shop_reader"
_FIRST = (
    "Ada",
    "Ben",
    "Cleo",
    "Dario",
    "Elif",
    "Finn",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Liam",
    "Olga",
    "Vito",
)
_LAST = ("Adler", "Berg", "Costa", "Duval", "Ekman", "Fischer", "Garcia", "Hill", "Ito", "Jansen", "Keller", "Moreau")
_GOODS = (
    ("LAMP-OAK", "Oak desk lamp", "49.00"),
    ("MUG-BLUE", "Blue stoneware mug", "14.50"),
    ("BLNK-WOOL", "Wool blanket", "89.00"),
    ("CHAIR-ASH", "Ash dining chair", "179.00"),
    ("KETTLE-15", "Kettle, 1.5 l", "64.90"),
    ("RUG-JUTE", "Jute rug, 160 x 230 cm", "210.00"),
    ("SHELF-PINE", "Pine wall shelf", "39.00"),
    ("VASE-CLAY", "Clay vase", "27.00"),
)
_CARRIERS = ("ParcelOne", "Nordpost", "QuickShip")

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.customers (
    requester_id text PRIMARY KEY, name text NOT NULL, email text NOT NULL, since date NOT NULL);
CREATE TABLE shop.orders (
    order_number text PRIMARY KEY, requester_id text NOT NULL REFERENCES shop.customers, status text NOT NULL,
    placed_on date NOT NULL, shipped_on date, delivery_due date, carrier text, tracking text,
    total numeric(10, 2) NOT NULL, currency text NOT NULL);
CREATE INDEX ON shop.orders (requester_id, placed_on);
CREATE TABLE shop.order_items (
    order_number text NOT NULL REFERENCES shop.orders, sku text NOT NULL, title text NOT NULL,
    quantity integer NOT NULL, price numeric(10, 2) NOT NULL, PRIMARY KEY (order_number, sku));
CREATE TABLE shop.invoices (
    invoice_number text PRIMARY KEY, order_number text NOT NULL REFERENCES shop.orders,
    requester_id text NOT NULL REFERENCES shop.customers, total numeric(10, 2) NOT NULL, paid boolean NOT NULL,
    issued_on date NOT NULL, refunded numeric(10, 2) NOT NULL);
CREATE INDEX ON shop.invoices (requester_id, issued_on);
CREATE TABLE shop.tickets (requester_id text NOT NULL, subject_digest text NOT NULL, opened_on date NOT NULL);
CREATE INDEX ON shop.tickets (requester_id, opened_on);
"""
_LOGIN_BY = "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)"
_READER = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN CREATE ROLE {READER} LOGIN; END IF;
END $$;
GRANT {READER} TO CURRENT_USER;
ALTER ROLE {READER} SET default_transaction_read_only = on;
GRANT USAGE ON SCHEMA shop TO {READER};
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {READER};
"""  # a constant of this file
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('nightshift.world.shop', 0))"


@dataclass(frozen=True, slots=True)
class Item:
    """A line of an order."""

    sku: str
    title: str
    quantity: int
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order with its invoice. Days count back from the day on which the shop was filled."""

    number: str
    invoice_number: str
    status: str
    placed_days_ago: int
    carrier: str
    tracking: str
    items: tuple[Item, ...]
    paid: bool

    @property
    def total(self) -> Decimal:
        return sum((item.price * item.quantity for item in self.items), Decimal(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Somebody who bought something; the id is the help desk's."""

    id: int
    name: str
    email: str
    since_days_ago: int
    orders: tuple[Order, ...]


def customers_of(count: int, seed: int) -> tuple[Customer, ...]:
    """The first `count` customers of a seed; more customers leave the earlier ones as they are."""
    return tuple(_customer(index, seed) for index in range(min(count, CUSTOMERS_MAX)))


def _customer(index: int, seed: int) -> Customer:
    random = Random(f"shop:{seed}:{index}")  # noqa: S311  # makes samples, guards nothing
    first, last = random.choice(_FIRST), random.choice(_LAST)
    return Customer(
        id=FIRST_CUSTOMER_ID + index,
        name=f"{first} {last}",
        email=f"{first}.{last}.{index + 1}@example.com".lower(),
        since_days_ago=random.randint(90, 2000),
        orders=tuple(_order(random, index, ordinal) for ordinal in range(random.choice((1, 1, 1, 2)))),
    )


def _order(random: Random, index: int, ordinal: int) -> Order:
    status = random.choice(("processing", "shipped", "shipped", "delivered", "delivered", "delivered"))
    days = {"processing": (0, 1), "shipped": (1, 4), "delivered": (5, 60)}[status]
    unique = index * 10 + ordinal
    goods = random.sample(_GOODS, random.choice((1, 1, 2, 3)))
    return Order(
        number=f"{unique:06d}{random.randint(10_000, 99_999)}",
        invoice_number=f"INV-{unique:06d}",
        status=status,
        placed_days_ago=random.randint(*days),
        carrier=random.choice(_CARRIERS),
        tracking=f"TRK{random.randint(10**8, 10**9 - 1)}",
        items=tuple(Item(sku, title, random.choice((1, 1, 1, 2)), Decimal(price)) for sku, title, price in goods),
        paid=status != "processing" or random.random() < 0.8,  # noqa: PLR2004  # a fifth pays later
    )


async def fill(
    admin_url: str, customers: int, seed: int, *, today: date | None = None, reader_password: str | None = None
) -> None:
    """Create the schema `shop` with its read-only role, and fill it. A filled one only gets the customers it lacks."""
    day = today or datetime.now(UTC).date()
    people = customers_of(customers, seed)
    connection = await asyncpg.connect(admin_url)
    try:
        async with connection.transaction():
            await connection.execute(_LOCK)
            if await connection.fetchval("SELECT to_regnamespace('shop')") is None:
                await connection.execute(SCHEMA)
            await connection.execute(_READER)
            if reader_password is not None:
                await connection.execute(await connection.fetchval(_LOGIN_BY, READER, reader_password))
            known = {row["requester_id"] for row in await connection.fetch("SELECT requester_id FROM shop.customers")}
            await _insert(connection, [one for one in people if str(one.id) not in known], day)
    finally:
        await connection.close()


async def _insert(connection: "asyncpg.Connection[asyncpg.Record]", people: list[Customer], day: date) -> None:
    def ago(days: int) -> date:
        return day - timedelta(days=days)

    orders = [(one, order) for one in people for order in one.orders]
    await connection.copy_records_to_table(
        "customers",
        schema_name="shop",
        records=[(str(one.id), one.name, one.email, ago(one.since_days_ago)) for one in people],
    )
    await connection.copy_records_to_table(
        "orders", schema_name="shop", records=[_order_row(str(one.id), order, day) for one, order in orders]
    )
    await connection.copy_records_to_table(
        "order_items",
        schema_name="shop",
        records=[(o.number, i.sku, i.title, i.quantity, i.price) for _, o in orders for i in o.items],
    )
    await connection.copy_records_to_table(
        "invoices",
        schema_name="shop",
        records=[
            (o.invoice_number, o.number, str(one.id), o.total, o.paid, ago(o.placed_days_ago), Decimal(0))
            for one, o in orders
        ],
    )


def _order_row(requester_id: str, order: Order, day: date) -> tuple[object, ...]:
    placed = day - timedelta(days=order.placed_days_ago)
    sent = order.status != "processing"
    return (
        order.number,
        requester_id,
        order.status,
        placed,
        placed + timedelta(days=1) if sent else None,
        placed + timedelta(days=5),
        order.carrier if sent else None,
        order.tracking if sent else None,
        order.total,
        "USD",
    )
