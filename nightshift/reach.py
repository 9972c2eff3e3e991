"""What every command shares: the state folder's option, the way to the database, and how an error is said."""

import asyncio
import getpass
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import asyncpg
import typer

from nightshift import MendableError
from nightshift.embedded.postgres import EmbeddedPostgres
from nightshift.stack import default_state, external_admin_url, running
from services.runtime.config import named_setting
from services.runtime.postgres import Connection
from services.runtime.process import CANDIDATE, Process, ProcessInvalidError, load, overrides_of, root_of

SERVER_WAIT_SECONDS = 15.0
"""How long a command waits for another one that uses the embedded database alone."""
_ABOUT_PYDANTIC = re.compile(r" *\[type=.*\]$|^ *For further information visit .*$", re.MULTILINE)

T = TypeVar("T")


def _state_folder(chosen: Path | None) -> Path:
    return (chosen or default_state()).expanduser().resolve()


State = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="NIGHTSHIFT_STATE",
        callback=_state_folder,
        default_factory=default_state,
        show_default="`.state` in the project",
        metavar="DIR",
        help="The folder of the embedded stack.",
    ),
]
"""The option that every command has."""

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON, for a machine.")]


class NothingHereError(MendableError):
    """There is no database yet."""

    def __init__(self, state: Path) -> None:
        super().__init__(
            f"nothing has run in {state} yet: start it with `nightshift up`, name another folder with --state, "
            "or set NIGHTSHIFT_DATABASE_URL"
        )


class UnpreparedError(MendableError):
    """The database lacks a table that the command needs."""


@asynccontextmanager
async def database(state: Path) -> AsyncIterator[Connection]:
    """The operator's connection: to the database of the settings, the running stack, or a server just for this.

    Raises NothingHereError, UnpreparedError, PostgresError, MendableError for a database that does not answer.
    """
    with admin_url(state) as url:
        async with _connected(url) as connection:
            yield connection


@contextmanager
def admin_url(state: Path) -> Iterator[str]:
    """The address of that database, for the length of the block. Raises NothingHereError, PostgresError."""
    told = running(state)
    if url := external_admin_url(os.environ):
        yield url
    elif told is None:
        server = EmbeddedPostgres(state / "postgres")
        if not server.data.exists():
            raise NothingHereError(state)
        server.start(wait_seconds=SERVER_WAIT_SECONDS)
        try:
            yield server.admin_url
        finally:
            server.stop()
    elif told["admin_url"] is None:
        raise MendableError("the stack that runs uses a database of your own: set NIGHTSHIFT_DATABASE_URL here too")
    else:
        yield str(told["admin_url"])


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, asyncpg.PostgresError) as error:
        raise MendableError(f"the database does not answer ({error}): `nightshift doctor` looks further") from error
    try:
        yield connection
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
        raise UnpreparedError(f"the database is not migrated ({error}): `nightshift up` migrates it") from error
    finally:
        await connection.close()


def process_named(name: str) -> Process:
    """A process as services of the same settings see it. Raises MendableError naming those there are."""
    try:
        overrides = overrides_of(named_setting("NIGHTSHIFT_PROCESS_OVERRIDES") or "")
        return load(name, _root_of(name), overrides.get(name, {}))
    except ProcessInvalidError as error:
        said = _ABOUT_PYDANTIC.sub("", str(error))
        raise MendableError(" ".join(said.split())) from error


def candidate_of(process: Process) -> Process:
    """What it would be asked by instead. Raises MendableError where it has no candidate."""
    if (candidate := process.candidate) is None:
        raise MendableError(
            f"{process.name} has no candidate: put a prompt.md, examples.jsonl or knowledge/ into "
            f"{process.folder / CANDIDATE}, or name another `model` under [candidate] in process.toml"
        )
    return candidate


def folder_of(name: str) -> Path:
    """Its folder. Whether it can be loaded does not matter: a process with a broken process.toml can be paused too.

    Raises MendableError naming those there are.
    """
    folder = _root_of(name) / name
    if not (folder / "process.toml").is_file():
        process_named(name)
    return folder


def _root_of(name: str) -> Path:
    mounted = os.environ.get("NIGHTSHIFT_PROCESSES_FOLDER")
    return root_of(name, Path(mounted) if mounted else None)


def who() -> str:
    """Who gives the order, for the log: `alice@host`, also through sudo."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, in a container
        user = f"uid {os.geteuid()}"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def cancelled_once() -> Iterator[None]:
    """The first SIGINT or SIGTERM cancels this task; further ones change nothing, for it is ending already."""
    this, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert this is not None, "it runs in one"
    left = [this]

    def cancel() -> None:
        if left:
            left.pop().cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, cancel)
    yield


def run(work: Coroutine[object, object, T]) -> T:
    """Run a command's coroutine."""
    return asyncio.run(work)


def as_json(answer: object) -> None:
    """Print an answer for a machine; moments and ids as text."""
    print(json.dumps(answer, default=str, indent=2))
