"""The kill switch, and how far each action may go. One SQL update, no deploy, works with Kafka down."""

from collections.abc import Mapping

from contracts.decision import Mode
from services.runtime.postgres import Connection


async def running_generation(connection: Connection, process: str) -> int | None:
    """The switch's generation, or none while the process is paused. No row means paused.

    Until the caller's transaction ends the switch cannot change: so this is the first thing a claim does.
    """
    generation: int | None = await connection.fetchval("SELECT control.running_generation($1)", process)
    return generation


async def modes(connection: Connection, process: str, written: Mapping[str, Mode]) -> dict[str, Mode]:
    """The mode of each action: what a person switched, else what process.toml says."""
    rows = await connection.fetch("SELECT action, mode FROM control.modes WHERE process = $1", process)
    switched = {row["action"]: row["mode"] for row in rows}
    return {action: switched.get(action, mode) for action, mode in written.items()}
