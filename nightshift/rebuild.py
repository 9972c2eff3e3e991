"""The projections, made anew from the log as the reporter's own role."""

from collections.abc import Callable
from dataclasses import dataclass

from nightshift.stack import as_role
from services.reporter.app import policies_of, rebuild
from services.reporter.config import RebuildSettings
from services.reporter.outbound.event_log import digest
from services.reporter.outbound.rebuilding import RebuildRunsError
from services.runtime.postgres import connect

__all__ = ["RebuildRunsError", "Rebuilt", "rebuild_projections"]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild made."""

    cases: int
    before: str
    """Digest of the projections as they were."""
    after: str


async def rebuild_projections(
    admin_url: str, *, overrides: str | None = None, progress: Callable[[int], None] = lambda _: None
) -> Rebuilt:
    """Rebuild while the reporter may run; it reads on, and appends in between. Raises RebuildRunsError.

    `overrides` as in NIGHTSHIFT_PROCESS_OVERRIDES; none takes those of the environment.
    """
    url = as_role(admin_url, "nightshift_reporter")
    settings = (
        RebuildSettings(database_url=url)
        if overrides is None
        else RebuildSettings(database_url=url, process_overrides=overrides)
    )
    async with connect(url, schema="reporter", connections_max=2) as database:
        async with database.connection() as connection:
            before = await digest(connection)
        cases = await rebuild(database, policies_of(settings), progress=progress)
        async with database.connection() as connection:
            return Rebuilt(cases, before, await digest(connection))
