"""The simulated outside world of a demo: started as a process of its own, and asked for its own books over HTTP."""

import asyncio
import contextlib
import json
import secrets
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import httpx
from pydantic import AwareDatetime, Field

from contracts.base import Contract
from nightshift import MendableError
from nightshift.embedded.child import bound, free_port, is_free, last_line
from nightshift.supervisor import PROJECT
from nightshift.world.model import OUR_USER_ID

EMAIL = "nightshift@shop.example"
SLACK_TOKEN = "demo"  # noqa: S105  # the last part of a local path
START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 2.5
CALL_SECONDS_MAX = 20.0

T = TypeVar("T", bound=Contract)


class WorldError(MendableError):
    """The simulated world cannot start, or went away."""


class Asked(Contract):
    """What a customer wrote, and what followed before the customer's next words."""

    id: int
    at: AwareDatetime
    replies: tuple[AwareDatetime, ...] = ()
    """Ours that the customer saw."""
    notes: int = 0
    staff_replies: int = 0


class TicketBook(Contract):
    """One ticket in the world's books."""

    status: str
    """A status of Zendesk's, `deleted` or `spam`."""
    tags: tuple[str, ...] = ()
    created_at: AwareDatetime
    customer_comments: tuple[Asked, ...] = ()


class Books(Contract):
    """The world's own books, over all nights; counted by who wrote what after what, never by a key of ours."""

    per_ticket: dict[int, TicketBook]
    replies_to_nobody: int
    replies_after_staff: int
    replies_out_of_order: int
    calls: dict[str, int]
    slack_messages: int


class Sent(Contract):
    """One webhook delivery of this run."""

    invocation_id: str
    event_id: str
    kind: Literal["genuine", "duplicate", "forged", "stale"]
    status: int | None
    done: bool


class Deliveries(Contract):
    """Every webhook delivery of this run, however often it was tried."""

    deliveries: tuple[Sent, ...]


class Script(Contract):
    """What was played this night."""

    tickets: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Ticket ids by kind of scene."""
    never_answer: dict[int, str] = Field(default_factory=dict)
    """Tickets that no software may answer publicly, and why."""

    def of(self, *kinds: str) -> list[int]:
        """The tickets of these kinds of scene."""
        return [ticket_id for kind in kinds for ticket_id in self.tickets.get(kind, ())]

    @property
    def all(self) -> set[int]:
        return {ticket_id for ids in self.tickets.values() for ticket_id in ids}


class Night(Contract):
    """How far the night is."""

    seed: int
    """Of the world: which customers there are."""
    state: Literal["quiet", "playing", "played"]
    done: int
    total: int
    webhooks_pending: int
    due: int
    """Calls that come late, and machines' answers, which have not happened yet."""
    facts: Script | None = None

    @property
    def over(self) -> bool:
        """Nothing more will happen outside by itself."""
        return self.state == "played" and not self.webhooks_pending and not self.due


class Faults(Contract):
    """What is wrong with Zendesk at the moment."""

    down: Literal["", "503", "cut"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What both sides know. Made once for a state folder."""

    port: int
    token: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """The settings by which the stack finds this world."""
        return {
            "NIGHTSHIFT_ZENDESK_URL": self.url,
            "NIGHTSHIFT_ZENDESK_EMAIL": EMAIL,
            "NIGHTSHIFT_ZENDESK_TOKEN": self.token,
            "NIGHTSHIFT_ZENDESK_USER_ID": str(OUR_USER_ID),
            "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET": self.secret,
            "NIGHTSHIFT_SLACK_URL": f"{self.url}/slack/{SLACK_TOKEN}",
        }


def credentials(folder: Path, port: int | None) -> Credentials:
    """The kept ones of `folder` (made at first), on the port wished for, else the one it had, else a free one.

    Raises WorldError where the port wished for is taken.
    """
    file = folder / "credentials.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    if port is not None and not is_free(port):
        raise WorldError(f"port {port} is taken: choose another with --world-port")
    kept_port: int = kept.get("port", 0)
    chosen = port or (kept_port if kept_port and is_free(kept_port) else free_port())
    made = Credentials(chosen, kept.get("token") or secrets.token_hex(20), kept.get("secret") or secrets.token_hex(20))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps({"port": made.port, "token": made.token, "secret": made.secret}))
    return made


class World:
    """The running world, as the demo sees it. Every method raises WorldError when it does not answer."""

    def __init__(self, url: str, token: str, *, told: str) -> None:
        """`told`: where a person learns why it does not answer."""
        self.url = url
        self._told = told
        self._client = httpx.AsyncClient(
            base_url=url, auth=(f"{EMAIL}/token", token), timeout=CALL_SECONDS_MAX, trust_env=False
        )

    async def begin(self, *, tickets: int, seconds: float) -> None:
        """Start the night."""
        response = await self._call("POST", "/control/night", {"tickets": tickets, "seconds": seconds})
        if response.status_code != httpx.codes.ACCEPTED:
            raise WorldError(f"the world plays no night of {tickets} tickets: play fewer with --tickets")

    async def night(self) -> Night:
        return await self._report("night", Night)

    async def faults(self) -> Faults:
        return await self._report("faults", Faults)

    async def books(self) -> Books:
        return await self._report("books", Books)

    async def deliveries(self) -> tuple[Sent, ...]:
        return (await self._report("deliveries", Deliveries)).deliveries

    async def first_words(self, ticket_id: int) -> str:
        """What the customer wrote first; empty where the ticket is gone."""
        response = await self._call("GET", f"/api/v2/tickets/{ticket_id}.json")
        if response.status_code != httpx.codes.OK:
            return ""
        return str(response.json()["ticket"]["description"])

    async def field_of(self, ticket_id: int, field_id: int) -> str:
        """A custom field of a ticket; empty where it was never set."""
        ticket = (await self._call("GET", f"/api/v2/tickets/{ticket_id}.json")).json()["ticket"]
        return next((str(f["value"]) for f in ticket["custom_fields"] if f["id"] == field_id), "")

    async def _report(self, name: str, contract: type[T]) -> T:
        response = await self._call("GET", f"/{name}.json")
        if response.status_code != httpx.codes.OK:
            raise WorldError(f"{self.url} is no simulated world: a demo plays on nothing else")
        return contract.model_validate_json(response.content)

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise WorldError(f"the simulated world does not answer ({type(error).__name__}): {self._told}") from error

    async def listens(self) -> bool:
        """Whether it answers by now."""
        with contextlib.suppress(httpx.HTTPError):
            return (await self._client.get("/healthz")).status_code == httpx.codes.OK
        return False

    async def close(self) -> None:
        """Leave it alone."""
        await self._client.aclose()


async def _ready(there: World, process: Process, log: Path) -> None:
    for _ in range(START_SECONDS_MAX * 20):
        if process.returncode is not None:
            raise WorldError(f"the simulated world did not start: {last_line(log)} (see {log})")
        if await there.listens():
            return
        await asyncio.sleep(0.05)
    raise WorldError(f"the simulated world does not listen after {START_SECONDS_MAX} s: see {log}")


async def _stop(process: Process) -> None:
    """Let it save and end; killed when it takes too long."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def world(
    state: Path, known: Credentials, *, webhook_url: str, cases_url: str, seed: int, mischief: Sequence[str]
) -> AsyncIterator[World]:
    """The world for the length of the block; its state lies in `state`/world. Raises WorldError."""
    log = state / "logs" / "world.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    module = [sys.executable, "-m", "nightshift.world", "--port", str(known.port), "--state", str(state / "world")]
    options = ["--webhook-url", webhook_url, "--cases-url", cases_url, "--seed", str(seed)]
    options += ["--email", EMAIL, "--slack-token", SLACK_TOKEN]
    ours = {
        name: known.environment()[name] for name in ("NIGHTSHIFT_ZENDESK_TOKEN", "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET")
    }
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *bound([*module, *options, *mischief], dies_by=signal.SIGTERM),
            stdin=DEVNULL,
            stdout=file,
            stderr=file,
            cwd=PROJECT,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT), **ours},
            start_new_session=True,  # Ctrl-C in the terminal is the demo's to handle
        )
    there = World(known.url, known.token, told=f"see {log}")
    try:
        await _ready(there, process, log)
        yield there
    finally:
        await there.close()
        await _stop(process)
