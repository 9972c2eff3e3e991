"""Whatever is sent to any HTTP surface, the answer is one that data/openapi describes, and nothing is half stored.

Schemathesis makes the requests from the descriptions: some as described, most not. Real servers answer them.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.schemas import BaseSchema

from connectors.form import Form
from connectors.github import GitHub
from services.ingest.app import ZendeskDoor
from services.ingest.inbound.quick import QuickProtocol
from services.reporter.inbound.console import pages
from services.reporter.inbound.console.session import Guard, Sessions
from services.reporter.outbound.kill_switch import KillSwitch
from services.reporter.outbound.queries import Queries
from services.runtime.health import HealthApp
from services.runtime.postgres import connect
from tests.conftest import MigratedDatabase
from tests.integration.ingest_app import SECRET, door, intake, outside
from tests.serving import served

EXAMPLES_MAX = 20
SEED = 1
TOKEN = "a-token-of-some-length"
DESCRIPTIONS = Path(__file__).parents[1] / "data" / "openapi"


def described(name: str) -> BaseSchema:
    """The same requests each time, and none that is remembered from another run."""
    generation = GenerationConfig(max_examples=EXAMPLES_MAX, deterministic=True, database="none")
    config = SchemathesisConfig(
        seed=SEED, projects=ProjectsConfig(default=ProjectConfig(generation=generation, request_timeout=10))
    )
    return schemathesis.openapi.from_dict(json.loads((DESCRIPTIONS / f"{name}.json").read_text()), config=config)


INGEST, CONSOLE = described("ingest"), described("console")


@dataclass
class Target:
    """Where requests go, and what was promised there."""

    url: str
    accepted: set[str] = field(default_factory=set)
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def ingest(migrated_once: MigratedDatabase) -> Iterator[Target]:
    """Doors that take any body, so that the parsers are reached, and one that wants a signature."""
    doors = [
        door("zendesk", "none", ZendeskDoor("999"), body_bytes_max=65_536),
        door("github", "none", GitHub()),
        door("form", "none", Form()),
        door("open", "none", outside()),
        door("signed", "hmac", Form(), SECRET),
    ]

    @asynccontextmanager
    async def running() -> AsyncIterator[tuple[Target, set[str]]]:
        stored: set[str] = set()
        async with intake(migrated_once.url("nightshift_ingest"), doors) as inside:
            async with served(inside.app, http=QuickProtocol) as url:
                yield Target(url), stored
            stored |= {str(row[0]) for row in await inside.rows("SELECT delivery FROM deliveries")}

    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(running()) as (target, stored):
            yield target
        assert target.accepted
        assert stored == target.accepted, "what was answered 202 is stored, and nothing else"


@pytest.fixture(scope="module")
def console(migrated_once: MigratedDatabase) -> Iterator[Target]:
    """The console with a session."""

    @asynccontextmanager
    async def running() -> AsyncIterator[Target]:
        sessions = Sessions(TOKEN, seconds=3600, clock=lambda: 1_000_000.0)
        cookie = sessions.cookie(secure=False).partition(";")[0]
        async with connect(migrated_once.url("nightshift_reporter"), schema="reporter", connections_max=4) as database:
            stops = KillSwitch(database)
            app = Guard(pages.console(Queries(database), stops, tells=False), HealthApp(alive={}, ready={}), sessions)
            async with served(app) as url:
                yield Target(url, headers={"cookie": cookie})

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(running()) as target:
        yield target


@INGEST.parametrize()
def test_intake_answers_as_described_and_stores_what_it_promised(case: Any, ingest: Target) -> None:
    answer = case.call(base_url=ingest.url)

    assert answer.status_code < 500, answer.text
    if answer.status_code == 202 and not answer.json()["duplicate"]:
        ingest.accepted.add(answer.json()["delivery"])
    _conforms(case, answer)


@CONSOLE.parametrize()
def test_the_console_answers_as_described(case: Any, console: Target) -> None:
    answer = case.call(base_url=console.url, headers=console.headers)

    assert answer.status_code < 500, answer.text
    _conforms(case, answer)


@CONSOLE.parametrize()
def test_without_a_session_no_request_sees_a_page(case: Any, console: Target) -> None:
    answer = case.call(base_url=console.url)

    is_open = case.path in {"/healthz", "/readyz", "/metrics"}
    assert answer.status_code < 500
    assert is_open or answer.status_code in {400, 401}, case.path


def _conforms(case: Any, answer: Any) -> None:
    """Status, media type and body are described; another method than the described ones is refused."""
    if answer.status_code in {400, 404, 405} and case.method not in {"POST", "GET"}:
        return
    case.validate_response(
        answer,
        checks=[
            schemathesis.checks.not_a_server_error,
            schemathesis.checks.CHECKS.get_one("status_code_conformance"),
            schemathesis.checks.CHECKS.get_one("content_type_conformance"),
            schemathesis.checks.CHECKS.get_one("response_schema_conformance"),
        ],
    )
