"""`nightshift eval PROCESS`: how often a model is right about labelled cases, and whether a change may go live."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nightshift import MendableError, progress
from nightshift.reach import Json, State, as_json, candidate_of, database, process_named, run

if TYPE_CHECKING:
    from nightshift.evals.examples import Eval
    from nightshift.evals.from_log import Candidates
    from nightshift.evals.result import Answered, Comparison, Result, Row
    from nightshift.evals.run import Ran
    from services.runtime.process import Process

app = typer.Typer()

PASSED, BLOCKED = 0, 1
_SHOWN_MAX = 15


@app.command("eval")
def eval_(
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="A folder below processes/, such as `support`.")],
    *,
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Ask the process's candidate, and compare it with what is live.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="`nearest`, `claude:<model>` or `ollama:<model>`; else the first choice of the settings."),
    ] = None,
    times: Annotated[int, typer.Option(min=1, max=20, help="Ask so often about each; more than 1 shows flicker.")] = 1,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The record of what is live; else this model's, in the process's folder."),
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="This one may be answered otherwise; may be repeated.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Where it passes, put it on record in the process's folder.")
    ] = False,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="Run nothing: print real cases that a person put right, to be labelled.")
    ] = False,
    json: Json = False,
    state: State,
) -> None:
    """Run evals.jsonl of a process through its model and its rules. Nothing is sent, and nothing that runs is needed.

    One model is asked, shown what the service would show it: each of `fallback` needs a record of its own.
    The customer is one of whom the books know nothing: no order, no earlier ticket. Exit code 0: passed; 1: blocked, by
    a floor of process.toml, by an eval that must pass, or by one that was right before and is not accepted. What has no
    record no classifier serves: a changed prompt, model, schema, example or passage waits for it.
    """
    loaded = candidate_of(process_named(process)) if candidate else process_named(process)
    from nightshift.evals import examples, result, run as runs  # noqa: PLC0415  # a model's libraries take seconds to load
    from nightshift.trial import live_choice, models_named, names_in_settings  # noqa: PLC0415  # as above
    from services.classifier.domain.regime import record_of  # noqa: PLC0415  # as above

    file = loaded.folder / examples.FILE
    if from_log:
        known = examples.read(file, loaded.Proposal) if file.exists() else ()
        _print_candidates(run(_candidates(state, loaded, known)))
        return
    evals = examples.read(file, loaded.Proposal)
    _check_floors([*loaded.settings.evals.floors], [*loaded.Proposal.model_fields])
    accepted = frozenset(accept or ())
    if unknown := sorted(accepted - {one.id for one in evals}):
        raise MendableError(f"--accept {unknown[0]}: no eval has this id")
    provider = models_named(loaded, [model or names_in_settings(loaded)[0]])[0]
    record = loaded.records / record_of(provider.name)
    live = loaded.folder / record_of(live_choice(loaded)) if candidate else record
    compared_with = against or (live if live.exists() else None)
    before = None if compared_with is None else result.from_lines(_text_of(compared_with), str(compared_with))
    if before is not None and before.process != loaded.name:
        raise MendableError(f"{compared_with} is a record of {before.process}: name one of {loaded.name}")
    with progress.bar() as told:
        ran = run(runs.run_evals(loaded, evals, provider, times=times, progress=told))
    compared = result.compare(ran.result, before, floors=loaded.settings.evals.floors, accepted=accepted)
    if len(evals) < result.EVALS_MIN:
        few = f"{len(evals)} evals say too little: label {result.EVALS_MIN} or more in {file}"
        compared = compared._replace(blocks=[few, *compared.blocks])
    written = record if write and not compared.blocks else None
    if written is not None:
        written.parent.mkdir(exist_ok=True)
        written.write_text(ran.result.as_passed(before, compared.newly_wrong).to_lines(), encoding="utf-8")
    if json:
        as_json(_told(ran, compared, written))
    else:
        _show(progress.answers(), ran, compared, {one.id: one.text for one in evals})
        print(_said_of(written, compared))
    raise typer.Exit(BLOCKED if compared.blocks else PASSED)


async def _candidates(state: Path, process: "Process", known: Sequence["Eval"]) -> "Candidates":
    from nightshift.evals.from_log import candidates  # noqa: PLC0415  # as above

    with progress.bar() as told:
        async with database(state) as connection:
            return await candidates(connection, process, known, told)


def _print_candidates(found: "Candidates") -> None:
    """Lines on stdout, for a file; what a person must know on stderr."""
    for line in found.lines:
        print(line)
    left_out = f", {found.unreadable} left out that cannot be read any more" if found.unreadable else ""
    print(
        f"{len(found.lines)} candidates from {found.cases} cases{left_out}. These are customers' words: take out what "
        "names a person, say in `expected` what is right, take `candidate` away, then add the line to evals.jsonl",
        file=sys.stderr,
    )


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MendableError(f"--against {file}: cannot be read ({error}): name a file made with --write") from error


def _check_floors(floors: list[str], fields: list[str]) -> None:
    for name in floors:
        if name not in fields:
            raise MendableError(f"process.toml, evals.floors.{name}: the proposal has {', '.join(fields)}")


def _said_of(written: Path | None, compared: "Comparison") -> str:
    if compared.blocks:
        return "not on record: what blocks must be mended, or accepted with --accept"
    if written is None:
        return "not on record yet: --write puts it there"
    return f"on record in {written}: commit it with the change"


def _told(ran: "Ran", compared: "Comparison", written: Path | None) -> dict[str, object]:
    found = ran.result
    shares = {
        name: {"right": share.right, "of": share.of, "interval": share.interval}
        for name, share in found.fields().items()
    }
    return {
        "model": found.model,
        "regime": found.regime,
        "fields": shares,
        "verdicts": {name: {"right": share.right, "of": share.of} for name, share in found.verdicts().items()},
        "flickering": [row.id for row in found.rows if row.flickers],
        "cost_usd": str(found.cost_usd),
        "blocks": compared.blocks,
        "newly_right": [flip.row.id for flip in compared.flips if flip.better],
        "newly_wrong": sorted(compared.newly_wrong),
        "newly_held": [row.id for row in compared.newly_held],
        "need_not_pass": compared.need_not_pass,
        "record": None if written is None else str(written),
    }


def _show(console: Console, ran: "Ran", compared: "Comparison", texts: dict[str, str]) -> None:
    found = ran.result
    console.print(f"{found.process} by {found.model}: {len(found.rows)} evals, asked {found.times} time(s) each")
    console.print(_fields(found))
    for field in found.fields():
        if confused := found.confused(field):
            console.print(_confusion(field, confused))
    console.print(_verdicts(found))
    if worst := found.worst():
        console.print(_worst(worst, texts))
    took, flickering = ran.latencies_ms, sum(row.flickers for row in found.rows)
    console.print(
        f"cost ${found.cost_usd}; latency p50 {took[len(took) // 2]} ms, p99 {took[len(took) * 99 // 100]} ms; "
        f"{flickering} of {len(found.rows)} flicker; regime {found.regime[:16]}"
    )
    for flip in compared.flips:
        console.print(Text(f"newly {'right' if flip.better else 'wrong'}: {flip.row.id}"))
    if compared.newly_held:
        ids = " ".join(row.id for row in compared.newly_held[:_SHOWN_MAX])
        more = " …" if len(compared.newly_held) > _SHOWN_MAX else ""
        console.print(Text(f"no longer let out by the rules: {len(compared.newly_held)} ({ids}{more})", "bold red"))
    if compared.need_not_pass:
        console.print(Text(f"had to pass before, and need not now: {' '.join(compared.need_not_pass)}", "bold red"))
    for block in compared.blocks:
        console.print(Text(f"blocks: {block}", "bold red"))
    console.print(Text("passed", "green") if not compared.blocks else Text("not passed", "bold red"))


def _fields(found: "Result") -> Table:
    table = Table("field", title="as expected")
    for column in ("right", "of", "share", "95 % interval"):
        table.add_column(column, justify="right")
    for name, share in found.fields().items():
        low, high = share.interval
        table.add_row(name, str(share.right), str(share.of), f"{share.value:.1%}", f"{low:.1%} to {high:.1%}")
    return table


def _confusion(field: str, confused: list[tuple[str, str, int]]) -> Table:
    table = Table("expected", "got", title=f"{field} taken for another")
    table.add_column("times", justify="right")
    for expected, got, count in confused[:_SHOWN_MAX]:
        table.add_row(expected, got, str(count))
    if len(confused) > _SHOWN_MAX:
        table.caption = f"and {len(confused) - _SHOWN_MAX} more: --json"
    return table


def _verdicts(found: "Result") -> Table:
    table = Table("verdict", title="what the rules make of it")
    for column in ("answers", "of all", "right in every field"):
        table.add_column(column, justify="right")
    everything = sum(share.of for share in found.verdicts().values())
    for name, share in found.verdicts().items():
        table.add_row(name, str(share.of), f"{share.of / everything:.1%}", f"{share.value:.1%}")
    return table


def _worst(worst: list[tuple["Row", "Answered"]], texts: dict[str, str]) -> Table:
    table = Table("id", "text", "expected", "got", title="wrong, the surest first")
    table.add_column("sure", justify="right")
    for row, answer in worst[:_SHOWN_MAX]:
        table.add_row(row.id, texts[row.id][:70], _said(row.expected), _said(answer.got), f"{answer.confidence:.2f}")
    return table


def _said(fields: Mapping[str, object]) -> str:
    return "\n".join(f"{name} {value}" for name, value in fields.items())
