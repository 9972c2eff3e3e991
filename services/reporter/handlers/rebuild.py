"""Every projection made anew from the log, beside the live ones, which go on meanwhile."""

from collections.abc import Callable, Sequence

import structlog

from services.reporter.handlers.append import unprojected_total
from services.reporter.ports import Project, Rebuilding
from services.runtime.failures import Later, tell

CASES_PER_BATCH_MAX = 200
CATCH_UP_ROUNDS_MAX = 20
CATCH_UP_CASES_FEW = 50
"""So few may be left for the swap, during which nothing is appended."""

log = structlog.get_logger()

Progress = Callable[[int], None]
"""Told how many cases were projected so far."""


async def rebuild(tables: Rebuilding, project: Project, *, version: str, progress: Progress) -> int:
    """Fill fresh tables in batches, catch up with what was appended meanwhile, swap. Returns the number of cases.

    Stopped at any point, it leaves the live tables as they were; started again, it starts over.
    """
    position = await tables.begin()
    done, last = 0, ""
    while case_ids := await tables.case_ids_after(last, CASES_PER_BATCH_MAX):
        await _fill(tables, case_ids, project)
        done, last = done + len(case_ids), case_ids[-1]
        progress(done)
    for _ in range(CATCH_UP_ROUNDS_MAX):
        changed, now = await tables.changed_since(position)
        if len(changed) <= CATCH_UP_CASES_FEW:
            break
        for start in range(0, len(changed), CASES_PER_BATCH_MAX):
            await _fill(tables, changed[start : start + CASES_PER_BATCH_MAX], project)
        position = now
    await tables.swap(position, project, version)
    return done


async def _fill(tables: Rebuilding, case_ids: Sequence[str], project: Project) -> None:
    """Fill in one transaction, or, when that fails, case by case: one that cannot be projected spoils no other.

    Raises what `failures.tell` calls Later (Postgres is away).
    """
    try:
        await tables.fill(case_ids, project)
    except Exception as error:
        if isinstance(tell(error), Later):
            raise
        if len(case_ids) > 1:
            for case_id in case_ids:
                await _fill(tables, [case_id], project)
            return
        log.error(  # noqa: TRY400  # a traceback may quote people's text
            "a case cannot be projected; the log has its events", error=type(error).__name__
        )
        unprojected_total.inc()
