"""`nightshift rebuild`: the projections, made anew from the log."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nightshift import MendableError
from nightshift.reach import Json, State, admin_url, as_json, run

if TYPE_CHECKING:
    from nightshift.rebuild import Rebuilt

app = typer.Typer()


@app.command()
def rebuild(state: State, *, json: Json = False) -> None:
    """Make every projection anew from the log, beside the live ones; the stack may run meanwhile."""
    done = run(_rebuild(state))
    if json:
        as_json({"cases": done.cases, "digest_before": done.before, "digest": done.after})
        return
    same = "the same bytes as before" if done.before == done.after else "they differ from before, or events came in"
    print(f"{done.cases:,} cases projected from the log; digest {done.after[:16]} ({same})")


async def _rebuild(state: Path) -> "Rebuilt":
    from nightshift.rebuild import RebuildRunsError, rebuild_projections  # noqa: PLC0415  # a service: slow to load

    with admin_url(state) as url:
        try:
            return await rebuild_projections(url)
        except RebuildRunsError as error:
            raise MendableError(str(error)) from error
