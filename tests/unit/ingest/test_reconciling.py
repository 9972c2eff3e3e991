"""The part of the service that compares: what fails in it fails nowhere else."""

from typing import cast

from services.ingest.app import reconciling
from services.ingest.handlers.reconcile import Reconciling
from services.runtime.stop import Stop


class Looks:
    """Postgres is away at the first look; at the third one the service stops."""

    def __init__(self) -> None:
        self.count = 0

    async def once(self, stop: Stop) -> float:
        self.count += 1
        if self.count == 1:
            raise ConnectionError
        if self.count == 3:
            stop.set()
        return 0.0


async def test_a_look_without_postgres_is_made_again() -> None:
    looks = Looks()

    await reconciling(cast("Reconciling", looks), away_seconds=0.0)(Stop())

    assert looks.count == 3
