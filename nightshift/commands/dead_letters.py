"""`dead-letters`, `redrive`: work that needs a person, and putting it back."""

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.console import Console
from rich.table import Column, Table

from contracts.events.control import RedriveRequested
from nightshift.orders import one_of, order
from nightshift.reach import Json, State, as_json, database, run, who
from services.reporter.domain.views import DeadLetterRow
from services.reporter.outbound import queries

app = typer.Typer()


@app.command("dead-letters")
def dead_letters(state: State, *, json: Json = False) -> None:
    """List the work that failed for good, the oldest first; later work of the same case waits behind it."""
    rows = run(_read(state))
    if json:
        as_json([row.model_dump(mode="json") for row in rows])
        return
    if not rows:
        print("no dead letters")
        return
    table = Table(
        *(Column(name, no_wrap=True) for name in ("id", "case")),
        "what failed",
        "why",
        "since",
        "reply due in",
        "behind",
        box=None,
    )
    for row in rows:
        left = "" if row.minutes_to_breach is None else f"{row.minutes_to_breach:.0f} min"
        what = f"{row.service}: {row.work}" + ("" if row.state == "open" else " (redrive ordered)")
        why = f"{row.code}: {row.message}" if row.message else row.code
        since = f"{row.raised_at:%m-%d %H:%M}"
        table.add_row(str(row.dead_letter_id)[:8], row.case_id, what, why, since, left, str(row.waits_behind))
    Console().print(table)
    print("`nightshift case CASE` tells its story; `nightshift redrive ID` tries it again")


@app.command()
def redrive(
    letter: Annotated[str, typer.Argument(metavar="ID", help="Of a dead letter; its first characters will do.")],
    state: State,
    *,
    json: Json = False,
) -> None:
    """Try a dead letter's work again, when its cause is mended. It is recorded who ordered it."""
    row = run(_redrive(state, letter))
    if json:
        as_json({"dead_letter_id": row.dead_letter_id, "case_id": row.case_id, "service": row.service})
        return
    print(f"{row.case_id}: {row.work} of {row.service} will be tried again")


async def _read(state: Path) -> list[DeadLetterRow]:
    async with database(state) as connection:
        return await queries.dead_letters(connection)


async def _redrive(state: Path, letter: str) -> DeadLetterRow:
    async with database(state) as connection:
        rows = {row.dead_letter_id: row for row in await queries.dead_letters(connection)}
        row = rows[one_of(list(rows), letter, what="dead letter", command="dead-letters")]
        wish = RedriveRequested(dead_letter_id=row.dead_letter_id, service=row.service, nonce=uuid4(), by=who())
        await order(connection, wish, process=row.process, case_id=row.case_id)
        return row
