"""One night at the help desk, the same for the same seed."""

import asyncio
from collections.abc import Callable, Mapping
from random import Random

from nightshift.world.faults import Faults
from nightshift.world.scenes import write_script
from nightshift.world.shop import Customer, customers_of
from nightshift.world.stage import Facts, Stage
from nightshift.world.update import RefusedError
from nightshift.world.zendesk import Zendesk

POOL = 2000
"""Fill the shop with so many customers: the night is played by them."""
TICKETS_MAX = 1500

Progress = Callable[[int, int], None]
"""Told how many tickets were written, and of how many."""


def wrongly_answered(books: Mapping[str, object], never_answer: Mapping[str, object]) -> list[str]:
    """Tickets of `never_answer` (as in `Facts.json`) that got a public reply all the same, by the outside books."""
    tickets = books["per_ticket"]
    assert isinstance(tickets, dict), "the books hold every ticket"
    return [
        ticket_id
        for ticket_id in never_answer
        if any(asked["replies"] for asked in tickets.get(ticket_id, {}).get("customer_comments", ()))
    ]


async def play(
    zendesk: Zendesk, faults: Faults, on_progress: Progress, *, tickets: int, seconds: float, seed: int
) -> Facts:
    """Play one night of `tickets` tickets in `seconds`, and leave the help desk without faults.

    Raises NightTooLongError before anything is written.
    """
    random = Random(f"night:{seed}:{zendesk.state.last_ticket_id}")  # noqa: S311  # plays, guards nothing
    stage = Stage(zendesk, faults, random, _people(zendesk, seed))
    write_script(stage, tickets)
    clock = asyncio.get_running_loop()
    began = clock.time()
    try:
        for at, _, do in sorted(stage.steps, key=lambda step: step[:2]):
            if (wait_seconds := began + at * seconds - clock.time()) > 0:
                await asyncio.sleep(wait_seconds)
            try:
                do()
            except RefusedError:
                stage.facts.refused += 1
            on_progress(stage.opened, tickets)
    finally:
        faults.down, faults.percent, faults.upcoming = "", {}, []
    return stage.facts


def _people(zendesk: Zendesk, seed: int) -> list[Customer]:
    """Everybody, those first who have no open ticket."""
    busy = {t.requester_id for t in zendesk.state.tickets.values() if t.status not in {"solved", "closed"}}
    return sorted(customers_of(POOL, seed), key=lambda customer: customer.id in busy)
