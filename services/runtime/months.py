"""Tables that are kept by month: the coming ones are made in time.

Where they are not, rows go to the table's default and none is refused; they are moved when their month is made.
"""

from collections.abc import Sequence

import asyncpg
import structlog

from services.runtime.postgres import UNAVAILABLE, Connection, Database
from services.runtime.service import Part
from services.runtime.stop import Stop

LOOK_SECONDS = 24 * 3600.0
AGAIN_SECONDS = 600.0
"""After a try that failed: somebody read one of the tables for long, or Postgres was away."""

_OWN = "SELECT control.make_months($1::text::regclass)"
_SHARED = "SELECT control.make_shared_months($1::text::regclass)"
_WITHOUT_NEXT = """
SELECT whole::text
FROM control.months, (SELECT date_trunc('month', now(), 'UTC') + interval '33 days' AS next) it  -- a day within it
GROUP BY whole
HAVING NOT coalesce(bool_or(coalesce(since, '-infinity') <= next AND next < until), false)
ORDER BY 1
"""

log = structlog.get_logger()


async def make_months(database: Database, own: Sequence[str], shared: Sequence[str] = ()) -> int:
    """Make what is missing of the coming months; returns how many that were. A table a transaction."""
    made = 0
    async with database.connection() as connection:
        for sql, tables in ((_OWN, own), (_SHARED, shared)):
            for table in tables:
                made += await connection.fetchval(sql, table)
    return made


def making_months(database: Database, own: Sequence[str], shared: Sequence[str] = ()) -> Part:
    """Makes them at start and once a day. `own` belong to the service's role, `shared` to whoever migrates."""

    async def make(stop: Stop) -> None:
        while not stop.is_set():
            seconds = LOOK_SECONDS
            try:
                if made := await make_months(database, own, shared):
                    log.info("made the coming months", schema=database.schema, months=made)
            except (asyncpg.PostgresError, *UNAVAILABLE) as error:  # no reason to end a service that works
                log.warning("coming months are not made yet", schema=database.schema, error=type(error).__name__)
                seconds = AGAIN_SECONDS
            await stop.wait(seconds)

    return make


async def without_next_month(connection: Connection) -> list[str]:
    """The tables for which nobody made next month's part."""
    return [row[0] for row in await connection.fetch(_WITHOUT_NEXT)]
