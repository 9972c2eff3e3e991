"""The actor on a real Postgres, driven step by step: no loop runs, no clock is waited for."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from connectors.protocol import PlainChange
from contracts.base import Fact
from contracts.basis import basis_of
from contracts.envelope import Event, decode
from contracts.events.cases import CaseChanged
from contracts.events.decisions import ApprovalResolved, DecisionMade, HandoverPlanned
from contracts.events.proposals import MadeFrom, ProposalMade, ProposalShadowed
from services.actor.app import handlers_of
from services.actor.handlers.approval import expire_approvals
from services.actor.handlers.decide import Decide
from services.actor.handlers.shadow import compare
from services.actor.outbound.lane import Lane
from services.actor.ports import Outside
from services.runtime.changes import seal_change
from services.runtime.inbox import Inbox
from services.runtime.postgres import Connection, Database, connect
from services.runtime.process import Process, load
from services.runtime.tasks import Worker
from services.runtime.vault import CaseKeys
from tests.conftest import MigratedDatabase
from tests.fakes.destination import FakeDestination
from tests.fakes.events import event

PROCESSES = Path(__file__).parent / "processes"
MADE_FROM = MadeFrom(model="m", prompt="p", output_schema="s", examples="e", settings="t", index_version="i")


def tiny(**overrides: Any) -> Process:
    return load("tiny", PROCESSES, overrides)


async def ordered(admin: Connection, process: str, mode: str, percent: int, regime: str) -> None:
    """As a person orders it by the command line, short of the event."""
    await admin.execute(
        "INSERT INTO control.candidates AS c (process, mode, percent, model, regime, reason) "
        "VALUES ($1, $2, $3, 'candidate', $4, 'a test') ON CONFLICT (process) DO UPDATE SET mode = excluded.mode, "
        "percent = excluded.percent, regime = excluded.regime, generation = c.generation + 1, "
        "changed_at = clock_timestamp()",
        *(process, mode, percent, regime),
    )


def case_of(ticket: str) -> str:
    return f"tiny:none:{ticket}"


@dataclass
class Bench:
    """One actor and its outside."""

    database: Database
    admin: Connection
    process: Process
    outside: FakeDestination
    time: float = 0.0

    def __post_init__(self) -> None:
        processes = {self.process.name: self.process}
        self.inbox = Inbox(self.database, "actor", handlers_of(processes))
        self.lane = self.new_lane()
        self.pager = self.new_lane("pager")
        self.worker = self.new_worker()

    def clock(self) -> float:
        """Rises by a millisecond each time it is asked, so that the pace never stops a test by itself."""
        self.time += 0.001
        return self.time

    def new_lane(self, destination: str = "none", outside: Outside | None = None) -> Lane:
        """Another sender of the same service: a second replica, or what comes after a crash."""
        if outside is None:
            outside = Outside(self.outside, self.outside if destination == "none" else None)
        return Lane(
            database=self.database,
            process=self.process,
            destination=destination,
            outside=outside,
            clock=self.clock,
        )

    def new_worker(self) -> Worker:
        work = Decide(self.database, self.process)
        return Worker(
            database=self.database,
            service="actor",
            process=self.process.name,
            kind="decide",
            perform=work.perform,
            store=work.store,
            attempts_max=3,
            lease_seconds=30,
            obeys_switch=False,
        )

    async def key(self, ticket: str) -> CaseKeys:
        key = bytes(32)
        await self.admin.execute(
            "INSERT INTO vault.case_keys (case_id, key) VALUES ($1, $2) ON CONFLICT DO NOTHING", case_of(ticket), key
        )
        return CaseKeys(case_of(ticket), {1: key})

    async def hear(self, *events: Event[Fact]) -> None:
        await self.inbox.take([e.to_record() for e in events])

    async def sealed(self, change: PlainChange) -> Event[Fact]:
        keys = await self.key(change.object_id)
        data = seal_change(change, door="none", keys=keys, received_at=self.outside.now)
        return event(f"change {change.object_id} {change.identity}", data, case_id=case_of(change.object_id))

    async def proposal(
        self,
        ticket: str,
        changes: Sequence[PlainChange],
        *,
        answer: str = "Hello!",
        confidence: float = 0.9,
        name: str = "",
        output: Mapping[str, Any] | None = None,
        regime: str | None = None,
        candidate: bool = False,
        cost_usd: str = "0",
        basis_of_change: PlainChange | None = None,
    ) -> Event[Fact]:
        """What the classifier would propose, knowing these changes: for the last one, or for `basis_of_change`."""
        keys = await self.key(ticket)
        case = None
        for change in changes:
            data = (await self.sealed(change)).data
            assert isinstance(data, CaseChanged)
            case = self.process.case.fold(case, data)
        assert case is not None
        told = output or {"confidence": confidence, "answer": answer}
        proposal = self.process.Proposal.model_validate(told).model_dump_json() if "answer" in told else "{}"
        answers = basis_of_change or changes[-1]
        basis = basis_of(answers.version, answers.identity)
        made = ProposalMade(
            basis=basis,
            case=case.model_dump(mode="json"),
            facts=keys.seal("{}"),
            output=keys.seal(proposal),
            label="question",
            confidence=confidence,
            made_from=MADE_FROM,
            regime=regime,
            candidate=candidate,
            cost_usd=Decimal(cost_usd),
        )
        return event(f"proposal {ticket} {basis} {name}", made, case_id=case_of(ticket))

    async def ask(self, ticket: str = "1", *, text: str = "Help!", **proposal: Any) -> PlainChange:
        """A customer comments, the news and the proposal arrive, and it is decided."""
        change = self.outside.says(ticket, text=text)
        known = [c for c in self.outside.tickets[ticket].history if c.version <= change.version]
        await self.hear(await self.sealed(change))
        await self.hear(await self.proposal(ticket, [*(c for c in known if c is not change), change], **proposal))
        await self.worker.step()
        return change

    async def send(self) -> None:
        """Everything that may go now goes."""
        for lane in (self.lane, self.pager):
            for _ in range(50):
                if not await lane.step():
                    break

    async def look(self) -> None:
        """Everything that wants to be looked at is looked at once."""
        await self.hurry()
        while await self.lane.look():
            pass

    async def hurry(self) -> None:
        """Every wait in the tables is over, and every lease too."""
        await self.admin.execute(
            "UPDATE actor.effects SET available_at = clock_timestamp(), attempted_at = attempted_at - interval '3 s'"
        )
        await self.admin.execute("UPDATE actor.looks SET due_at = clock_timestamp()")
        await self.admin.execute("UPDATE actor.tasks SET available_at = clock_timestamp()")

    async def said(self, kind: type[Fact]) -> list[Any]:
        """What the outbox holds of one type, oldest first."""
        rows = await self.admin.fetch(
            "SELECT headers, body FROM actor.outbox WHERE headers->>'ce_type' = $1 ORDER BY id", kind.TYPE
        )
        return [decode(row["headers"], row["body"]).data for row in rows]

    async def unexplained(self) -> list[str]:
        """Effects that were planned, and that no decision, handover or approval in the outbox names."""
        explained = {
            key
            for kind in (DecisionMade, HandoverPlanned, ApprovalResolved)
            for said in await self.said(kind)
            for key in said.effect_keys
        }
        keys = [row["effect_key"] for row in await self.admin.fetch("SELECT effect_key FROM actor.effects")]
        return [key for key in keys if key not in explained]

    async def states(self) -> dict[str, str]:
        """State of each effect, by kind and basis's name."""
        rows = await self.admin.fetch("SELECT kind, basis, state FROM actor.effects ORDER BY ordinal")
        return {f"{row['kind']} {row['basis'].split('|')[1]}": row["state"] for row in rows}

    async def compare(self) -> int:
        """What candidates proposed in shadow is judged, as far as it can be."""
        async with self.database.transaction() as connection:
            return await compare(connection, self.process)

    async def shadow(self, change: PlainChange, **proposal: Any) -> Event[Fact]:
        """What a candidate would propose for what `proposal` answers live."""
        live = await self.proposal(change.object_id, [change], **proposal)
        assert isinstance(live.data, ProposalMade)
        data = ProposalShadowed(
            basis=live.data.basis,
            proposal_id=live.event_id,
            regime="the candidate's",
            facts=live.data.facts,
            output=live.data.output,
            label=live.data.label,
            confidence=live.data.confidence,
            made_from=live.data.made_from,
        )
        return event(f"shadow {change.object_id} {live.data.basis}", data, case_id=live.case_id)

    async def expire(self) -> int:
        async with self.database.transaction() as connection:
            return await expire_approvals(connection, self.process)

    async def pause(self, *, paused: bool = True) -> None:
        await self.admin.execute("UPDATE control.switches SET paused = $1 WHERE process = 'tiny'", paused)


@asynccontextmanager
async def bench(migrated: MigratedDatabase, process: Process | None = None) -> AsyncIterator[Bench]:
    """A bench whose process runs. Whatever happened in it, the log explains each effect."""
    admin = await asyncpg.connect(migrated.admin_url)
    try:
        for name in ("json", "jsonb"):
            await admin.set_type_codec(
                name, schema="pg_catalog", encoder=lambda v: orjson.dumps(v).decode(), decoder=orjson.loads
            )
        now: datetime = await admin.fetchval("SELECT date_trunc('second', clock_timestamp()) - interval '60 s'")
        await admin.execute("INSERT INTO control.switches (process, paused) VALUES ('tiny', false)")
        async with connect(migrated.url("nightshift_actor"), schema="actor") as database:
            made = Bench(database, admin, process or tiny(), FakeDestination(now))
            yield made
            assert await made.unexplained() == []
    finally:
        await admin.close()
