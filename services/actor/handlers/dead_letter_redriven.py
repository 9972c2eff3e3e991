"""`dead_letter.redriven` of our own: effects that died with the dead letter are put back; a claim checks them anew."""

from collections.abc import Sequence

from contracts.base import Fact
from contracts.envelope import Event
from contracts.events.dead_letters import DeadLetterRedriven
from services.actor.handlers.say import SERVICE
from services.runtime.postgres import Connection

_PUT_BACK = """
UPDATE effects SET state = 'planned', tries = 0, redrives = redrives + 1, token = token + 1, code = NULL,
       dead_letter_id = NULL, needs_refresh = semantics = 'conditional' AND NOT stamp_reused,
       available_at = clock_timestamp()
WHERE dead_letter_id = ANY($1) AND state = 'dead'
"""


async def dead_letter_redriven(connection: Connection, events: Sequence[Event[Fact]]) -> None:
    """Each once: an effect that was put back names no dead letter any more."""
    ours = [
        event.data.dead_letter_id
        for event in events
        if isinstance(event.data, DeadLetterRedriven) and event.data.service == SERVICE
    ]
    if ours:
        await connection.execute(_PUT_BACK, ours)
