"""The reporter, wired."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from pydantic import SecretStr, ValidationError

from contracts import topics
from contracts.base import Json
from contracts.envelope import Record
from contracts.events import REGISTRY
from services.reporter.config import ReporterSettings
from services.reporter.domain.projection import VERSION
from services.reporter.domain.sla import Policy
from services.reporter.domain.telling import Manner
from services.reporter.handlers import rebuild as rebuilds
from services.reporter.handlers.append import Appender, Projector
from services.reporter.handlers.own_dead_letters import SERVICE, own_dead_letters
from services.reporter.handlers.tell import Teller
from services.reporter.inbound.console.pages import console
from services.reporter.inbound.console.session import Guard, Sessions
from services.reporter.outbound.causes import PostgresCauses
from services.reporter.outbound.event_log import PostgresStore
from services.reporter.outbound.gauges import Gauges
from services.reporter.outbound.kill_switch import KillSwitch
from services.reporter.outbound.messenger import AppriseMessenger
from services.reporter.outbound.queries import Queries
from services.reporter.outbound.rebuilding import RebuildRunsError, projected_by, rebuilding
from services.runtime import process, service, telemetry
from services.runtime.config import RuntimeSettings
from services.runtime.failures import Later, tell
from services.runtime.figures import Figures
from services.runtime.health import HealthApp
from services.runtime.kafka import Link
from services.runtime.kafka_clients import Producer
from services.runtime.lag import Lag
from services.runtime.months import making_months
from services.runtime.postgres import Database, connect
from services.runtime.relay import Relay
from services.runtime.stop import Stop, Wake

log = structlog.get_logger()
BATCH_SECONDS_MIN = 1.0
"""The page may be a second behind: events of one case that come within it are projected once."""
HEAL_AGAIN_SECONDS = 5.0


async def run() -> None:
    """Run the service until SIGTERM."""
    settings = ReporterSettings()
    telemetry.configure("reporter", level=settings.log_level, otlp_url=settings.otlp_url)
    async with connect(settings.database_url, schema="reporter") as database:
        policies = policies_of(settings)
        producer, reads = Producer(), Queries(database)
        orders, own = [Relay(database, schema, producer, Wake()) for schema in ("control", SERVICE)]
        appender = Appender(PostgresStore(database), Projector(policies))
        end_own = own_dead_letters(database)

        async def take(records: Sequence[Record]) -> None:
            await appender.take(records)
            await end_own(records)

        link = Link(
            settings=settings,
            service="reporter",
            database=database,
            subscriptions=topics.ALL,
            take=take,
            producer=producer,
            relays=[orders, own],
            batch_seconds_min=BATCH_SECONDS_MIN,
        )
        await service.serve(
            app=web(settings, reads, KillSwitch(database), link, appender),
            host=settings.http_host,
            port=settings.http_port,
            parts=[
                link.run,
                orders.run,
                own.run,
                making_months(database, ["reporter.outbox"], shared=["control.outbox", "reporter.event_log"]),
                partial(heal, database, policies),
                Gauges(reads, targets_of(settings)).run,
                teller_of(settings, database).run,
                Figures(database, "reporter", outboxes=["control", "reporter"]).run,
                Lag(settings, "reporter", database, topics.ALL).run,
            ],
            grace_seconds=settings.grace_seconds,
        )


def web(settings: ReporterSettings, reads: Queries, stops: KillSwitch, link: Link, appender: Appender) -> Guard:
    """The console behind its guard; health and metrics in the open."""

    async def postgres() -> str | None:
        await reads.approvals()
        return None

    async def broker() -> str | None:
        return None if link.connected else "the broker is not connected"

    sessions = Sessions(
        settings.console_token.get_secret_value(),
        seconds=int(settings.console_session_hours * 3600),
        clock=time.time,
    )
    health = HealthApp(alive={"log": appender.stuck}, ready={"postgres": postgres, "broker": broker})
    return Guard(console(reads, stops, tells=bool(settings.tell_urls.get_secret_value().strip())), health, sessions)


def teller_of(settings: ReporterSettings, database: Database) -> Teller:
    """Who tells a person, as each process says. Without a URL causes are counted and nobody is told."""

    def messenger(name: str, urls: SecretStr) -> AppriseMessenger | None:
        given = urls.get_secret_value().split()
        return AppriseMessenger(name, given) if given else None

    loaded = process.load_all(settings)
    tells = {name: one.settings.tell for name, one in loaded.items()}
    held = {name: timedelta(minutes=tell.held_minutes) for name, tell in tells.items() if tell.held_minutes}
    return Teller(
        PostgresCauses(database, held, {name: one.settings.budget for name, one in loaded.items()}),
        {name: manner_of(tell) for name, tell in tells.items()},
        duty=messenger("NIGHTSHIFT_TELL_URLS", settings.tell_urls),
        escalation=messenger("NIGHTSHIFT_TELL_ESCALATION_URLS", settings.tell_escalation_urls),
    )


def manner_of(tell: process.Tell) -> Manner:
    """What process.toml says about telling, for the rules."""
    return Manner(
        quiet=tell.quiet,
        zone=tell.zone,
        breach=timedelta(minutes=tell.breach_minutes),
        repeat=timedelta(minutes=tell.repeat_minutes),
        growth=tell.growth,
        escalate=timedelta(minutes=tell.escalate_minutes),
    )


def policies_of(settings: RuntimeSettings) -> dict[str, Policy]:
    """The SLA policy of each process this service works for."""
    return {name: policy_of(loaded) for name, loaded in process.load_all(settings).items()}


def targets_of(settings: RuntimeSettings) -> dict[str, float]:
    """The share of first replies that shall be in time, of each process this service works for."""
    return {name: loaded.settings.sla.target_percent / 100 for name, loaded in process.load_all(settings).items()}


def policy_of(loaded: process.Process) -> Policy:
    """The SLA policy of one process."""
    case = loaded.case

    def opened_at(body: Json) -> datetime | None:
        with suppress(ValidationError):  # an older build's case: then the opening is not told
            return case.opened_at(case.Case.model_validate(body))
        return None

    return Policy(
        first_reply_minutes=loaded.settings.sla.first_reply_minutes,
        automated_reply_counts=loaded.settings.sla.automated_reply_counts,
        start_at={name: door.start_at for name, door in loaded.settings.doors.items()},
        opened_at=opened_at,
        never_seen=frozenset(n for n, d in loaded.settings.destinations.items() if d.unknown != "read_back"),
    )


def version_of(policies: Mapping[str, Policy]) -> str:
    """What projections depend on beside the events: this code, the types it reads, and the policies."""
    sha = hashlib.sha256(repr((VERSION, sorted(REGISTRY))).encode())
    for name, policy in sorted(policies.items()):
        starts = sorted((door, at.isoformat()) for door, at in policy.start_at.items())
        said: tuple[Any, ...] = (name, policy.first_reply_minutes, policy.automated_reply_counts, starts)
        said += (sorted(policy.never_seen),)
        sha.update(repr(said).encode())
    return sha.hexdigest()


async def rebuild(
    database: Database, policies: Mapping[str, Policy], *, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Make every projection anew from the log and swap. Returns the number of cases. Raises RebuildRunsError."""
    async with rebuilding(database) as tables:
        version = version_of(policies)
        return await rebuilds.rebuild(tables, Projector(policies), version=version, progress=progress)


async def heal(database: Database, policies: Mapping[str, Policy], stop: Stop) -> None:
    """At start: rows made by other code or other policies are rebuilt. Then there is nothing to do until the end."""
    while not stop.is_set():
        try:
            if await projected_by(database) != version_of(policies):
                log.info("projections are rebuilt", cases=await rebuild(database, policies))
            break
        except RebuildRunsError:
            log.info("another reporter rebuilds the projections")
        except Exception as error:  # noqa: BLE001  # whatever it is, the live rows are still served
            if not isinstance(tell(error), Later):
                log.error(  # noqa: TRY400  # a traceback may quote people's text
                    "projections cannot be rebuilt; the live ones stay", error=type(error).__name__
                )
                break
        await stop.wait(HEAL_AGAIN_SECONDS)
    await stop.wait()
