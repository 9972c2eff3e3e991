"""A person who lets a process be served without a passed eval: by the command line, as any operator does."""

import asyncio
import os
import sys

import asyncpg

from nightshift.supervisor import PROJECT
from tests.fakes.acting import PROCESSES
from tests.waiting import until

_WAITS = "SELECT count(*) FROM control.live_regimes WHERE process = $1 AND admitted_at IS NULL"


async def admitted(database_url: str, process: str, *, reason: str = "a model of a test has no evals") -> None:
    """Once a classifier waits for it. Raises RuntimeError with what the command said."""
    connection = await asyncpg.connect(database_url)
    try:
        await until(lambda: connection.fetchval(_WAITS, process))
    finally:
        await connection.close()
    shell = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nightshift", "admit", process, "--reason", reason),
        cwd=PROJECT,
        env={
            **shell,
            "NIGHTSHIFT_DATABASE_URL": database_url,
            "NIGHTSHIFT_PROCESSES_FOLDER": str(PROCESSES),  # beside the shipped ones
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await command.communicate()
    if command.returncode:
        raise RuntimeError(said.decode())
