"""The actor in virtual time: its own loops run, customers ask on the way, and the reporter is told in the end."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from contracts.base import Fact
from contracts.envelope import Event, decode
from services.reporter.app import policy_of
from services.reporter.domain.log import history_of
from services.reporter.domain.projection import project
from services.reporter.domain.views import CaseRow
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.stop import Stop
from tests.conftest import MigratedDatabase
from tests.fakes.acting import Bench, tiny
from tests.fakes.remote import Remote, Trouble
from tests.virtual import VirtualTime, admin

ENDED = frozenset({"observed", "superseded", "dead", "person"})
_UNFINISHED = "SELECT count(*) FROM actor.effects WHERE NOT state = ANY($1)"


@dataclass
class Living(Bench):
    """One actor and its remote."""

    heard: dict[str, list[Event[Fact]]] = field(default_factory=dict)

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def remote(self) -> Remote:
        assert isinstance(self.outside, Remote)
        return self.outside

    async def hear(self, *events: Event[Fact]) -> None:
        for event in events:
            self.heard.setdefault(event.case_id, []).append(event)
        await super().hear(*events)

    async def live(self, asks: Iterable[tuple[float, str]], *, until_seconds: float, lanes: int = 1) -> float:
        """Lanes run while customers ask, each at its second; until every effect ended. Returns when that was.

        Raises TimeoutError where that is not reached in time.
        """
        stop, time = Stop(), self.remote.time
        async with asyncio.TaskGroup() as group:
            for lane in (self.lane, *(self.new_lane() for _ in range(lanes - 1))):
                group.create_task(lane.run(stop))
            try:
                async with asyncio.timeout(until_seconds - time.seconds):
                    for at, ticket in asks:
                        await asyncio.sleep(at - time.seconds)
                        await self.ask(ticket)
                    while await self.admin.fetchval(_UNFINISHED, list(ENDED)):
                        await asyncio.sleep(1.0)
            finally:
                stop.set()
        return time.seconds

    async def cases(self) -> dict[str, CaseRow]:
        """What the reporter makes of it all, by ticket."""
        told: dict[str, list[Event[Fact]]] = {case_id: list(events) for case_id, events in self.heard.items()}
        for row in await self.admin.fetch("SELECT headers, body FROM actor.outbox"):
            event = decode(row["headers"], row["body"])
            told.setdefault(event.case_id, []).append(event)
        policy = policy_of(self.process)
        rows: dict[str, CaseRow] = {}
        for case_id, events in told.items():
            [projected] = [r for r in project(history_of(events), policy).rows if r.kind == "case"]
            rows[case_id.rpartition(":")[2]] = CaseRow.model_validate_json(projected.body)
        return rows


def zendesk_like(**more: Any) -> Process:
    """Paced and guarded as the shipped process paces Zendesk."""
    none = {
        "requests_per_second": 5,
        "concurrency": 4,
        "timeout_seconds": 10,
        "breaker_failures": 5,
        "breaker_open_seconds": 15,
    }
    return tiny(destinations={"none": none | more}, limits={"attempts_max": 8})


@asynccontextmanager
async def living(
    migrated: MigratedDatabase,
    time: VirtualTime,
    *troubles: tuple[float, float, Trouble],
    process: Process | None = None,
    zone: str = "UTC",
) -> AsyncIterator[Living]:
    """An actor that lives in `time`; its process runs. `zone`: in which Postgres tells the hour."""
    async with admin(migrated, time, "actor") as operator:
        await operator.execute(f"ALTER DATABASE {migrated.name} SET timezone = '{zone}'")
        await operator.execute("INSERT INTO control.switches (process, paused) VALUES ('tiny', false)")
        async with time.database(migrated.url("nightshift_actor"), "actor") as database:
            remote = Remote(time, *troubles)
            yield Living(database, cast("Connection", operator), process or zendesk_like(), remote)
