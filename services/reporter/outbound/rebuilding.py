"""Fresh projection tables in Postgres, filled beside the live ones and put in their place."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.reporter.domain.log import read
from services.reporter.outbound.event_log import PostgresProjections, read_entries
from services.reporter.ports import Project
from services.runtime.postgres import Connection, Database

_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('nightshift.reporter.projections', 0))"
_ONE_REBUILD = "SELECT pg_try_advisory_lock(hashtextextended('nightshift.reporter.rebuild', 0))"
_END_REBUILD = "SELECT pg_advisory_unlock(hashtextextended('nightshift.reporter.rebuild', 0))"
_LAST = "SELECT coalesce(max(position), 0) FROM reporter.event_log"
_FRESH = """
DROP TABLE IF EXISTS reporter.projections_fresh, reporter.totals_fresh;
CREATE TABLE reporter.projections_fresh (LIKE reporter.projections INCLUDING ALL);
CREATE TABLE reporter.totals_fresh (LIKE reporter.totals INCLUDING ALL)
"""
_NEXT_CASES = """
SELECT case_id FROM reporter.event_log WHERE case_id > $1 GROUP BY case_id ORDER BY case_id LIMIT $2
"""
_CHANGED = "SELECT DISTINCT case_id FROM reporter.event_log WHERE position > $1 ORDER BY case_id"
_SWAP = """
LOCK TABLE reporter.totals, reporter.projections IN ACCESS EXCLUSIVE MODE;
DROP TABLE reporter.totals, reporter.projections;
ALTER TABLE reporter.totals_fresh RENAME TO totals;
ALTER TABLE reporter.projections_fresh RENAME TO projections
"""
_SAY = """
INSERT INTO reporter.projected_by (version) VALUES ($1) ON CONFLICT (one) DO UPDATE SET version = excluded.version
"""


class RebuildRunsError(Exception):
    """Another rebuild is under way; wait for its end."""

    def __init__(self) -> None:
        super().__init__("the projections are being rebuilt already; wait for that to end")


@asynccontextmanager
async def rebuilding(database: Database) -> AsyncIterator["PostgresRebuilding"]:
    """The right to rebuild, for the length of the block. Raises RebuildRunsError."""
    async with database.connection() as connection:
        if not await connection.fetchval(_ONE_REBUILD):
            raise RebuildRunsError
        try:
            yield PostgresRebuilding(connection)
        finally:
            if not connection.is_closed():
                await connection.execute(_END_REBUILD)


class PostgresRebuilding:
    """ports.Rebuilding on one connection. Positions are read while nobody appends, so none appears behind them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def begin(self) -> int:
        async with self._connection.transaction():
            await self._connection.execute(_ALONE)
            await self._connection.execute(_FRESH)
            return int(await self._connection.fetchval(_LAST))

    async def case_ids_after(self, case_id: str, limit: int) -> list[str]:
        return [row[0] for row in await self._connection.fetch(_NEXT_CASES, case_id, limit)]

    async def fill(self, case_ids: Sequence[str], project: Project) -> None:
        async with self._connection.transaction():
            await self._fill(case_ids, project)

    async def changed_since(self, position: int) -> tuple[list[str], int]:
        async with self._connection.transaction():
            await self._connection.execute(_ALONE)
            now = int(await self._connection.fetchval(_LAST))
        return [row[0] for row in await self._connection.fetch(_CHANGED, position)], now

    async def swap(self, position: int, project: Project, version: str) -> None:
        async with self._connection.transaction():
            await self._connection.execute(_ALONE)
            await self._fill([row[0] for row in await self._connection.fetch(_CHANGED, position)], project)
            await self._connection.execute(_SWAP)
            await self._connection.execute(_SAY, version)

    async def _fill(self, case_ids: Sequence[str], project: Project) -> None:
        if case_ids:
            found = await read_entries(self._connection, case_ids)
            told = {case_id: [read(entry) for entry in entries] for case_id, entries in found.items()}
            await PostgresProjections(self._connection, "_fresh").replace(project(told))


async def projected_by(database: Database) -> str | None:
    """The version of code and policies that the live rows were made by; none before the first rebuild."""
    async with database.connection() as connection:
        version: str | None = await connection.fetchval("SELECT version FROM reporter.projected_by")
        return version
