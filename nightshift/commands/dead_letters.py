"""`dead-letters`, `redrive`, `skip`, `causes`, `acknowledge`: what needs a person, and what a person does about it."""

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.console import Console
from rich.table import Column, Table

from contracts.events.control import CauseAcknowledged, RedriveRequested, SkipRequested
from nightshift import MendableError
from nightshift.orders import dead_letter, one_of, order, reason_of
from nightshift.reach import Json, State, as_json, database, run, who
from services.reporter.domain.sentences import ORDERED, said_of
from services.reporter.domain.views import CauseRow, DeadLetterRow
from services.reporter.outbound import queries
from services.runtime.postgres import Connection

app = typer.Typer()

ACKNOWLEDGE = """
UPDATE reporter.causes SET acknowledged_at = clock_timestamp(), acknowledged_by = $2, asked_since = NULL,
                           escalated_at = NULL WHERE cause = $1
"""

Letter = Annotated[str, typer.Argument(metavar="ID", help="Of a dead letter; its first characters will do.")]


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
        "tries",
        "since",
        "first reply due in",
        "behind",
        Column("cause", no_wrap=True),
        box=None,
    )
    for row in rows:
        left = "" if row.minutes_to_breach is None else f"{row.minutes_to_breach:.0f} min"
        what = f"{row.service}: {row.work}" + (f" ({said})" if (said := ORDERED.get(row.state)) else "")
        why = f"{row.code}: {row.message}" if row.message else row.code
        since = f"{row.raised_at:%m-%d %H:%M}"
        short = str(row.dead_letter_id)[:8]
        table.add_row(
            short, row.case_id, what, why, str(row.attempts), since, left, str(row.waits_behind), row.cause[:8]
        )
    Console().print(table)
    print(
        "`nightshift case CASE` tells its story; `nightshift redrive ID` tries it again, `nightshift redrive --cause "
        "CAUSE` all that failed alike; `nightshift skip ID --reason WHY` goes on without it"
    )


@app.command()
def redrive(
    state: State,
    letter: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Of a dead letter; its first characters will do.")
    ] = None,
    *,
    cause: Annotated[
        str | None, typer.Option(metavar="CAUSE", help="Instead of one: every dead letter of this cause.")
    ] = None,
    json: Json = False,
) -> None:
    """Try a dead letter's work again, when its cause is mended. It is recorded who ordered it."""
    if (letter is None) == (cause is None):
        raise MendableError("name one dead letter, or a cause with --cause: `nightshift dead-letters` lists both")
    if cause is not None:
        rows = run(_redrive_all(state, cause))
        if json:
            as_json([_named(row) for row in rows])
            return
        print(f"{len(rows)} dead letter{'' if len(rows) == 1 else 's'} will be tried again")
        return
    assert letter is not None, "one of the two is given"
    row = run(_redrive(state, letter))
    if json:
        as_json(_named(row))
        return
    print(f"{row.case_id}: {row.work} of {row.service} will be tried again")


@app.command()
def skip(
    letter: Letter,
    state: State,
    *,
    reason: Annotated[str, typer.Option(help="Why the work need not be done; it is recorded.")],
    json: Json = False,
) -> None:
    """End a dead letter undone: the case goes on without that work, and shows as skipped. There is no way back."""
    row = run(_skip(state, letter, reason_of(reason)))
    if json:
        as_json(_named(row))
        return
    print(f"{row.case_id}: {row.work} of {row.service} will not be done")


@app.command()
def causes(state: State, *, json: Json = False) -> None:
    """List what needs a person, by cause: how many cases each holds up, and who was told of it."""
    rows = run(_causes(state))
    if json:
        as_json([row.model_dump(mode="json") for row in rows])
        return
    if not rows:
        print("nothing needs a person")
        return
    table = Table(Column("cause", no_wrap=True), "what", "cases", "since", "next first reply due in", "told", box=None)
    for row in rows:
        left = "" if row.minutes_to_breach is None else f"{row.minutes_to_breach:.0f} min"
        what = f"{row.process}: {row.kind.replace('_', ' ')}"
        if row.kind == "dead_letter":
            what += f", {row.work} of {row.service} ({row.code})"
        if row.kind == "budget":
            what += f" of the {row.work} is used up: {row.detail}"
        if row.kind == "regime":
            what = f"{row.process}: not served, for {row.work} has no passed eval on record"
        if row.kind == "candidate":
            what += f" was worse, and was switched off: {row.detail}"
        asked_for = f" ({row.ordered:,} asked for)" if row.ordered else ""
        table.add_row(row.cause, what, f"{row.count:,}{asked_for}", f"{row.since:%m-%d %H:%M}", left, said_of(row))
    Console().print(table)
    print("`nightshift acknowledge CAUSE` says that you see to it; `nightshift redrive --cause CAUSE` tries all again")


@app.command()
def acknowledge(
    cause: Annotated[
        str, typer.Argument(metavar="CAUSE", help="Of `nightshift causes`; its first characters will do.")
    ],
    state: State,
    *,
    json: Json = False,
) -> None:
    """Say that you see to a cause: nobody else is told of it before the repeat time of process.toml is over."""
    row = run(_acknowledge(state, cause))
    if json:
        as_json({"cause": row.cause, "process": row.process, "count": row.count})
        return
    print(f"{row.cause}: yours now")


def _named(row: DeadLetterRow) -> dict[str, object]:
    return {"dead_letter_id": row.dead_letter_id, "case_id": row.case_id, "service": row.service}


async def _read(state: Path) -> list[DeadLetterRow]:
    async with database(state) as connection:
        return await queries.dead_letters(connection)


async def _redrive(state: Path, letter: str) -> DeadLetterRow:
    async with database(state) as connection:
        row = await dead_letter(connection, letter)
        await _order_redrive(connection, row)
        return row


async def _redrive_all(state: Path, cause: str) -> list[DeadLetterRow]:
    """All of them, or none: one transaction."""
    async with database(state) as connection, connection.transaction():
        known = {row.cause for row in await queries.causes(connection) if row.kind == "dead_letter"}
        known |= {row.cause for row in await queries.dead_letters(connection)}
        rows = await queries.dead_letters_of(
            connection, one_of(sorted(known), cause, what="cause", command="dead-letters")
        )
        for row in rows:
            await _order_redrive(connection, row)
        return rows


async def _order_redrive(connection: Connection, row: DeadLetterRow) -> None:
    wish = RedriveRequested(dead_letter_id=row.dead_letter_id, service=row.service, nonce=uuid4(), by=who())
    await order(connection, wish, process=row.process, case_id=row.case_id)


async def _skip(state: Path, letter: str, reason: str) -> DeadLetterRow:
    async with database(state) as connection:
        row = await dead_letter(connection, letter)
        wish = SkipRequested(dead_letter_id=row.dead_letter_id, service=row.service, reason=reason, by=who())
        await order(connection, wish, process=row.process, case_id=row.case_id)
        return row


async def _causes(state: Path) -> list[CauseRow]:
    async with database(state) as connection:
        return await queries.causes(connection)


async def _acknowledge(state: Path, cause: str) -> CauseRow:
    """What is kept and what is said commit together."""
    async with database(state) as connection, connection.transaction():
        rows = {row.cause: row for row in await queries.causes(connection)}
        row = rows[one_of(list(rows), cause, what="cause", command="causes")]
        await connection.execute(ACKNOWLEDGE, row.cause, who())
        await order(connection, CauseAcknowledged(cause=row.cause, by=who()), process=row.process, case_id=row.process)
        return row
