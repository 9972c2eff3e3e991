"""The wiring: what is consumed, who works, and where effects go."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

import httpx
import structlog

from connectors import http_transport
from connectors.none import NoOutside
from connectors.slack import Slack
from contracts import topics
from contracts.base import Fact
from contracts.envelope import Event, Record
from contracts.events.cases import CHANGES, CaseChanged, CaseOpened
from contracts.events.control import ApprovalAnswered
from contracts.events.dead_letters import DeadLetterRaised, DeadLetterRedriven
from contracts.events.proposals import FactsRead, ProposalFailed, ProposalMade, ProposalShadowed
from services.actor.config import Settings, ZendeskAccount, slack_url
from services.actor.handlers.approval import approval_answered, expire_approvals
from services.actor.handlers.candidate import return_from_candidate
from services.actor.handlers.case_changed import case_changed
from services.actor.handlers.dead_letter_redriven import dead_letter_redriven
from services.actor.handlers.decide import Decide
from services.actor.handlers.failure import failed
from services.actor.handlers.proposal_made import DECIDE, proposal_made
from services.actor.handlers.say import SERVICE, approvals_put_off_total
from services.actor.handlers.shadow import compare, proposal_shadowed
from services.actor.outbound.lane import Lane
from services.actor.outbound.pauses import Pauses
from services.actor.outbound.zendesk import ZendeskDestination
from services.actor.ports import Outside
from services.runtime import telemetry
from services.runtime.figures import Age, Figures
from services.runtime.health import Check, HealthApp, progress_of
from services.runtime.inbox import Handler, Inbox
from services.runtime.kafka import Link
from services.runtime.kafka_clients import Producer
from services.runtime.lag import Lag
from services.runtime.months import making_months
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Connection, Database, connect
from services.runtime.process import Destination, Process, ProcessInvalidError, load_all
from services.runtime.relay import Relay
from services.runtime.service import Part, serve
from services.runtime.stop import Stop, Wake
from services.runtime.tasks import Worker

CONNECTIONS_MAX = 24
SUBSCRIPTIONS = (topics.CASES, topics.PROPOSALS, topics.DEAD_LETTERS, topics.CONTROL)
LOOK_SECONDS = 1.0
PUBLISH_SECONDS_MIN = 0.1
"""What the actor says is for the log alone, which is read a second later: one batch costs as much as one event."""
_USUAL = CHANGES | {FactsRead.TYPE, ProposalMade.TYPE}
"""They seldom lead to an effect before something is decided: then it waits until its lane looks by itself."""

log = structlog.get_logger()


def handlers_of(processes: Mapping[str, Process]) -> dict[type[Fact], Handler]:
    """A handler for each type that the actor knows; events of processes it does not work for are left to others."""

    def ours(handler: Handler) -> Handler:
        async def handle(connection: Connection, events: Sequence[Event[Fact]]) -> None:
            mine = [event for event in events if event.process in processes]
            if mine:
                await handler(connection, mine)

        return handle

    return {
        CaseOpened: ours(partial(case_changed, processes=processes)),
        CaseChanged: ours(partial(case_changed, processes=processes)),
        ProposalMade: ours(partial(proposal_made, processes=processes)),
        ProposalFailed: ours(partial(failed, processes=processes)),
        DeadLetterRaised: ours(partial(failed, processes=processes)),
        DeadLetterRedriven: dead_letter_redriven,
        ProposalShadowed: ours(proposal_shadowed),
        ApprovalAnswered: ours(partial(approval_answered, processes=processes)),
    }


def deciding(
    database: Database, process: Process, settings: Settings, wake: Wake, woken_after: Sequence[Wake]
) -> Worker:
    """The worker that decides. Deciding is no effect: it goes on while the process is paused."""
    work = Decide(database, process)
    return Worker(
        database=database,
        service=SERVICE,
        process=process.name,
        kind=DECIDE,
        perform=work.perform,
        store=work.store,
        attempts_max=process.settings.limits.attempts_max,
        lease_seconds=settings.decide_lease_seconds,
        batch_max=settings.decide_batch_max,
        obeys_switch=False,
        wake=wake,
        woken_after=woken_after,
    )


def connected(destination: Destination, settings: Settings, clients: Mapping[str, httpx.AsyncClient]) -> Outside | None:
    """A destination's connector, or none where the settings name no address for it.

    Raises MissingSettingError, ProcessInvalidError.
    """
    timeout_seconds = destination.timeout_seconds
    match destination.connector:
        case "zendesk":
            account = ZendeskAccount()
            zendesk = ZendeskDestination(
                base_url=account.url,
                email=account.email,
                token=account.token,
                our_user_id=settings.zendesk_user_id,
                client=clients["zendesk"],
                timeout_seconds=timeout_seconds,
            )
            return Outside(zendesk, zendesk)
        case "slack":
            if (url := slack_url()) is None:
                log.warning("slack is not connected: set NIGHTSHIFT_SLACK_URL; its notices go to nobody")
                return None
            return Outside(Slack(client=clients["slack"], url=url, timeout_seconds=timeout_seconds, clock=_utc_now))
        case "none":
            nothing = NoOutside(clock=_utc_now)
            return Outside(nothing, nothing)
        case _:
            raise ProcessInvalidError(
                f"connector {destination.connector!r} takes no effects: use zendesk, slack or none"
            )


def lanes_of(
    database: Database, processes: Mapping[str, Process], outside: Mapping[tuple[str, str], Outside | None], relay: Wake
) -> list[Lane]:
    """One lane for each destination of each process."""
    return [
        Lane(
            database=database,
            process=process,
            destination=name,
            outside=outside[process.name, name],
            woken_after=[relay],
        )
        for process in processes.values()
        for name in process.settings.destinations
    ]


def expiring(database: Database, process: Process, wakes: Sequence[Wake]) -> Part:
    """Turns approvals that nobody answered into a no."""
    approvals_put_off_total.labels(process.name)  # from zero on: the first one is an increase as well
    return looking(database, process, expire_approvals, wakes)


def looking(
    database: Database, process: Process, look: Callable[[Connection, Process], Awaitable[int]], wakes: Sequence[Wake]
) -> Part:
    """Looks every second, in a transaction, for what is to be done, and wakes others where something was."""

    async def run(stop: Stop) -> None:
        while not stop.is_set():
            try:
                async with database.transaction() as connection:
                    done = await look(connection, process)
                if done:
                    for wake in wakes:
                        wake.set()
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("a look waits for postgres", what=look.__name__, error=type(error).__name__)
            await stop.wait(LOOK_SECONDS)

    return run


def reading_the_unread(inbox: Inbox) -> Part:
    """Once, when Postgres is there: events that an older build kept and could not read."""

    async def read(stop: Stop) -> None:
        while not stop.is_set():
            try:
                await inbox.take_what_became_readable()
                break
            except (*UNAVAILABLE, *CONTENDED) as error:
                log.warning("unread events wait for postgres", error=type(error).__name__)
                await stop.wait(LOOK_SECONDS)
        await stop.wait()

    return read


async def run() -> None:
    """Serve until SIGTERM; a call in hand is finished and its outcome recorded first."""
    settings = Settings()
    telemetry.configure(SERVICE, level=settings.log_level, otlp_url=settings.otlp_url)
    processes = load_all(settings)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            connect(settings.database_url, schema=SERVICE, connections_max=CONNECTIONS_MAX, plan_once=True)
        )
        kinds = {d.connector for p in processes.values() for d in p.settings.destinations.values()}
        clients = {kind: await stack.enter_async_context(http_transport.client()) for kind in sorted(kinds)}
        outside = {
            (process.name, name): connected(destination, settings, clients)
            for process in processes.values()
            for name, destination in process.settings.destinations.items()
        }
        relay_wake, producer = Wake(), Producer()
        relay = Relay(database, SERVICE, producer, relay_wake, seconds_min=PUBLISH_SECONDS_MIN)
        lanes = lanes_of(database, processes, outside, relay_wake)
        effect_wakes = [relay_wake, *(lane.wake for lane in lanes)]
        decide_wakes = {name: Wake() for name in processes}
        workers = [
            deciding(database, process, settings, decide_wakes[name], effect_wakes)
            for name, process in processes.items()
            for _ in range(2)  # one batch waits for its commit while the other is decided
        ]
        inbox = Inbox(database, SERVICE, handlers_of(processes))

        async def take(records: Sequence[Record]) -> None:
            await inbox.take(records)
            types = {record.headers.get("ce_type") for record in records}
            to_decide = [] if types <= CHANGES else decide_wakes.values()  # a change leads to no decision
            for wake in (*to_decide, *([relay_wake] if types <= _USUAL else effect_wakes)):
                wake.set()

        link = Link(
            settings=settings,
            service=SERVICE,
            database=database,
            subscriptions=SUBSCRIPTIONS,
            take=take,
            producer=producer,
            relays=[relay],
            urgent=topics.PROPOSALS,  # which bring the case that they were made from
        )
        oldest: dict[tuple[str, str], Age] = {(w.process, w.kind): w.oldest_claimable_seconds for w in workers}
        oldest |= {lane.work: lane.oldest_due_seconds for lane in lanes}
        figures = Figures(database, SERVICE, outboxes=[SERVICE], oldest=oldest)
        alive: dict[str, Check] = {f"decide {w.process}": progress_of(w) for w in workers}
        alive |= {f"effects {lane.title}": lane.stalled for lane in lanes}
        parts = [relay.run, link.run, making_months(database, ["actor.outbox"]), reading_the_unread(inbox), figures.run]
        parts += [Lag(settings, SERVICE, database, SUBSCRIPTIONS).run]
        parts += [worker.run for worker in workers]
        parts += [lane.run for lane in lanes]
        parts += [Pauses(database, name, [lane for lane in lanes if lane.work[0] == name]).run for name in processes]
        for process in processes.values():
            parts.append(expiring(database, process, effect_wakes))
            parts.append(looking(database, process, return_from_candidate, [relay_wake]))
            if process.candidate is not None:
                parts.append(looking(database, process, compare, [relay_wake]))
        await serve(
            app=HealthApp(alive=alive, ready={"broker": _broker(link)}),
            host=settings.http_host,
            port=settings.http_port,
            parts=parts,
            grace_seconds=settings.grace_seconds,
        )


def _broker(link: Link) -> Check:
    async def check() -> str | None:
        return None if link.connected else "the broker is not connected"

    return check


def _utc_now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
