"""`nightshift up`: the whole system in the foreground."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from nightshift import MendableError
from nightshift.needed import missing_settings
from nightshift.reach import State, cancelled_once, process_named, run
from nightshift.stack import Stack

app = typer.Typer()

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Kept for the next start; a free one at the first.")]


@app.command()
def up(state: State, intake_port: Port = None, console_port: Port = None) -> None:
    """Run the embedded stack and the four services against the outside world of the settings, until Ctrl-C.

    Prints a line for each thing that listens, then `ready`. Where NIGHTSHIFT_DATABASE_URL or NIGHTSHIFT_KAFKA_BOOTSTRAP
    is set, that one is used and none is started.
    """
    with contextlib.suppress(asyncio.CancelledError):
        run(_up(state, intake_port, console_port))


async def _up(state: Path, intake_port: int | None, console_port: int | None) -> None:
    """Cancelled by SIGINT or SIGTERM, also while it starts."""
    if (state / "world").exists():
        raise MendableError(f"{state} holds a demo, in which every action acts: name another folder with --state")
    stack = Stack(state, intake_port=intake_port, console_port=console_port)
    if missing := missing_settings([process_named(name) for name in stack.processes]):
        raise MendableError(
            f"settings are not set: {', '.join(missing)}. Set each, or NAME_FILE to the path of a file that holds it"
        )
    with cancelled_once():
        async with stack:
            for line in listening(stack):
                print(line, flush=True)
            print("ready", flush=True)
            await asyncio.Event().wait()


def listening(stack: Stack) -> list[str]:
    """A line for each thing of the stack that listens."""
    doors = [f"{name}/{door}" for name in stack.processes for door in process_named(name).settings.doors]
    return [
        f"postgres   {stack.admin_url}" if stack.postgres else "postgres   yours (NIGHTSHIFT_DATABASE_URL)",
        f"broker     {stack.bootstrap}" + ("" if stack.broker else " (yours)"),
        *(f"webhooks   {stack.intake_url}/webhooks/{door}" for door in doors),
        f"classifier {stack.url('classifier')}/healthz",
        f"actor      {stack.url('actor')}/healthz",
        f"console    {stack.console_url}",
    ]
