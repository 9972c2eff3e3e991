"""`python -m tests.fakes.hanging URL`: a classifier that reserves a call, says `asking`, and waits for ever."""

import asyncio
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from services.classifier.ports import Answer, Ask, Cost
from services.runtime.postgres import connect
from tests.fakes.acting import tiny
from tests.fakes.destination import FakeDestination
from tests.fakes.proposing import Bench, ScriptedModel

WORST = Cost(tokens_in=900, tokens_out=100, cost_usd=Decimal("0.10"))


class HangingModel(ScriptedModel):
    async def propose(self, ask: Ask) -> Answer:
        print("asking", flush=True)  # noqa: T201  # it is waited for
        await asyncio.Event().wait()
        return await super().propose(ask)


async def main(url: str) -> None:
    nobody: Any = None
    async with connect(url, schema="classifier") as database:
        outside = FakeDestination(datetime(2026, 11, 27, tzinfo=UTC))
        await Bench(database, nobody, tiny(), outside, model=HangingModel(worst=WORST)).worker.step()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
