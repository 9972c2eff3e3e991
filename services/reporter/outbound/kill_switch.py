"""The one thing that the console may change."""

from services.runtime.postgres import Database

_PAUSE = """
UPDATE control.switches SET paused = true, reason = $2, changed_by = 'console' WHERE process = $1 AND NOT paused
RETURNING generation
"""


class KillSwitch:
    """Implements ports.Stops."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pause(self, process: str, reason: str) -> bool:
        async with self._database.connection() as connection:
            return await connection.fetchval(_PAUSE, process, reason) is not None
