"""`nightshift doctor`: what usually goes wrong, and the mend."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from nightshift.reach import Json, State, as_json, run

if TYPE_CHECKING:
    from nightshift.doctor import Finding

app = typer.Typer()

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}


@app.command()
def doctor(state: State, *, json: Json = False) -> None:
    """Check this machine, the stack and the settings; exit code 1 when there is a problem."""
    findings = run(_examine(state, say=not json))
    if json:
        as_json([dataclasses.asdict(finding) for finding in findings])
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


async def _examine(state: Path, *, say: bool) -> "list[Finding]":
    from nightshift.doctor import examine  # noqa: PLC0415  # a model's libraries take seconds to load

    console = Console(soft_wrap=True)
    findings = []
    async for finding in examine(state):
        findings.append(finding)
        if say:
            mark, style = _MARKS[finding.level]
            console.print(Text.assemble((f"{mark} ", style), (f"{finding.check:<18}", "bold"), finding.text))
            if finding.mend:
                console.print(Text(f"{'':<20}→ {finding.mend}", style))
    return findings
