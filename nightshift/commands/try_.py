"""`nightshift try PROCESS TEXT`: what would be read, proposed and decided. Sends nothing, needs nothing that runs."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from contracts.decision import Execute, FactAnswer, Hold, verdict_of
from nightshift.reach import Json, as_json, process_named, run

if TYPE_CHECKING:
    from nightshift.trial import Tried

app = typer.Typer()


@app.command("try")
def try_(
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="A folder below processes/, such as `support`.")],
    text: Annotated[str, typer.Argument(help="What the customer writes.")],
    *,
    subject: Annotated[str, typer.Option(help="The subject.")] = "",
    requester: Annotated[str, typer.Option(help="The customer's id, for the facts.")] = "1",
    channel: Annotated[str, typer.Option(help="How it came in.")] = "email",
    model: Annotated[
        str | None,
        typer.Option(
            help="Ask `nearest`, `claude:<model>` or `ollama:<model>` alone; else those of the settings in turn."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show facts, proposal, decision with its reasons, and cost for a text. Nothing is sent and nothing is stored."""
    loaded = process_named(process)
    from nightshift import trial  # noqa: PLC0415  # a model's libraries take seconds to load; no other command needs them

    customer = trial.Customer(text=text, subject=subject, requester=requester, channel=channel)
    tried = run(trial.attempt(loaded, customer, model))
    if json:
        as_json(trial.told(tried))
    else:
        _show(Console(soft_wrap=True, highlight=False), tried)


def _show(console: Console, tried: "Tried") -> None:
    console.print(Text("facts", "bold"))
    for name, fact in tried.looked_up.items():
        console.print(Text(f"  {name}: {_fact(fact)}"))
    if tried.ask.passages:
        console.print(Text(f"  knowledge: {', '.join(passage.id for passage in tried.ask.passages)}"))
    console.print(Text("proposal", "bold"))
    for one in tried.failed:
        console.print(Text(f"  {one.model} came to nothing ({one.code})", "red"))
    if tried.output is None:
        console.print(Text(f"  none: {tried.why}", "red"))
    else:
        for name, value in tried.output.model_dump(mode="json", exclude_none=True).items():
            for number, line in enumerate(str(value).splitlines() or [""]):
                console.print(Text(f"  {name if not number else ' ' * len(name)}  {line}"))
    console.print(Text("decision", "bold"))
    _show_decision(console, tried)
    spent = tried.spent
    console.print(Text("cost", "bold"))
    tokens = f"{spent.tokens_in:,} tokens in, {spent.tokens_out:,} out"
    console.print(f"  ${spent.cost_usd}, {tokens}, {spent.latency_ms} ms, {spent.attempts} call(s); nothing was sent")


def _show_decision(console: Console, tried: "Tried") -> None:
    if tried.judgment is None:
        console.print("  dead letter: a person is told")
        return
    decision = tried.judgment.decision
    console.print(f"  {verdict_of(decision)}")
    for reason in decision.reasons:
        console.print(Text(f"  - {reason.text} ({reason.code})"))
    if isinstance(decision, Execute | Hold):
        for action in decision.actions:
            mode = tried.process.settings.actions[action.name].mode
            told = ", ".join(f"{name} {value}" for name, value in action.params.items())
            console.print(Text(f"  {action.name} {told}".rstrip() + f" (mode in process.toml: {mode})"))


def _fact(fact: FactAnswer) -> str:
    if not fact.ok:
        return f"could not be read ({fact.error})"
    return "; ".join(", ".join(f"{key} {value}" for key, value in row.items()) for row in fact.rows) or "nothing known"
