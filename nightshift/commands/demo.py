"""`nightshift demo`: the whole system and a simulated outside world, for one night."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from nightshift.reach import State, cancelled_once, process_named, run

if TYPE_CHECKING:
    from nightshift.demo.play import Demo, Order, Played, Say
    from nightshift.demo.summary import Promise

app = typer.Typer()

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Kept for the next start; a free one at the first.")]
ENDED_BY_INTERRUPT = 130
_WIDTH_OF_A_FILE = 140
_SHOWN = ("deliveries", "cases", "effects")


@app.command("demo")
def play_demo(
    state: State,
    *,
    leave: Annotated[bool, typer.Option("--exit", help="End after the summary; 0 only if every promise held.")] = False,
    tickets: Annotated[int, typer.Option(min=1, help="How many tickets the night has.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, another night.")] = 1,
    elsewhere: Annotated[
        bool, typer.Option(help="On the stack and the world of the settings, which run already; ends by itself.")
    ] = False,
    intake_port: Port = None,
    console_port: Port = None,
    world_port: Port = None,
) -> None:
    """Play one night against a simulated Zendesk, Slack and shop, and check every promise; then stay until Ctrl-C."""
    from nightshift.demo.play import PROCESS, Order  # noqa: PLC0415  # services and their libraries: slow to load

    process_named(PROCESS)
    order = Order(
        state=state,
        tickets=tickets,
        seed=seed,
        intake_port=intake_port,
        console_port=console_port,
        world_port=world_port,
    )
    try:
        held = run(_play_elsewhere(order) if elsewhere else _play(order, stay=not leave))
    except asyncio.CancelledError:
        raise typer.Exit(ENDED_BY_INTERRUPT) from None
    raise typer.Exit(0 if held else 1)


async def _play(order: "Order", *, stay: bool) -> bool:
    """Whether every promise held, or somebody ended a demo that stayed. Cancelled by SIGINT or SIGTERM before that."""
    from nightshift.demo import play  # noqa: PLC0415  # as above

    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_A_FILE)
    began = time.monotonic()
    with cancelled_once():
        console.print("starting Postgres, the broker, four services, and the world outside …")
        async with play.demo(order) as demo:
            held = await _night(console, demo, began)
            if not stay:
                console.print("\nConsole and inbox end here: without --exit they stay up, and this state goes on.")
                return held
            _links(console, demo)
            console.print("It stays up until Ctrl-C.")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return True


async def _play_elsewhere(order: "Order") -> bool:
    """Whether every promise held. Cancelled by SIGINT or SIGTERM."""
    from nightshift.demo import play  # noqa: PLC0415  # as above

    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_A_FILE)
    began = time.monotonic()
    with cancelled_once():
        async with play.elsewhere(order) as played:
            return await _night(console, played, began)


async def _night(console: Console, played: "Played", began: float) -> bool:
    """Play it, and print the promises. Whether all of them held."""
    with _bar(console) as say:
        promises = await played.night(say)
    _summary(console, promises, played.order, time.monotonic() - began)
    return all(promise.held for promise in promises)


@contextmanager
def _bar(console: Console) -> Iterator["Say"]:
    """A progress bar; where there is no terminal, a line a phase."""
    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task: TaskID = progress.add_task("evening", total=1.0, counts="")
        last = ""

        def say(phase: str, share: float, counts: Mapping[str, int]) -> None:
            nonlocal last
            told = " · ".join(f"{counts[name]:,} {name}" for name in _SHOWN)
            progress.update(task, description=phase, completed=share, counts=told)
            if phase != last and not console.is_terminal:
                console.print(f"{phase}: {told}")
            last = phase

        yield say


def _summary(console: Console, promises: list["Promise"], order: "Order", seconds: float) -> None:
    kept = sum(promise.held for promise in promises)
    table = Table(
        title=f"{kept} of {len(promises)} promises held",
        caption=f"{order.tickets} tickets; the night's ten hours in {order.night_seconds:.0f} s, "
        f"and {seconds:.0f} s from start to summary",
        title_justify="left",
        caption_justify="left",
        show_edge=False,
    )
    table.add_column("")
    table.add_column("promise", no_wrap=True)
    table.add_column("figure", overflow="fold")
    for promise in promises:
        mark = "[green]✓[/green]" if promise.held else "[bold red]✗[/bold red]"
        table.add_row(mark, promise.name, promise.figure)
    console.print(table)


def _links(console: Console, demo: "Demo") -> None:
    console.print(f"\nconsole            {demo.stack.console_url}", highlight=False)
    console.print(f"Zendesk's inbox    {demo.inbox_url}", highlight=False)
