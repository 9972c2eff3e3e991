"""`nightshift case ID`: one case and everything that happened to it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from nightshift import MendableError
from nightshift.reach import Json, State, as_json, database, process_named, run
from services.reporter.domain.views import Line, Timeline
from services.reporter.outbound import queries
from services.runtime.postgres import Connection
from services.runtime.process import case_id_of

app = typer.Typer()

TEXT_CHARS_SHOWN = 600
_THERE = "SELECT case_id FROM reporter.projections WHERE kind = 'case' AND case_id = ANY($1) ORDER BY case_id"


@app.command()
def case(
    case_id: Annotated[str, typer.Argument(metavar="ID", help="`support:zendesk:42`, or the last part alone: `42`.")],
    state: State,
    *,
    sealed: Annotated[bool, typer.Option("--sealed", help="Do not open what people wrote.")] = False,
    json: Json = False,
) -> None:
    """Tell one case: what came in, what was proposed and decided and why, what was sent, what people wrote."""
    told = run(_read(state, case_id, reveal=not sealed))
    if json:
        as_json(told.model_dump(mode="json"))
        return
    console = Console(soft_wrap=True, highlight=False)
    if (row := told.row) is not None:
        waiting = f", waits for {row.waiting}" if row.waiting else ""
        console.print(Text(f"{row.case_id}  {row.state}{waiting}", "bold"))
        sla = f"{row.sla.state} ({row.sla.why.replace('_', ' ')})"
        console.print(f"{row.label or 'no label'} · first reply {sla} · ${row.cost_usd} · {row.events} events\n")
    for one in told.runs:
        if one.cost_usd:
            tokens = one.tokens_in + one.tokens_out
            console.print(f"run {one.correlation_id}: {one.state}, {tokens:,} tokens, ${one.cost_usd}")
    if told.cut:
        console.print("earlier events are left out")
    for line in told.lines:
        _print(console, line)


def _print(console: Console, line: Line) -> None:
    time = f"{line.time:%Y-%m-%d %H:%M:%S.%f}"[:-3]
    console.print(Text.assemble((f"{time}  ", "dim"), (f"{line.who}  ", "cyan"), line.sentence))
    for text in line.texts:
        said = "(erased)" if text.text is None else text.text
        short = said if len(said) <= TEXT_CHARS_SHOWN else f"{said[:TEXT_CHARS_SHOWN]} … ({len(said):,} characters)"
        for number, part in enumerate(short.splitlines() or [""]):
            label = f"{text.name}: " if not number else ""
            console.print(Text(f"    | {label}{part}", "dim"))


async def _read(state: Path, wanted: str, *, reveal: bool) -> Timeline:
    async with database(state) as connection:
        full = await _full_id(connection, wanted.strip())
        told = await queries.case_timeline(connection, full, reveal=reveal)
    if told.row is None and not told.lines:
        raise MendableError(f"there is no case {wanted!r}: `nightshift status` counts those there are")
    return told


async def _full_id(connection: Connection, wanted: str) -> str:
    """`42` as `support:zendesk:42`. Raises MendableError where several cases end so."""
    if ":" in wanted:
        return wanted
    switched = await connection.fetch("SELECT process FROM control.switches")
    possible = [
        case_id_of(name, door, wanted) for (name,) in switched for door in sorted(process_named(name).settings.doors)
    ]
    found = [row[0] for row in await connection.fetch(_THERE, possible)]
    if len(found) > 1:
        raise MendableError(f"several cases are called {wanted}: name one in full ({', '.join(found)})")
    return found[0] if found else wanted
