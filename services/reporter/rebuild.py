"""`python -m services.reporter.rebuild`: make every projection anew from the log; the service may run meanwhile."""

import asyncio
import sys

from services.reporter.app import policies_of, rebuild
from services.reporter.config import RebuildSettings
from services.reporter.outbound.event_log import digest
from services.runtime.postgres import connect


async def _main() -> None:
    settings = RebuildSettings()
    async with connect(settings.database_url, schema="reporter", connections_max=2) as database:
        cases = await rebuild(database, policies_of(settings), progress=_say)
        async with database.connection() as connection:
            sys.stdout.write(f"rebuilt {cases} cases; projections have digest {await digest(connection)}\n")


def _say(cases: int) -> None:
    sys.stdout.write(f"projected {cases} cases\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
