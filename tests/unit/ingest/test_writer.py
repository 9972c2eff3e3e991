"""The writers' progress: what makes an orchestrator end ingest."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from services.ingest.domain.delivery import Delivery, Outcome
from services.ingest.handlers.webhook import set_aside
from services.ingest.outbound.writer import Writer, Writers
from services.ingest.ports import Told
from services.runtime.health import STALLED_SECONDS
from tests.virtual import VirtualTime, live

BEGINS_AT = datetime(2026, 11, 25, 6, 0, 0, tzinfo=UTC)


class Stores:
    """Whatever comes."""

    async def write(self, deliveries: Sequence[Delivery], shard: int) -> Sequence[Outcome]:
        del shard
        return ["accepted"] * len(deliveries)


def delivery(case_id: str) -> Delivery:
    return Delivery(
        delivery_id=case_id,
        process="support",
        source="support/zendesk",
        sender_id=case_id,
        case_ids=[case_id],
        signed={},
        body=b"{}",
        traceparent="",
        received_at=BEGINS_AT,
        changes=(),
    )


def test_intake_stands_still_only_where_deliveries_wait_and_none_is_taken() -> None:
    answered: list[Told] = []

    async def scenario(_: VirtualTime) -> None:
        writer = Writer(Stores(), shard=0, committed=lambda: None, set_aside=set_aside, waiting_max=10)
        writers = Writers([writer])
        await asyncio.sleep(2 * STALLED_SECONDS)
        writers.submit(delivery("a"), answered.append)
        idle_before = await writers.stalled()
        await asyncio.sleep(STALLED_SECONDS + 1)
        writers.submit(delivery("b"), answered.append)
        nobody_writes = await writers.stalled()

        async with asyncio.TaskGroup() as group:
            group.create_task(writers.run())
            await asyncio.sleep(0.1)
            writes = await writers.stalled()
            writers.close()

        assert answered == ["accepted"] * 2
        assert (idle_before, writes) == (None, None)
        assert nobody_writes == "deliveries wait, and none was taken since 61 s (limit 60 s)"

    live(scenario, begins_at=BEGINS_AT)
