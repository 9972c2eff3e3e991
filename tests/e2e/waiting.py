"""Waiting for what a running system will do."""

import asyncio
import time

from services.runtime.postgres import Connection

SECONDS_MAX = 60.0


async def until(connection: Connection, sql: str, *arguments: object) -> None:
    """Until the query answers with a row; fails after a minute, saying which."""
    deadline = time.monotonic() + SECONDS_MAX
    while await connection.fetchval(sql, *arguments) is None:
        assert time.monotonic() < deadline, f"never came true: {sql}"
        await asyncio.sleep(0.05)
