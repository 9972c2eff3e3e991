"""`nightshift`: the operator's command line. Every module of nightshift/commands/ adds its own."""

import importlib
import os
import pkgutil
import sys

import typer
from rich.console import Console
from rich.text import Text

from nightshift import MendableError, commands
from services.runtime.config import UnreadableSettingError
from services.runtime.process import ProcessInvalidError

_ENDED_BY_INTERRUPT = 130


def build() -> typer.Typer:
    """The application with every command."""
    app = typer.Typer(
        name="nightshift",
        help="AI automation that runs unattended and proves it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(lambda: None)  # keeps the command's name where there is one command alone
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        app.add_typer(importlib.import_module(module.name).app)
    return app


def main() -> None:
    """Run one command. An error is one line on stderr with the mend, and exit code 1."""
    try:
        build()(prog_name="nightshift")
    except (MendableError, ProcessInvalidError, UnreadableSettingError) as error:
        _complain(str(error))
    except KeyboardInterrupt:
        sys.exit(_ENDED_BY_INTERRUPT)
    except Exception as error:
        if os.environ.get("NIGHTSHIFT_DEBUG"):
            raise
        said = " ".join(str(error).split())[:500]
        _complain(f"unexpected {type(error).__name__}: {said} (NIGHTSHIFT_DEBUG=1 shows where)")


def _complain(what: str) -> None:
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("nightshift: ", "bold red"), what))
    sys.exit(1)


if __name__ == "__main__":
    main()
