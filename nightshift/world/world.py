"""The whole outside world of one demo: help desk, chat, webhooks, and the night that is played on them."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import httpx

from contracts.base import Json
from nightshift.world import night, store
from nightshift.world.api import Api
from nightshift.world.books import books
from nightshift.world.deliveries import Delivery, Mischief, Sender
from nightshift.world.slack import Slack
from nightshift.world.stage import Facts
from nightshift.world.zendesk import Clock, Zendesk

TICK_SECONDS = 0.2
SAVE_SECONDS = 1.0
_SAVE_SHARE = 20
"""A save that took long is not repeated before twenty times as long: saving never takes more than a twentieth."""


class World:
    """Made of what an earlier run left in `folder`, or new."""

    def __init__(
        self,
        *,
        clock: Clock,
        token: str,
        secret: str,
        client: httpx.AsyncClient,
        email: str = "nightshift@shop.example",
        webhook_url: str | None = None,
        seed: int = 1,
        folder: Path | None = None,
        mischief: Mischief | None = None,
    ) -> None:
        """`token` is what the API asks for, `secret` signs the webhooks. The caller closes `client`."""
        saved = store.load(folder) if folder else None
        self.clock = clock
        self.seed = seed
        self.zendesk = Zendesk(clock, seed=seed, state=saved.state if saved else None)
        self.api = Api(zendesk=self.zendesk, email=email, token=token, random=self._random("faults"))
        self.slack = Slack(saved.messages if saved else [])
        self.sender = Sender(
            url=webhook_url,
            secret=secret,
            client=client,
            clock=clock,
            random=self._random("deliveries"),
            mischief=mischief,
            pending=_retried(saved.pending if saved else ()),
        )
        self.zendesk.listeners.append(self.sender)
        self.facts: Facts | None = None
        self.progress: Json = {"state": "quiet", "done": 0, "total": 0}
        self._folder = folder
        self._saved_at = 0.0
        self._save_seconds = 0.0
        self._saved: tuple[int, int, int] | None = None
        self._night: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Send webhooks, do what is due, save; until cancelled. Then save once more."""
        try:
            async with asyncio.TaskGroup() as group:
                self._night = group
                group.create_task(self.sender.run())
                group.create_task(self._tick())
        finally:
            self._night = None
            self.save()

    def start_night(self, *, tickets: int, seconds: float) -> bool:
        """Play a night beside everything else. False when one is being played, nothing runs, or it is too long."""
        if self._night is None or self.progress["state"] == "playing" or not 0 < tickets <= night.TICKETS_MAX:
            return False
        self.progress = {"state": "playing", "done": 0, "total": tickets}
        self._night.create_task(self._play(tickets, seconds))
        return True

    async def _play(self, tickets: int, seconds: float) -> None:
        def progress(done: int, total: int) -> None:
            self.progress = {"state": "playing", "done": done, "total": total}

        self.facts = await night.play(
            self.zendesk, self.api.faults, progress, tickets=tickets, seconds=seconds, seed=self.seed
        )
        self.progress = {**self.progress, "state": "played"}

    def night_json(self) -> Json:
        """How far the night is, and what a summary may be checked against."""
        return {
            **self.progress,
            "seed": self.seed,
            "webhooks_pending": len(self.sender.pending),
            "due": len(self.zendesk.state.due),
            "facts": self.facts.json() if self.facts else None,
        }

    def books_json(self) -> Json:
        """The outside books, with the deliveries that the world considers sent."""
        return books(self.zendesk.state) | {
            "deliveries": dict(self.sender.counts),
            "deliveries_pending": len(self.sender.pending),
            "slack_messages": len(self.slack.messages),
        }

    def save(self) -> None:
        """Write the state, if it has a folder."""
        if self._folder is not None:
            saved = store.Saved(state=self.zendesk.state, messages=self.slack.messages, pending=self.sender.pending)
            store.save(self._folder, saved)

    async def _tick(self) -> None:
        while True:
            self.zendesk.advance()
            now = (self.zendesk.changes, len(self.slack.messages), len(self.sender.pending))
            waited = time.monotonic() - self._saved_at
            if self._folder and now != self._saved and waited > max(SAVE_SECONDS, _SAVE_SHARE * self._save_seconds):
                began = self._saved_at = time.monotonic()
                self.save()
                self._save_seconds = time.monotonic() - began
                self._saved = now
            await asyncio.sleep(TICK_SECONDS)

    def _random(self, purpose: str) -> Random:
        """Chances of this run: the same for the same seed and the same past."""
        return Random(f"{self.seed}:{self.zendesk.state.last_id}:{purpose}")  # noqa: S311  # plays, guards nothing


def _retried(pending: Sequence[Delivery]) -> Sequence[Delivery]:
    """What an earlier run did not finish is tried anew, as often as it takes."""
    for delivery in pending:
        delivery.attempts = 0
    return pending
