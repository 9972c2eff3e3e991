"""Hours in seconds: an event loop that skips what it would only wait for, and a Postgres that tells the same time.

The loop's clock runs as every clock does, and jumps to the next timer whenever nothing can run and Postgres owes no
answer. A service's statements find `clock_timestamp()` and its kind in their own schema before Postgres' own, and these
are as far ahead. So loops, leases, timeouts, breakers and paces are the real ones, and nothing of the product knows.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import orjson

from services.runtime.postgres import Connection, Database, connect
from tests.conftest import MigratedDatabase

T = TypeVar("T")

_CLOCKS = ("clock_timestamp", "statement_timestamp", "now")
_SHADOW = """
CREATE OR REPLACE FUNCTION {schema}.{clock}() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
SELECT pg_catalog.{clock}() + {ahead} $$
"""
_DEFAULTS = """
SELECT format('ALTER TABLE %I.%I ALTER %I SET DEFAULT %1$I.clock_timestamp()', table_schema, table_name, column_name)
FROM information_schema.columns WHERE table_schema = $1 AND column_default = 'clock_timestamp()'
"""


class _Selector(selectors.DefaultSelector):
    """Waits for sockets alone; for time only where `owed` says that somebody works meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.owed = 0
        self.skipped_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.owed or timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self.skipped_seconds += timeout
        return events


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.waits = _Selector()
        super().__init__(self.waits)

    def time(self) -> float:
        return super().time() + self.waits.skipped_seconds


@dataclass
class VirtualTime:
    """What time it is, for everybody."""

    loop: _Loop
    begins_at: datetime
    _ahead: timedelta = field(init=False)

    def __post_init__(self) -> None:
        self._ahead = self.begins_at - datetime.now(UTC)
        self._began = self.loop.time()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    @property
    def ahead(self) -> timedelta:
        """How far before the real time."""
        return self._ahead + timedelta(seconds=self.loop.waits.skipped_seconds)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self.loop.time() - self._began

    @contextmanager
    def working(self) -> Iterator[None]:
        """Somebody outside of the loop works: time is not skipped."""
        self.loop.waits.owed += 1
        try:
            yield
        finally:
            self.loop.waits.owed -= 1

    @asynccontextmanager
    async def database(self, url: str, schema: str, *, connections_max: int = 10) -> AsyncIterator[Database]:
        """A service's database, in this time. `install` comes before."""
        async with connect(url, schema=schema, connections_max=connections_max) as real:
            yield _VirtualDatabase(real, self)


class _VirtualDatabase(Database):
    def __init__(self, real: Database, time: VirtualTime) -> None:
        super().__init__(real.pool, real.schema)
        self._real = real
        self._time = time

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        with self._time.working():
            async with self._real.transaction() as connection:
                await self._tell(connection)
                yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        with self._time.working():
            async with self._real.connection() as connection:
                await self._tell(connection)
                yield connection

    async def _tell(self, connection: Connection) -> None:
        seconds = f"{self._time.ahead.total_seconds():.6f} s"
        await connection.execute("SELECT set_config('tests.ahead', $1, false)", seconds)


class Admin:
    """The operator's connection: its statements take real time, and see Postgres' own clock."""

    def __init__(self, connection: Connection, time: VirtualTime) -> None:
        self._connection = connection
        self._time = time

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)

        async def call(*args: Any) -> Any:
            with self._time.working():
                return await method(*args)

        return call


@asynccontextmanager
async def admin(migrated: MigratedDatabase, time: VirtualTime, *schemas: str) -> AsyncIterator[Admin]:
    """The operator; the schemas' statements see this time from now on."""
    with time.working():
        connection = await asyncpg.connect(migrated.admin_url)
        for name in ("json", "jsonb"):
            await connection.set_type_codec(
                name, schema="pg_catalog", encoder=lambda v: orjson.dumps(v).decode(), decoder=orjson.loads
            )
        for schema in schemas:
            await _shadow(connection, schema, "current_setting('tests.ahead')::interval")
    try:
        yield Admin(connection, time)
    finally:
        with time.working():
            await connection.close()


async def set_clock(connection: Connection, schema: str, at: datetime) -> None:
    """Where a test runs in real time, but not at any time of the day: the schema's statements see `at`, and go on."""
    seconds = (at - datetime.now(UTC)).total_seconds()
    await _shadow(connection, schema, f"interval '{seconds:.6f} s'")


async def _shadow(connection: Connection, schema: str, ahead: str) -> None:
    for clock in _CLOCKS:
        await connection.execute(_SHADOW.format(schema=schema, clock=clock, ahead=ahead))
    for (alter,) in await connection.fetch(_DEFAULTS, schema):
        await connection.execute(alter)


def live(scenario: Callable[[VirtualTime], Coroutine[Any, Any, T]], *, begins_at: datetime) -> T:
    """Run a scenario to its end, in a loop of its own."""

    def loop_factory() -> asyncio.AbstractEventLoop:
        return _Loop()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, _Loop)
        return runner.run(scenario(VirtualTime(loop, begins_at)))
