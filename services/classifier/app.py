"""The classifier, wired: the only place that knows every concrete class."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import httpx

from connectors import http_transport
from connectors.none import NoOutside
from connectors.protocol import Reads
from contracts import topics
from services.classifier.config import Settings
from services.classifier.handlers.ask_models import count_all_from_zero
from services.classifier.handlers.case_changed import PROPOSE, READ, CaseChangedHandler
from services.classifier.handlers.propose import Proposing
from services.classifier.handlers.read_hinted import ReadHinted
from services.classifier.handlers.regimes import Canary, Regime
from services.classifier.handlers.shadow import SHADOW, Shadowing
from services.classifier.inbound.kafka import SUBSCRIPTIONS, handlers, taking
from services.classifier.models import models_of, searches
from services.classifier.outbound import ollama
from services.classifier.outbound.admission import Admission, AdmittedProvider, CandidateAdmission
from services.classifier.outbound.budget import PostgresBudget
from services.classifier.outbound.desk import KnowledgeDesk, library_of
from services.classifier.outbound.doors import PacedReads
from services.classifier.outbound.passages import PassageIndex
from services.classifier.ports import Budget, Finds, Provider
from services.runtime import outside, service, telemetry
from services.runtime.figures import Figures
from services.runtime.health import HealthApp, progress_of
from services.runtime.inbox import Inbox
from services.runtime.kafka import Link
from services.runtime.kafka_clients import Producer
from services.runtime.lag import Lag
from services.runtime.months import making_months
from services.runtime.postgres import Database, connect
from services.runtime.process import CANDIDATE, Door, Process, load_all
from services.runtime.relay import Relay
from services.runtime.stop import Wake
from services.runtime.tasks import Worker

LEASE_SECONDS = 15
"""Kept up while a model thinks; what a dead classifier held is taken up by another this long afterwards."""
BATCH_MAX = 32
"""Small enough that a slow answer keeps few others waiting."""
SHADOW_BATCH_MAX = 4
"""Questions to a candidate that are under way side by side."""


Find = Callable[[], Awaitable[str]]
"""Asks another machine for a regime."""


async def run() -> None:
    """Run the service until SIGTERM."""
    settings = Settings()
    telemetry.configure("classifier", level=settings.log_level, otlp_url=settings.otlp_url)
    processes = load_all(settings)
    async with (
        connect(settings.database_url, schema="classifier", plan_once=True) as database,
        http_transport.client() as client,
    ):
        publishing, producer = Wake(), Producer()
        relay = Relay(database, "classifier", producer, publishing)
        models = {name: models_of(process, settings) for name, process in processes.items()}
        budgets = {name: PostgresBudget(database, process) for name, process in processes.items()}
        admissions = {name: await _admission(database, process, models[name]) for name, process in processes.items()}
        canaries = {
            name: await _canary(candidate, settings, database)
            for name, process in processes.items()
            if (candidate := process.candidate) is not None
        }
        workers = [
            worker
            for name, process in processes.items()
            for worker in _workers(
                process,
                [AdmittedProvider(model, admissions[name]) for model in models[name]],
                canaries[name][0] if name in canaries else None,
                budgets[name],
                admissions[name],
                settings,
                database,
                client,
                publishing,
            )
        ]
        case_changed = CaseChangedHandler(processes)
        inbox = Inbox(database, "classifier", handlers(case_changed))
        wakes = {kind: [worker.wake for worker in workers if worker.kind == kind] for kind in (PROPOSE, READ)}
        link = Link(
            settings=settings,
            service="classifier",
            database=database,
            subscriptions=SUBSCRIPTIONS,
            take=taking(inbox, case_changed, propose=wakes[PROPOSE], read=wakes[READ]),
            before_consuming=inbox.take_what_became_readable,
            producer=producer,
            relays=[relay],
            urgent=topics.CASES,
        )
        awaited = [worker for worker in workers if worker.kind != SHADOW]
        oldest = {(worker.process, worker.kind): worker.oldest_claimable_seconds for worker in awaited}
        lag = Lag(settings, "classifier", database, SUBSCRIPTIONS)
        figures = Figures(database, "classifier", outboxes=["classifier"], oldest=oldest)
        await service.serve(
            app=HealthApp(
                alive={f"{worker.process}.{worker.kind}": progress_of(worker) for worker in awaited},
                ready={"broker": link.check, "postgres": database.check},
            ),
            host=settings.http_host,
            port=settings.http_port,
            parts=[
                link.run,
                relay.run,
                figures.run,
                lag.run,
                making_months(database, ["classifier.outbox"]),
                *(budget.run for budget in budgets.values()),
                *(admission.run for admission in admissions.values()),
                *(admission.run for _, admission in canaries.values()),
                *(worker.run for worker in workers),
            ],
            grace_seconds=settings.grace_seconds,
        )


async def _admission(database: Database, process: Process, models: Sequence[Provider]) -> Admission:
    """Of each model that may answer."""
    return Admission(database, process, *await _regimes(process, models))


async def _regimes(process: Process, models: Sequence[Provider]) -> tuple[dict[str, str], dict[str, Find]]:
    """By model; and how to find those that only another machine knows: what a tag of Ollama stands for."""
    desk = KnowledgeDesk(process)

    async def found(model: Provider) -> str:
        return desk.regime(model.name, await model.weights())

    pulled = [model for model in models if model.name.startswith(f"{ollama.VENDOR}:")]
    known = {model.name: await found(model) for model in models if model not in pulled}
    return known, {model.name: partial(found, model) for model in pulled}


def _workers(
    process: Process,
    models: Sequence[Provider],
    canary: Canary | None,
    budget: Budget,
    admission: Admission,
    settings: Settings,
    database: Database,
    client: httpx.AsyncClient,
    publishing: Wake,
) -> list[Worker]:
    """Two loops a process propose: one batch waits for its commit while the other asks. A third reads after hints."""
    desk = KnowledgeDesk(process, _finds(models, process, database))
    library_of(process).prepare()
    count_all_from_zero(models)
    shadowing, shadow_wake = None if canary is None else _shadowing(process, canary.regime, budget, database), Wake()
    doors = {name: _reads(door, client) for name, door in process.settings.doors.items()}
    proposing = Proposing(
        database=database,
        process=process,
        live=Regime(models=models, desk=desk, digests=admission.regimes),
        doors=doors,
        sources={name: outside.source(source, client) for name, source in process.settings.sources.items()},
        asks_at_once=asyncio.Semaphore(settings.asks_at_once),
        budget=budget,
        canary=canary,
        beside=None if shadowing is None else shadowing.want,
    )
    reading = ReadHinted(
        database=database, process=process, doors=doors, reads_at_once=asyncio.Semaphore(settings.asks_at_once)
    )
    wake, woken_after = Wake(), [publishing, shadow_wake]
    workers = [_worker(process, database, admission, PROPOSE, proposing, wake, woken_after) for _ in range(2)]
    workers.append(_worker(process, database, admission, READ, reading, Wake(), [publishing, wake]))
    if shadowing is not None:
        workers.append(shadow_worker(shadowing, shadow_wake, [publishing]))
    return workers


async def _canary(candidate: Process, settings: Settings, database: Database) -> tuple[Canary, CandidateAdmission]:
    """A candidate, and who knows by which regimes it is asked."""
    models = models_of(candidate, settings)
    admission = CandidateAdmission(candidate, *await _regimes(candidate, models))
    desk = KnowledgeDesk(candidate, _finds(models, candidate, database))
    library_of(candidate).prepare()
    count_all_from_zero(models)
    regime = Regime(models=models, desk=desk, digests=admission.regimes, is_candidate=True)
    return Canary(process=candidate.name, regime=regime, may_serve=admission.given), admission


def _shadowing(process: Process, candidate: Regime, budget: Budget, database: Database) -> Shadowing:
    return Shadowing(
        database=database,
        process=process,
        regime=candidate,
        asks_at_once=asyncio.Semaphore(SHADOW_BATCH_MAX),
        budget=budget,
    )


def shadow_worker(shadowing: Shadowing, wake: Wake, woken_after: Sequence[Wake]) -> Worker:
    """It is in no figure of what waits, and no sign of life: nobody waits for it."""
    return Worker(
        database=shadowing.database,
        service="classifier",
        process=shadowing.process.name,
        kind=SHADOW,
        perform=shadowing.perform,
        store=shadowing.store,
        attempts_max=sys.maxsize,  # it says by itself when it gives up: it must never be a dead letter
        lease_seconds=LEASE_SECONDS,
        batch_max=SHADOW_BATCH_MAX,
        wake=wake,
        woken_after=woken_after,
    )


def _finds(models: Sequence[Provider], process: Process, database: Database) -> Finds | None:
    if not searches([model.name for model in models]):
        return None
    name = process.name if process.own is None else f"{process.name}/{CANDIDATE}"
    return PassageIndex(database, name, library_of(process), process.settings.retrieval)


def _worker(
    process: Process,
    database: Database,
    admission: Admission,
    kind: str,
    work: Proposing | ReadHinted,
    wake: Wake,
    woken_after: Sequence[Wake],
) -> Worker:
    return Worker(
        database=database,
        service="classifier",
        process=process.name,
        kind=kind,
        perform=work.perform,
        store=work.store,
        attempts_max=process.settings.limits.attempts_max,
        lease_seconds=LEASE_SECONDS,
        batch_max=BATCH_MAX,
        may_claim=admission.given,
        wake=wake,
        woken_after=woken_after,
    )


def _reads(door: Door, client: httpx.AsyncClient) -> Reads:
    """How a case of this door is completed. A door without a system behind it (a form) has nothing more to say."""
    if door.connector != "zendesk":
        return NoOutside(clock=outside.clock)
    return PacedReads(outside.zendesk(client), per_second=door.reads_per_second)
