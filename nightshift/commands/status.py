"""`nightshift status`: how things stand."""

from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from nightshift.reach import Json, State, as_json, database, run
from services.reporter.domain.views import CandidateRow, RegimeRow, Status
from services.reporter.outbound import queries

app = typer.Typer()

_TALLIES = """
SELECT coalesce(sum(accepted), 0)::bigint AS accepted, coalesce(sum(duplicate), 0)::bigint AS duplicates,
       coalesce(sum(no_case), 0)::bigint AS no_case, coalesce(sum(unreadable), 0)::bigint AS unreadable
FROM ingest.tallies
"""
_OLDEST_TASK = """
SELECT extract(epoch FROM clock_timestamp() - min(opened_at))::float8 FROM (
    SELECT opened_at FROM classifier.tasks WHERE state = 'open' AND kind <> 'shadow' UNION ALL
    SELECT opened_at FROM actor.tasks WHERE state = 'open' UNION ALL
    SELECT created_at FROM actor.effects WHERE state IN ('planned', 'in_flight', 'unknown')) waiting
"""


@app.command()
def status(state: State, *, json: Json = False) -> None:
    """Show how things stand: today's runs, latency, money, errors; cases, effects, dead letters, switches."""
    stands, deliveries, oldest = run(_read(state))
    if json:
        answer = {"deliveries": deliveries, "oldest_waiting_task_seconds": oldest}
        as_json({**stands.model_dump(mode="json"), **answer})
        return
    console = Console(soft_wrap=True, highlight=False)
    for switch in stands.switches:
        word, style = ("paused", "bold red") if switch.paused else ("running", "green")
        told = f"  {switch.changed_by}: {switch.reason}" if switch.reason else f"  {switch.changed_by}"
        console.print(Text.assemble((f"{switch.process} {word}", style), told, f" (generation {switch.generation})"))
    for regime in stands.regimes:
        console.print(_regime(regime))
    for candidate in stands.candidates:
        console.print(_candidate(candidate))
    console.print(_figures(stands, deliveries, oldest))
    if stands.intake_marked:
        console.print(_marked(stands))
    if stands.errors:
        console.print(_errors(stands))


def _regime(row: RegimeRow) -> Text:
    which = f"{row.model}, regime {row.regime[:16]}"
    if row.admitted_at is not None:
        return Text(f"{row.process} is served without a passed eval of {which}: {row.admitted_by} let it: {row.reason}")
    mend = f"`nightshift eval {row.process} --write` and start again, or `nightshift admit {row.process} --reason WHY`"
    since = f"since {row.since:%m-%d %H:%M} UTC"
    return Text.assemble((f"{row.process} is not served", "bold red"), f" {since}: no passed eval of {which}: {mend}")


def _candidate(row: CandidateRow) -> Text:
    how = f"a candidate in shadow on {row.percent} %" if row.mode == "shadow" else f"a candidate on {row.percent} %"
    which = f"{row.model}, regime {row.regime[:16]}"
    since = f"since {row.changed_at:%m-%d %H:%M} UTC"
    return Text.assemble(
        (f"{row.process} has {how} of its cases", "bold yellow"),
        f" {since}: {which}: {row.changed_by}: {row.reason} (`nightshift candidate {row.process}`)",
    )


def _figures(stands: Status, deliveries: Mapping[str, int], oldest: float | None) -> Table:
    table = Table(show_header=False, show_edge=False, box=None, padding=(0, 2, 0, 0))
    latency, sla = stands.latency, stands.sla
    each = "none yet" if stands.cost_per_run_usd is None else f"${stands.cost_per_run_usd:.4f} a run"
    average, p50, p99 = (_seconds(ms) for ms in (latency.average_ms, latency.p50_ms, latency.p99_ms))
    met = "no reply was due yet" if sla.percent is None else f"{sla.percent:.1f} % in time"
    waits = "nothing waits" if oldest is None else f"{oldest:.1f} s"
    for name, figure in (
        ("runs today", f"{stands.runs_today:,}, {stands.failures_today:,} failed"),
        ("latency today", f"average {average}, p50 {p50}, p99 {p99}"),
        ("cost today", f"${stands.cost_usd_today:.4f}, {each}"),
        ("deliveries", _counts(deliveries)),
        ("intake, last 7 days", _intake(stands)),
        ("cases", _counts(stands.cases)),
        ("decisions", _counts(stands.decisions)),
        ("effects", _counts(stands.effects)),
        ("first reply", f"{met}; {sla.waiting:,} waiting, {sla.overdue:,} overdue, {sla.breached:,} late"),
        ("dead letters", f"{stands.dead_letters_open:,}"),
        ("approvals waiting", f"{stands.approvals_open:,}"),
        ("oldest waiting task", waits),
    ):
        table.add_row(name, figure)
    return table


def _intake(stands: Status) -> str:
    hours = {f"{state} hours" if n > 1 else f"{state} hour": n for state, n in stands.intake.items()}
    return _counts(hours) if hours else "not compared with the provider's list yet"


def _marked(stands: Status) -> Table:
    table = Table(
        *(Column(name, no_wrap=True) for name in ("hour", "door")),
        *("state", "not told by a webhook"),
        title="intake that was not complete",
        title_justify="left",
        box=None,
    )
    for row in stands.intake_marked:
        state = f"{row.state} ({row.code})" if row.code else row.state
        missing = f"{row.missing:,} of {row.listed:,}" if row.missing else ""
        table.add_row(f"{row.hour:%m-%d %H}:00", f"{row.process}/{row.door}", state, missing)
    return table


def _errors(stands: Status) -> Table:
    table = Table(
        *(Column(name, no_wrap=True) for name in ("when", "case")),
        *("where", "what", "then"),
        title="last errors",
        title_justify="left",
        box=None,
    )
    for error in stands.errors:
        what = f"{error.code}: {error.message}" if error.message else error.code
        table.add_row(f"{error.at:%m-%d %H:%M:%S}", error.case_id, error.where, what, error.outcome)
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "none"


def _seconds(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds / 1000:.2f} s"


async def _read(state: Path) -> tuple[Status, dict[str, int], float | None]:
    async with database(state) as connection:
        stands = await queries.status(connection)
        row = await connection.fetchrow(_TALLIES)
        assert row is not None, "it is a row of sums"
        return stands, dict(row), await connection.fetchval(_OLDEST_TASK)
