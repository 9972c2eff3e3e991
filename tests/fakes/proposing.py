"""The classifier on a real Postgres with a model that says what a test wants, driven step by step."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import asyncpg
import orjson

from connectors.none import NoOutside
from connectors.protocol import PlainChange, Reads
from contracts.base import Contract, Fact
from contracts.decision import Facts
from contracts.envelope import Event, decode
from contracts.events.proposals import MadeFrom
from contracts.failures import LaterError
from contracts.knowledge import Question
from services.classifier.app import shadow_worker
from services.classifier.handlers.case_changed import CaseChangedHandler
from services.classifier.handlers.propose import Proposing
from services.classifier.handlers.read_hinted import ReadHinted
from services.classifier.handlers.regimes import Canary, Regime
from services.classifier.handlers.shadow import Shadowing
from services.classifier.inbound.kafka import handlers, taking
from services.classifier.outbound.admission import CandidateAdmission
from services.classifier.outbound.budget import PostgresBudget
from services.classifier.ports import Answer, Ask, Cost, Provider
from services.runtime.changes import seal_change
from services.runtime.inbox import Inbox
from services.runtime.postgres import Connection, Database, connect
from services.runtime.process import Process
from services.runtime.stop import Wake
from services.runtime.tasks import Worker
from services.runtime.vault import CaseKeys
from tests.conftest import MigratedDatabase
from tests.fakes.acting import MADE_FROM, case_of, ordered
from tests.fakes.destination import FakeDestination
from tests.fakes.events import event

CANDIDATE_REGIME = "the candidate's"
GOOD = '{"confidence": 0.9, "answer": "Hello!"}'


@dataclass
class ScriptedModel:
    """Answers in turn; the last answer for ever."""

    name: str = "scripted"
    worst: Cost | None = None
    cost_usd: Decimal = Decimal(0)
    answers: list[str | Exception] = field(default_factory=lambda: [GOOD])
    asked: list[Ask] = field(default_factory=list)

    def worst_case(self, ask: Ask) -> Cost | None:
        del ask
        return self.worst

    async def weights(self) -> None:
        """It has none."""

    async def propose(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Answer(
            text=answer, model="scripted-1", tokens_in=100, tokens_out=10, cost_usd=self.cost_usd, latency_ms=5
        )


@dataclass
class PlainDesk:
    """Asks with the case's own words and no knowledge."""

    process: Process

    async def ask(self, case: Contract, facts: Facts) -> Ask:
        return Ask(
            instructions="answer",
            data=case.model_dump_json,
            output=self.process.Proposal,
            question=Question(text="", brand=None, language="en"),
            facts=facts,
            passages=(),
            index_version="",
            tokens_out_max=100,
        )

    def made_from(self, model: str, ask: Ask) -> MadeFrom:
        del ask
        return MADE_FROM.model_copy(update={"model": model})


class UnreachableSource:
    """A system of record that is away."""

    async def look_up(self, query: str, params: Any) -> Sequence[Any]:
        del query, params
        raise LaterError("unavailable", "away", seconds=5)


@dataclass
class Bench:
    """One classifier, its model and its outside."""

    database: Database
    admin: Connection
    process: Process
    outside: FakeDestination
    model: ScriptedModel = field(default_factory=ScriptedModel)
    provider: Provider | None = None
    """Asked instead of `model`, where there is one."""
    fallback: Sequence[Provider] = ()
    """Asked in turn after it."""
    door: Reads | None = None
    """Read instead of `outside`, where there is one."""
    candidate: ScriptedModel = field(default_factory=lambda: ScriptedModel(name="candidate"))
    """Asked in shadow, where the process has a candidate."""
    asks_at_once: int = 4
    time: float = 0.0

    def __post_init__(self) -> None:
        self.shadowing = None if self.process.candidate is None else self.new_shadowing()
        case_changed = CaseChangedHandler({self.process.name: self.process})
        self.inbox = Inbox(self.database, "classifier", handlers(case_changed))
        self.worker = self.new_worker()
        self.reader = self.new_reader()
        self.take = taking(self.inbox, case_changed, propose=[self.worker.wake], read=[self.reader.wake])

    def new_worker(self) -> Worker:
        proposing = Proposing(
            database=self.database,
            process=self.process,
            live=Regime(models=[self.provider or self.model, *self.fallback], desk=PlainDesk(self.process)),
            doors={"none": self.door or self.outside},
            sources={
                "away": UnreachableSource(),
                "there": NoOutside(clock=lambda: self.outside.now, queries={"q": "[]"}),
            },
            asks_at_once=asyncio.Semaphore(self.asks_at_once),
            budget=PostgresBudget(self.database, self.process),
            clock=lambda: self.time,
            canary=None if (candidate := self.process.candidate) is None else self.new_canary(candidate),
            beside=None if self.shadowing is None else self.shadowing.want,
        )
        return Worker(
            database=self.database,
            service="classifier",
            process=self.process.name,
            kind="propose",
            perform=proposing.perform,
            store=proposing.store,
            attempts_max=3,
            lease_seconds=60,
        )

    def new_candidate(self) -> Regime:
        models = [self.candidate, *self.fallback]
        digests = {model.name: f"{model.name}'s" for model in self.fallback} | {self.candidate.name: CANDIDATE_REGIME}
        return Regime(models=models, desk=PlainDesk(self.process), digests=digests, is_candidate=True)

    def new_canary(self, candidate: Process) -> Canary:
        regime = self.new_candidate()
        admission = CandidateAdmission(candidate, regime.digests, {})
        return Canary(process=candidate.name, regime=regime, may_serve=admission.given)

    def new_shadowing(self) -> Shadowing:
        return Shadowing(
            database=self.database,
            process=self.process,
            regime=self.new_candidate(),
            asks_at_once=asyncio.Semaphore(self.asks_at_once),
            budget=PostgresBudget(self.database, self.process),
            clock=lambda: self.time,
        )

    @property
    def shadower(self) -> Worker:
        assert self.shadowing is not None, "its process has a candidate"
        return shadow_worker(self.shadowing, Wake(), [])

    async def order(self, mode: str, percent: int = 100, regime: str = CANDIDATE_REGIME) -> None:
        """A person says how far the candidate goes."""
        await ordered(self.admin, self.process.name, mode, percent, regime)

    def new_reader(self) -> Worker:
        reading = ReadHinted(
            database=self.database,
            process=self.process,
            doors={"none": self.door or self.outside},
            reads_at_once=asyncio.Semaphore(16),
        )
        return Worker(
            database=self.database,
            service="classifier",
            process=self.process.name,
            kind="read",
            perform=reading.perform,
            store=reading.store,
            attempts_max=3,
            lease_seconds=60,
            woken_after=[self.worker.wake],
        )

    async def hear(self, change: PlainChange, *, name: str = "") -> None:
        """A change arrives from ingest."""
        case_id = case_of(change.object_id)
        await self.admin.execute(
            "INSERT INTO vault.case_keys (case_id, key) VALUES ($1, $2) ON CONFLICT DO NOTHING", case_id, bytes(32)
        )
        keys = CaseKeys(case_id, {1: bytes(32)})
        data = seal_change(change, door="none", keys=keys, received_at=self.outside.now)
        told = replace(event(f"{change.identity} {name}", data, case_id=case_id), time=self.outside.now)
        await self.take([told.to_record()])

    async def hurry(self) -> None:
        """Every wait and every lease is over."""
        await self.admin.execute("UPDATE classifier.tasks SET available_at = clock_timestamp()")

    async def said(self, kind: type[Fact]) -> list[Event[Fact]]:
        rows = await self.admin.fetch(
            "SELECT headers, body FROM classifier.outbox WHERE headers->>'ce_type' = $1 ORDER BY id", kind.TYPE
        )
        return [decode(row["headers"], row["body"]) for row in rows]


@asynccontextmanager
async def bench(migrated: MigratedDatabase, process: Process) -> AsyncIterator[Bench]:
    """A bench whose process runs."""
    admin = await asyncpg.connect(migrated.admin_url)
    try:
        for name in ("json", "jsonb"):
            await admin.set_type_codec(
                name, schema="pg_catalog", encoder=lambda v: orjson.dumps(v).decode(), decoder=orjson.loads
            )
        now = await admin.fetchval("SELECT date_trunc('second', clock_timestamp()) - interval '60 s'")
        await admin.execute("INSERT INTO control.switches (process, paused) VALUES ('tiny', false)")
        async with connect(migrated.url("nightshift_classifier"), schema="classifier") as database:
            yield Bench(database, admin, process, FakeDestination(now))
    finally:
        await admin.close()
