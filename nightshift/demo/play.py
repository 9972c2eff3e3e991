"""One night of the demo: world and stack side by side, the script played, all settled, both sides' books read."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg

from nightshift import MendableError
from nightshift.demo import borrowed, ours, outside, privacy
from nightshift.demo.ours import Before, Pause
from nightshift.demo.outside import Books, Night, Script, World, WorldError
from nightshift.demo.summary import Evidence, Limits, Promise, accepted_events, judge
from nightshift.embedded.child import free_port, is_free
from nightshift.embedded.postgres import EmbeddedPostgres
from nightshift.orders import admit, waiting_regimes
from nightshift.rebuild import rebuild_projections
from nightshift.stack import Stack, as_role, external_admin_url, make_state_folder, prepare_database
from nightshift.world.night import POOL, TICKETS_MAX
from nightshift.world.shop import READER, fill
from processes.support.policy import Policy
from services.runtime.config import MissingSettingError, required_setting
from services.runtime.postgres import Connection
from services.runtime.process import SHIPPED, load

PROCESS, DOOR = "support", "zendesk"
ACTIONS = ("reply", "tag", "set_priority", "route", "refund", "handover", "notice")
OVERRIDES = """
support.limits.settle_seconds = 1
support.doors.zendesk.reads_per_second = 500
support.destinations.zendesk.requests_per_second = 500
support.destinations.zendesk.concurrency = 8
support.destinations.zendesk.breaker_open_seconds = 1
support.destinations.slack.requests_per_second = 50
"""
"""A night in half a minute: what people wait for in minutes takes seconds."""
MISCHIEF = ("--copies-max=3", "--shuffled-percent=10", "--forged-percent=2", "--stale-percent=2")
SECONDS_PER_TICKET = 0.15
NIGHT_SECONDS_MIN = 8.0
NIGHT_SECONDS_MAX = 120.0
SETTLE_SECONDS_MAX = 60.0
QUIET_SECONDS = 1.5
LOOK_SECONDS = 0.25
SWITCH_OFF_AT, SWITCH_ON_AT = 0.33, 0.38
"""Fractions of the night between which somebody has turned the process off."""
WORDS_SEARCHED = 25
_KEPT = (
    "NIGHTSHIFT_MODEL",
    "NIGHTSHIFT_ANTHROPIC_API_KEY",
    "NIGHTSHIFT_ANTHROPIC_URL",
    "NIGHTSHIFT_OLLAMA_URL",
    "NIGHTSHIFT_LOG_LEVEL",
    "NIGHTSHIFT_OTLP_URL",
)
"""Settings that a demo takes over beside those of borrowed.py; no other, lest it touch somebody's real help desk."""
_SET_MODE = """
INSERT INTO control.modes (process, action, mode, changed_by) VALUES ($1, $2, 'act', 'demo')
ON CONFLICT (process, action) DO UPDATE SET mode = excluded.mode, changed_by = excluded.changed_by
"""

_IS_DEMO = "SELECT to_regnamespace('shop') IS NOT NULL OR NOT EXISTS (SELECT FROM reporter.event_log)"

Say = Callable[[str, float, Mapping[str, int]], None]
"""Told of the phase, the share of the night that is over (0 to 1), and what was done so far."""


class NotADemoError(MendableError):
    """The state belongs to a system that works for somebody."""

    def __init__(self, where: Path | str) -> None:
        mend = "name another folder with --state" if isinstance(where, Path) else "name a database of its own"
        super().__init__(f"{where} holds a system that is no demo, and a demo would let it act: {mend}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be played, and where."""

    state: Path
    tickets: int = 200
    seed: int = 1
    intake_port: int | None = None
    console_port: int | None = None
    world_port: int | None = None
    mischief: tuple[str, ...] = MISCHIEF
    """What happens to webhooks on their way: options of the world."""
    seconds: float | None = None
    """How long the night takes; as long as so many tickets need when none is given."""
    settle_seconds_max: float = SETTLE_SECONDS_MAX

    @property
    def night_seconds(self) -> float:
        return self.seconds or min(NIGHT_SECONDS_MAX, max(NIGHT_SECONDS_MIN, self.tickets * SECONDS_PER_TICKET))


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """World and stack, running, wherever they run."""

    order: Order
    world: World
    admin_url: str
    """The stack's database, as the role that operates."""
    bootstrap: str
    """Its broker."""
    logs: Path | None = None
    """The state folder that holds its logs; none where these are out of reach."""

    async def night(self, say: Say) -> list[Promise]:
        """Play one night, let everything settle, and judge it."""
        connection = await asyncpg.connect(self.admin_url, timeout=10)
        try:
            before = await ours.before(connection)
            await self.world.begin(tickets=self.order.tickets, seconds=self.order.night_seconds)
            pause = await self._watch(connection, say)
            night = await self.settle(connection, say)
            say("the books are read", 1.0, await ours.progress(connection))
            return judge(await self.evidence(connection, night.facts or Script(), before, pause))
        finally:
            await connection.close()

    async def _watch(self, connection: Connection, say: Say) -> Pause | None:
        """Until the script is played. On the way somebody turns the process off, and on again."""
        began = time.monotonic()
        paused_at = resumed_at = None
        while (await self.world.night()).state == "playing":
            share = min(1.0, (time.monotonic() - began) / self.order.night_seconds)
            if paused_at is None and share >= SWITCH_OFF_AT:
                paused_at = await ours.switch(connection, PROCESS, paused=True, reason="the demo shows the switch")
            if paused_at is not None and resumed_at is None and share >= SWITCH_ON_AT:
                resumed_at = await ours.switch(connection, PROCESS, paused=False, reason="the demo goes on")
            off = paused_at is not None and resumed_at is None
            down = (await self.world.faults()).down
            say(_phase(share, down, off=off), share, await ours.progress(connection))
            await asyncio.sleep(LOOK_SECONDS)
        if paused_at is not None and resumed_at is None:
            resumed_at = await ours.switch(connection, PROCESS, paused=False, reason="the demo goes on")
        return None if paused_at is None or resumed_at is None else Pause(paused_at, resumed_at)

    async def settle(self, connection: Connection, say: Say) -> Night:
        """Until nothing waits on either side and nothing new was said for a while; bounded."""
        deadline = time.monotonic() + self.order.settle_seconds_max
        quiet_since, events = time.monotonic(), -1
        while True:
            night, waiting = await self.world.night(), await ours.waiting(connection)
            now, count = time.monotonic(), await ours.events_logged(connection)
            if waiting or not night.over or count != events:
                quiet_since, events = now, count
            if now - quiet_since >= QUIET_SECONDS or now > deadline:
                return night
            say("morning: what waits is finished", 1.0, await ours.progress(connection))
            await asyncio.sleep(LOOK_SECONDS)

    async def evidence(self, connection: Connection, script: Script, before: Before, pause: Pause | None) -> Evidence:
        """What the promises of the night are judged by, as both sides' books stand now."""
        books, sent = await self.world.books(), await self.world.deliveries()
        rebuilt = await rebuild_projections(self.admin_url, overrides=OVERRIDES)
        policy = _policy()
        return Evidence(
            script=script,
            books=books,
            sent=sent,
            ours=await ours.read(
                connection, PROCESS, since=before, delivered=sorted(accepted_events(sent)), pause=pause
            ),
            pause=pause,
            refunds=await self._refunds(script, books, policy),
            search=await privacy.search(self.admin_url, self.bootstrap, self._logs(), await self._said(script)),
            live=rebuilt.before,
            rebuilt=rebuilt.after,
            limits=_limits(policy),
        )

    async def _refunds(self, script: Script, books: Books, policy: Policy) -> list[Decimal]:
        """The amounts that stand in the tickets' refund field outside."""
        found: list[Decimal] = []
        for ticket_id in sorted(script.all & books.per_ticket.keys()):
            if policy.refunds.tag in books.per_ticket[ticket_id].tags:
                value = await self.world.field_of(ticket_id, policy.refunds.amount_field_id)
                found += [Decimal(amount) for amount in re.findall(r": ([0-9.]+) [A-Z]{3}", value)]
        return found

    async def _said(self, script: Script) -> dict[str, str]:
        """What some customers wrote this night, by case."""
        said: dict[str, str] = {}
        for ticket_id in script.of("ordinary"):
            if len(said) < WORDS_SEARCHED and privacy.piece_of(text := await self.world.first_words(ticket_id)):
                said[f"{PROCESS}:{DOOR}:{ticket_id}"] = text
        return said

    def _logs(self) -> list[Path]:
        """Every log of ours; the world's own is outside."""
        if self.logs is None:
            return []
        logs = [log for log in sorted((self.logs / "logs").iterdir()) if not log.name.startswith("world.")]
        return [log for log in (*logs, self.logs / "broker.log", self.logs / "postgres" / "log") if log.is_file()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo(Played):
    """World and stack on this machine, which end with the demo."""

    stack: Stack

    @property
    def inbox_url(self) -> str:
        """Where a newcomer writes as a customer."""
        return f"{self.world.url}/"


@asynccontextmanager
async def elsewhere(order: Order) -> AsyncIterator[Played]:
    """A world and a stack that run already, by the settings that the services have; they run on afterwards.

    NIGHTSHIFT_ZENDESK_URL is the simulated world: a real help desk plays no night, and is left alone.
    Raises NotADemoError, WorldError, StackError, MissingSettingError.
    """
    admin_url = external_admin_url(os.environ)
    if admin_url is None:
        raise MissingSettingError("NIGHTSHIFT_DATABASE_ADMIN_URL")
    bootstrap, world_url = required_setting("NIGHTSHIFT_KAFKA_BOOTSTRAP"), required_setting("NIGHTSHIFT_ZENDESK_URL")
    world = World(world_url, required_setting("NIGHTSHIFT_ZENDESK_TOKEN"), told="look at its log")
    try:
        seed = (await world.night()).seed
        await prepare_database(admin_url, (PROCESS,))
        if not await _is_demo(admin_url):
            raise NotADemoError("the database")
        password = urlsplit(required_setting("NIGHTSHIFT_SHOP_URL")).password
        await prepare(admin_url, seed, password and unquote(password))
        await _let_any_model(admin_url)
        yield Played(order=order, world=world, admin_url=admin_url, bootstrap=bootstrap)
    finally:
        await world.close()


@asynccontextmanager
async def demo(order: Order) -> AsyncIterator[Demo]:
    """World and stack, ready for a night, for the length of the block.

    The database and the broker are those of the settings, where both are named (borrowed.py), else embedded ones.
    Raises NotADemoError, BorrowedError, WorldError, StackError, ServiceError: one line each, with the mend.
    """
    state = order.state
    if (state / "postgres" / "data").exists() and not (state / "world").exists():
        raise NotADemoError(state)
    if not 0 < order.tickets <= TICKETS_MAX:
        raise WorldError(f"a night has 1 to {TICKETS_MAX:,} tickets: choose --tickets so")
    make_state_folder(state)
    known = outside.credentials(state / "world", order.world_port)
    intake_port = order.intake_port or _kept_port(state, "ingest")
    console_port = order.console_port or _kept_port(state, "reporter")
    webhook_url = f"http://127.0.0.1:{intake_port}/webhooks/{PROCESS}/{DOOR}"
    cases_url = f"http://127.0.0.1:{console_port}/cases/{PROCESS}:{DOOR}:"
    lent = await borrowed.settings(os.environ)
    lent_url = external_admin_url(lent)
    shop_url = as_role(lent_url, READER) if lent_url else EmbeddedPostgres(state / "postgres").url(READER)
    ours_of_settings = {name: value for name in _KEPT if (value := os.environ.get(name))}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    environment = {
        **inherited,
        **ours_of_settings,
        **known.environment(),
        **lent,
        "NIGHTSHIFT_SHOP_URL": shop_url,
        "NIGHTSHIFT_PROCESS_OVERRIDES": OVERRIDES,
    }
    stack = Stack(state, environment=environment, intake_port=intake_port, console_port=console_port)
    async with (
        outside.world(
            state, known, webhook_url=webhook_url, cases_url=cases_url, seed=order.seed, mischief=order.mischief
        ) as world,
        stack,
    ):
        await prepare(stack.admin_url, order.seed)
        await _let_any_model(stack.admin_url)
        yield Demo(
            order=order, world=world, admin_url=stack.admin_url, bootstrap=stack.bootstrap, logs=state, stack=stack
        )


async def _is_demo(admin_url: str) -> bool:
    """Whether nothing was recorded there yet, or an earlier demo filled the shop."""
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        answer: bool = await connection.fetchval(_IS_DEMO)
        return answer
    finally:
        await connection.close()


async def prepare(admin_url: str, seed: int, reader_password: str | None = None) -> None:
    """Fill the shop, let every action act, turn the process on."""
    await fill(admin_url, POOL, seed, reader_password=reader_password)
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        await connection.executemany(_SET_MODE, [(PROCESS, action) for action in ACTIONS])
        if await connection.fetchval("SELECT paused FROM control.switches WHERE process = $1", PROCESS):
            await ours.switch(connection, PROCESS, paused=False, reason="a demo began")
    finally:
        await connection.close()


async def _let_any_model(admin_url: str) -> None:
    """Whoever tries a model on a simulated world has no evals of it yet."""
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        for regime in await waiting_regimes(connection, PROCESS):
            await admit(connection, PROCESS, regime, reason="a demo began", by="demo")
    finally:
        await connection.close()


def _kept_port(state: Path, service: str) -> int:
    """A service's port of the last run, if free, else a free one: the world is told before the stack starts."""
    file = state / "ports.json"
    kept: int = json.loads(file.read_text()).get(service, 0) if file.exists() else 0
    return kept if kept and is_free(kept) else free_port()


def _phase(share: float, down: str, *, off: bool) -> str:
    match down:
        case "503":
            return "Zendesk answers 503"
        case "cut":
            return "Zendesk cuts every connection"
        case _:
            pass
    if off:
        return "the process is switched off"
    hours = ((0.25, "evening"), (0.45, "midnight"), (0.60, "the small hours"), (0.80, "Zendesk is back: recovery"))
    return next((name for until, name in hours if share < until), "early morning")


def _policy() -> Policy:
    policy = load(PROCESS, SHIPPED).policy
    assert isinstance(policy, Policy), "it is the support process's"
    return policy


def _limits(policy: Policy) -> Limits:
    settings = load(PROCESS, SHIPPED).settings
    return Limits(
        replies_per_case=settings.limits.effects_per_case_hour,
        refund=Decimal(str(policy.refunds.limit_by_currency["USD"])),
        refund_tag=policy.refunds.tag,
        first_reply_minutes=settings.sla.first_reply_minutes,
        target_percent=settings.sla.target_percent,
    )
