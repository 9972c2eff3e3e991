"""`nightshift candidate PROCESS`: how far a changed regime goes, and what it would have done where it did not act."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from contracts.decision import Reason
from contracts.events.control import CandidateChanged
from nightshift import MendableError, orders
from nightshift.reach import Json, State, as_json, candidate_of, database, folder_of, process_named, run, who
from services.actor.domain.returns import Came
from services.actor.handlers.candidate import came
from services.reporter.domain.views import ShadowCount, ShadowRow
from services.reporter.outbound import queries
from services.runtime import candidates
from services.runtime.candidates import Mode, Order
from services.runtime.process import Process

app = typer.Typer()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stands:
    """A candidate, what was ordered last, and what came of it."""

    process: str
    model: str
    regime: str
    order: Order | None
    canary: tuple[Came, Came] | None
    """Of its own cases and the others, while it proposes for some."""
    counts: Sequence[ShadowCount]
    differing: Sequence[ShadowRow]

    @property
    def mode(self) -> Mode:
        return "off" if self.order is None or self.order.regime != self.regime else self.order.mode


@app.command()
def candidate(
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="A folder below processes/, such as `support`.")],
    state: State,
    *,
    shadow: Annotated[
        int | None,
        typer.Option(
            metavar="PERCENT", min=0, max=100, help="Ask it beside the live regime about so many cases; it never acts."
        ),
    ] = None,
    canary: Annotated[
        int | None,
        typer.Option(metavar="PERCENT", min=1, max=99, help="Let it propose for so many cases by itself."),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Ask it no more.")] = False,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    json: Json = False,
) -> None:
    """Show what a process's candidate made of the cases beside the live regime; or say how far it goes.

    A candidate is what lies in the process's folder `candidate` (a step's prompt.md, examples.jsonl, knowledge) and
    stands under [candidate] in process.toml; all else is live. An order is for exactly this: changed again, it is off.
    """
    if sum((off, shadow is not None, canary is not None)) > 1:
        raise MendableError("it is one of --shadow, --canary and --off")
    if off:
        print(_said(process, run(_off(state, folder_of(process).name, orders.reason_of(reason)))))
    elif shadow is not None:
        found = candidate_of(process_named(process))
        print(_said(process, run(_order(state, found, "shadow", shadow, orders.reason_of(reason)))))
    elif canary is not None:
        found = candidate_of(process_named(process))
        print(_said(process, run(_order(state, found, "canary", canary, orders.reason_of(reason)))))
    else:
        stands = run(_look(state, candidate_of(process_named(process))))
        if json:
            as_json(_told(stands))
        else:
            _show(stands)


async def _regime_of(process: Process) -> tuple[str, str]:
    """The name of the candidate's model, and its regime. Raises MendableError where that is the live one."""
    from nightshift.trial import names_in_settings, regimes_of  # noqa: PLC0415  # a model's libraries take seconds to load

    [(model, regime)] = (await regimes_of(process, names_in_settings(process)[:1])).items()
    live = process_named(process.name)
    if names_in_settings(live)[0] == model and await regimes_of(live, [model]) == {model: regime}:
        raise MendableError(f"the candidate of {process.name} is what is live already: change something of it first")
    return model, regime


async def unrecorded(process: Process) -> dict[str, str]:
    """By model: the regimes of a candidate that have no passed eval on record. Raises MendableError."""
    from nightshift.trial import names_in_settings, regimes_of  # noqa: PLC0415  # as above
    from services.classifier.outbound.admission import recorded_of  # noqa: PLC0415  # as above

    recorded, regimes = recorded_of(process), await regimes_of(process, names_in_settings(process))
    return {model: regime for model, regime in regimes.items() if regime not in recorded}


async def _order(state: Path, process: Process, mode: Mode, percent: int, reason: str) -> CandidateChanged:
    model, regime = await _regime_of(process)
    lacking = await unrecorded(process) if mode == "canary" else {}
    async with database(state) as connection:
        if missing := {*lacking.values()} - await orders.admitted(connection, process.name):
            model = next(name for name, one in lacking.items() if one in missing)
            raise MendableError(
                f"no passed eval of {model} is on record for the candidate: "
                f"`nightshift eval {process.name} --candidate --model {model} --write`, or "
                f"`nightshift admit {process.name} --candidate --reason WHY`"
            )
        return await orders.change_candidate(
            connection,
            process.name,
            mode=mode,
            percent=percent,
            model=model,
            regime=regime,
            reason=reason,
            by=who(),
        )


async def _off(state: Path, process: str, reason: str) -> CandidateChanged:
    async with database(state) as connection:
        order = await candidates.order_of(connection, process)
        if order is None:
            raise MendableError(f"no candidate of {process} was ever switched on")
        return await orders.change_candidate(
            connection,
            process,
            mode="off",
            percent=0,
            model=order.model,
            regime=order.regime,
            reason=reason,
            by=who(),
        )


async def _look(state: Path, process: Process) -> _Stands:
    model, regime = await _regime_of(process)
    async with database(state) as connection:
        order = await candidates.order_of(connection, process.name)
        watched = order is not None and order.mode == "canary" and order.regime == regime
        return _Stands(
            process=process.name,
            model=model,
            regime=regime,
            order=order,
            canary=await came(connection, process.name, order.generation) if order is not None and watched else None,
            counts=await queries.shadow_counts(connection, process.name, regime),
            differing=await queries.shadows_that_differ(connection, process.name, regime),
        )


def _said(process: str, changed: CandidateChanged) -> str:
    which = f"({changed.model}, regime {changed.regime[:16]})"
    if changed.mode == "off":
        return f"{process}: the candidate {which} is off"
    return f"{process}: the candidate {which} is in {changed.mode} on {changed.percent} % of the cases"


def _told(stands: _Stands) -> dict[str, object]:
    order = stands.order
    return {
        "process": stands.process,
        "model": stands.model,
        "regime": stands.regime,
        "mode": stands.mode,
        "percent": 0 if order is None or stands.mode == "off" else order.percent,
        "changed_by": None if order is None else order.changed_by,
        "changed_at": None if order is None else order.changed_at,
        "reason": None if order is None else order.reason,
        "canary": None if stands.canary is None else [asdict(one) for one in stands.canary],
        "shadow": [count.model_dump(mode="json") for count in stands.counts],
        "differing": [row.model_dump(mode="json") for row in stands.differing],
    }


def _show(stands: _Stands) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(f"{stands.process}: candidate {stands.model}, regime {stands.regime[:16]}: {_state(stands)}"))
    if stands.canary is not None:
        console.print(_came(*stands.canary))
    if not stands.counts and stands.canary is None:
        console.print("it has not been asked about a case yet")
    if not stands.counts:
        return
    console.print(Text(_figures(stands.counts)))
    console.print(_verdicts(stands.counts))
    if stands.differing:
        console.print(_differing(stands.differing))


def _state(stands: _Stands) -> str:
    order = stands.order
    if order is None:
        return "off; nobody has switched it on"
    told = f"since {order.changed_at:%Y-%m-%d %H:%M} UTC, by {order.changed_by}: {order.reason}"
    if order.regime != stands.regime:
        return f"off, for the last order was for another regime ({order.model}, {order.regime[:16]}), {told}"
    return f"off {told}" if order.mode == "off" else f"{order.mode} on {order.percent} % of the cases {told}"


def _came(candidate: Came, others: Came) -> Table:
    """What came of the cases since the order: its own, and the others beside them."""
    columns = [Column(name, justify="right") for name in ("cases", "held", "refused", "failed", "cost a case")]
    table = Table("since the order", *columns, box=None)
    for name, one in (("candidate", candidate), ("others", others)):
        rates = [f"{n:,} ({n / one.cases:.1%})" if one.cases else "-" for n in (one.held, one.refused, one.failed)]
        table.add_row(name, f"{one.cases:,}", *rates, f"${one.cost_usd / one.cases:.4f}" if one.cases else "-")
    return table


def _figures(counts: Sequence[ShadowCount]) -> str:
    by_state = Counter[str]()
    for count in counts:
        by_state[f"failed ({count.code})" if count.state == "failed" else count.state] += count.count
    cost = sum((count.cost_usd for count in counts), Decimal(0))
    told = ", ".join(f"{n:,} {state}" for state, n in by_state.most_common())
    return f"in shadow: {by_state.total():,} cases for ${cost:.4f}: {told}"


def _verdicts(counts: Sequence[ShadowCount]) -> Table:
    """What was decided, down, and what the candidate's proposals would have come to, across."""
    pairs = Counter[tuple[str, str]]()
    for count in counts:
        if count.live is not None and count.shadow is not None:
            pairs[count.live, count.shadow] += count.count
    across = sorted({shadow for _, shadow in pairs})
    columns = [Column(f"candidate: {verdict}", justify="right") for verdict in across]
    table = Table("live", *columns, title="decided", title_justify="left", box=None)
    for live in sorted({live for live, _ in pairs}):
        table.add_row(live, *(f"{pairs[live, shadow]:,}" for shadow in across))
    return table


def _differing(rows: Sequence[ShadowRow]) -> Table:
    table = Table(
        *(Column(name, no_wrap=True) for name in ("when", "case", "differs")),
        *("live", "candidate"),
        title="the newest that differ",
        title_justify="left",
        box=None,
    )
    for row in rows:
        assert row.live is not None, "what differs was compared"
        assert row.shadow is not None, "as above"
        when = f"{row.at:%m-%d %H:%M:%S}"
        live, shadow = (_verdict(j.verdict, j.reasons) for j in (row.live, row.shadow))
        table.add_row(when, row.case_id, row.state, live, shadow)
    return table


def _verdict(verdict: str, reasons: Sequence[Reason]) -> str:
    return f"{verdict}: {', '.join(reason.code for reason in reasons)}" if reasons else verdict
