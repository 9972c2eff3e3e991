"""How long work tells how far it is, and what came of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeElapsedColumn

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""


def silent(phase: str, done: int, total: int) -> None:
    """Tells nobody."""
    del phase, done, total


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on stderr; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("starting", total=None)

        def say(phase: str, done: int, total: int) -> None:
            shown.update(task, description=phase, completed=done, total=total)

        yield say


def answers() -> Console:
    """For what is printed at the end: as wide as the terminal, or wide enough for whatever reads it instead."""
    return Console(soft_wrap=True, highlight=False) if sys.stdout.isatty() else Console(width=200, highlight=False)
