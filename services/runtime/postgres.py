"""Postgres, seen by one service: a pool that reads and writes the service's own schema."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import orjson

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:  # asyncpg's generics exist only in its stubs
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

COMMAND_TIMEOUT_SECONDS = 30
CONNECT_TIMEOUT_SECONDS = 5

UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.OutOfMemoryError,
    asyncpg.exceptions.DiskFullError,
    asyncpg.exceptions.QueryCanceledError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.InternalClientError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
"""Postgres is not there, or not now: the same statement may work in a moment."""

CONTENDED = (asyncpg.exceptions.SerializationError, asyncpg.exceptions.DeadlockDetectedError)
"""Two transactions met: try again at once."""


class Database:
    """A pool bound to one schema. Connects at first use, so that a service starts while Postgres is down."""

    def __init__(self, pool: Pool, schema: str) -> None:
        self.pool = pool
        self.schema = schema

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction that commits at the end of the block."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection whose statements commit singly."""
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):  # the pool's own timeout costs a task each time
            connection = await self.pool.acquire()
        try:
            yield connection
        finally:
            await self.pool.release(connection, timeout=CONNECT_TIMEOUT_SECONDS)

    async def check(self) -> str | None:
        """For health: whether Postgres answers."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")
        return None


@asynccontextmanager
async def connect(
    url: str, *, schema: str, connections_max: int = 10, plan_once: bool = False
) -> AsyncIterator[Database]:
    """A database for the length of the block.

    With `plan_once` a connection plans each statement once, for all arguments: for who finds a few rows by a key, which
    takes less than planning it anew. Not for who asks now for many rows and now for few.
    """
    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=connections_max,
        max_inactive_connection_lifetime=60,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        timeout=CONNECT_TIMEOUT_SECONDS,
        server_settings={
            "search_path": f"{schema},pg_catalog",
            "application_name": f"nightshift {schema}",
            "jit": "off",
            "plan_cache_mode": "force_generic_plan" if plan_once else "auto",
        },
        init=_speak_json,
        reset=_leave_as_it_is,
    )
    await pool  # makes the pool; with min_size 0 this opens no connection
    try:
        yield Database(pool, schema)
    finally:
        pool.terminate()


async def _leave_as_it_is(connection: Connection) -> None:
    """Nobody here changes a session (locks and settings end with their transaction): saves a round trip a release."""
    del connection


async def _speak_json(connection: Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
        )
