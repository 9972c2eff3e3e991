"""`approvals`, `approve`, `deny`: what was decided to be a person's to answer."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from contracts.events.control import ApprovalAnswered
from nightshift.orders import approval, order
from nightshift.reach import Json, State, as_json, database, run, who
from services.reporter.domain.views import ApprovalRow
from services.reporter.outbound import queries

app = typer.Typer()

Id = Annotated[str, typer.Argument(metavar="ID", help="Of an approval; its first characters will do.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is recorded.")]


@app.command()
def approvals(state: State, *, json: Json = False) -> None:
    """List what waits for a person's yes, the oldest first. What nobody answers in time becomes a no."""
    rows = run(_read(state))
    if json:
        as_json([row.model_dump(mode="json") for row in rows])
        return
    if not rows:
        print("nothing waits for an approval")
        return
    table = Table(
        *(Column(name, no_wrap=True) for name in ("id", "case")),
        "why a person is asked",
        "expires",
        "first reply due in",
        box=None,
    )
    for row in rows:
        left = "" if row.minutes_to_breach is None else f"{row.minutes_to_breach:.0f} min"
        why = " ".join(reason.text for reason in row.reasons)
        table.add_row(str(row.approval_id)[:8], row.case_id, why, f"{row.expires_at:%m-%d %H:%M}", left)
    Console().print(table)
    print("`nightshift case CASE` shows what would be sent; then `nightshift approve ID` or `nightshift deny ID`")


@app.command()
def approve(approval: Id, state: State, *, reason: Why = "", json: Json = False) -> None:
    """Let exactly what was shown be sent, once; nothing else, and not after the customer wrote again."""
    _say(run(_answer(state, approval, "approved", reason)), "approved", json=json)


@app.command()
def deny(approval: Id, state: State, *, reason: Why = "", json: Json = False) -> None:
    """Let nothing be sent; the case goes to a person."""
    _say(run(_answer(state, approval, "denied", reason)), "denied", json=json)


def _say(row: ApprovalRow, answer: str, *, json: bool) -> None:
    if json:
        as_json({"approval_id": row.approval_id, "case_id": row.case_id, "answer": answer, "digest": row.digest})
    else:
        print(f"{row.case_id}: {answer}")


async def _read(state: Path) -> list[ApprovalRow]:
    async with database(state) as connection:
        return await queries.approvals(connection)


async def _answer(state: Path, wanted: str, answer: Literal["approved", "denied"], reason: str) -> ApprovalRow:
    async with database(state) as connection:
        row = await approval(connection, wanted)
        said = ApprovalAnswered(approval_id=row.approval_id, answer=answer, digest=row.digest, by=who(), reason=reason)
        await order(connection, said, process=row.process, case_id=row.case_id)
        return row
