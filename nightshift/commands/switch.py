"""`pause`, `resume`, `mode`, `modes`, `admit`: whether a process may act, how far, and by which regime."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contracts.decision import Mode
from contracts.events.control import RegimeAdmitted
from nightshift import MendableError, orders
from nightshift.commands.candidate import unrecorded
from nightshift.reach import Json, State, as_json, candidate_of, database, folder_of, process_named, run, who
from services.runtime.process import Process

app = typer.Typer()

_SWITCH = """
INSERT INTO control.switches (process, paused, reason, changed_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (process) DO UPDATE
SET paused = excluded.paused, reason = excluded.reason, changed_by = excluded.changed_by
RETURNING generation
"""
_SET_MODE = """
INSERT INTO control.modes (process, action, mode, changed_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (process, action) DO UPDATE
SET mode = excluded.mode, changed_by = excluded.changed_by, changed_at = clock_timestamp()
"""
_MODES = "SELECT action, mode, changed_by, changed_at FROM control.modes WHERE process = $1"

ProcessName = Annotated[str, typer.Argument(metavar="PROCESS", help="A folder below processes/, such as `support`.")]
Reason = Annotated[str, typer.Option(help="Why; it is recorded.")]


@app.command()
def pause(process: ProcessName, state: State, reason: Reason = "") -> None:
    """Stop all effects and model calls of a process at once. Webhooks are still taken, nothing is lost."""
    generation = run(_switch(state, folder_of(process).name, reason, paused=True))
    print(f"{process} is paused (generation {generation}): effects and model calls have stopped, intake goes on")


@app.command()
def resume(process: ProcessName, state: State, reason: Reason = "") -> None:
    """Let a paused process go on. What waited longer than its door's max_age goes to a person."""
    generation = run(_switch(state, folder_of(process).name, reason, paused=False))
    print(f"{process} goes on (generation {generation})")


@app.command()
def mode(
    process: ProcessName,
    action: Annotated[str, typer.Argument(help="An action of the process: `nightshift modes PROCESS` lists them.")],
    mode: Annotated[Mode, typer.Argument(help="watch: decide only; draft: an internal note; act: do it.")],
    state: State,
) -> None:
    """Set how far one action of a process may go."""
    there = process_named(process).settings.actions
    if action not in there:
        raise MendableError(f"{process} has no action {action!r}; it has: {', '.join(sorted(there))}")
    run(_set_mode(state, process, action, mode))
    print(f"{process}: {action} is in mode {mode}")


@app.command()
def modes(process: ProcessName, state: State, *, json: Json = False) -> None:
    """Show how far each action of a process may go, and who said so."""
    rows = run(_modes(state, process_named(process)))
    if json:
        as_json(rows)
        return
    table = Table("action", "mode", "a wrong one costs", "set by", "since", title=f"Modes of {process}")
    for row in rows:
        cost = f"${row['cost_of_error_usd']:,.2f}"
        since = f"{row['since']:%Y-%m-%d %H:%M} UTC" if row["since"] else ""
        table.add_row(str(row["action"]), str(row["mode"]), cost, str(row["set_by"]), since)
    Console().print(table)


@app.command()
def admit(
    process: ProcessName,
    state: State,
    *,
    regime: Annotated[
        str, typer.Option(metavar="REGIME", help="Where several wait: this one; its first characters will do.")
    ] = "",
    candidate: Annotated[
        bool,
        typer.Option("--candidate", help="Of the process's candidate: it may propose for cases."),
    ] = False,
    reason: Annotated[str, typer.Option(help="Why it goes without a passed eval; it is recorded.")],
) -> None:
    """Let a process be served without a passed eval of the regime that waits now; the next change waits again.

    Better is `nightshift eval PROCESS --write`, committed and started anew.
    """
    if candidate:
        found = candidate_of(process_named(process))
        admitted = run(_admit_candidate(state, found, regime, orders.reason_of(reason)))
        print(f"{process}: its candidate may ask {admitted.model} without a passed eval ({admitted.regime[:16]})")
        return
    admitted = run(_admit(state, folder_of(process).name, regime, orders.reason_of(reason)))
    print(f"{process} is served: {admitted.model} is asked without a passed eval (regime {admitted.regime[:16]})")


async def _switch(state: Path, process: str, reason: str, *, paused: bool) -> int:
    async with database(state) as connection:
        generation: int = await connection.fetchval(_SWITCH, process, paused, reason, who())
        return generation


async def _set_mode(state: Path, process: str, action: str, mode: Mode) -> None:
    async with database(state) as connection:
        await connection.execute(_SET_MODE, process, action, mode, who())


async def _admit(state: Path, process: str, regime: str, reason: str) -> RegimeAdmitted:
    async with database(state) as connection:
        waiting = await orders.waiting_regimes(connection, process)
        if not waiting:
            raise MendableError(f"{process} waits for nobody: a running classifier serves it, or none runs")
        wanted = orders.one_of(waiting, regime, what="regime", command="status")
        return await orders.admit(connection, process, wanted, reason=reason, by=who())


async def _admit_candidate(state: Path, process: Process, regime: str, reason: str) -> RegimeAdmitted:
    if not (waiting := await unrecorded(process)):
        raise MendableError(f"the candidate of {process.name} needs nobody: its passed evals are on record")
    async with database(state) as connection:
        wanted = orders.one_of([*waiting.values()], regime, what="regime", command="candidate")
        await orders.know(connection, process.name, waiting)
        return await orders.admit(connection, process.name, wanted, reason=reason, by=who())


async def _modes(state: Path, process: Process) -> list[dict[str, object]]:
    async with database(state) as connection:
        switched = {row["action"]: row for row in await connection.fetch(_MODES, process.name)}
    return [
        {
            "action": name,
            "mode": switched[name]["mode"] if name in switched else written.mode,
            "cost_of_error_usd": written.cost_of_error_usd,
            "set_by": switched[name]["changed_by"] if name in switched else "process.toml",
            "since": switched[name]["changed_at"] if name in switched else None,
        }
        for name, written in process.settings.actions.items()
    ]
