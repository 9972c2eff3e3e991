"""docker-compose.yml on a container engine: built, up, a night played on it, watched, down and up again.

The tests follow one another on one stack. Secrets, ports, volumes and names are of this run alone.
"""

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # it comes with other packages, its types do not

from nightshift.demo.outside import EMAIL
from nightshift.demo.privacy import piece_of
from nightshift.embedded.child import free_port
from nightshift.supervisor import PROJECT
from services.runtime.migrate import SERVICES
from tests.readme import from_readme, typed

NAME = "nightshift-test"
OURS = f"com.docker.compose.project={NAME}"
COMMAND_SECONDS_MAX = 1200
SCRAPES_SECONDS_MAX = 75
"""Five scrapes and their rules: a rate needs two."""
EMPTY = {
    "nightshift_dead_letters_raised_total": "no work failed for good this night",
    "nightshift_last_error_timestamp_seconds": "a night without errors has none to tell of",
    "offset 1w": "the stack is younger than a week",
}
"""Queries that answer with nothing, by a part of them, and why that is right."""


def engine_missing() -> str | None:
    """Why nothing can be tried here; none where compose answers."""
    try:
        for command in (["docker", "info"], ["docker", "compose", "version"]):
            subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "no container engine with compose answers here"
    return None


MISSING = engine_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


@dataclass(frozen=True)
class Compose:
    """The compose file, for this run."""

    environment: dict[str, str]

    def __call__(self, line: str, *, fine: bool = True) -> str:
        """Type a line; gives what it printed. Fails the test where it does."""
        began = time.monotonic()
        done = typed(line, self.environment, seconds_max=COMMAND_SECONDS_MAX)
        if (seconds := time.monotonic() - began) > 1:
            print(f"{seconds:4.0f} s  {line}")  # noqa: T201  # shown by -s
        assert not fine or done.returncode == 0, f"{line}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def sql(self, statement: str) -> str:
        asked = shlex.join([*from_readme("psql").split(), "-U", "nightshift", "-Atqc", statement])
        return self(f"docker compose exec -T postgres {asked}").strip()

    def containers(self) -> list[dict[str, Any]]:
        ids = self(f"docker ps --all --quiet --filter label={OURS}").split()
        found: list[dict[str, Any]] = json.loads(self(f"docker inspect {' '.join(ids)}")) if ids else []
        return found

    def port(self, name: str) -> int:
        return int(self.environment[f"NIGHTSHIFT_{name}_PORT"])


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    secrets = str(tmp_path_factory.mktemp("compose") / "secrets")
    ports = {f"NIGHTSHIFT_{name}_PORT": str(free_port()) for name in ("INTAKE", "CONSOLE", "WORLD", "PROMETHEUS")}
    compose = Compose({**os.environ, "COMPOSE_PROJECT_NAME": NAME, "NIGHTSHIFT_SECRETS": secrets, **ports})
    try:
        compose(from_readme("scripts/secrets"))
        compose(from_readme("docker compose build"))  # images of an older tree may be there
        compose("docker compose --profile demo build")
        compose(from_readme("docker compose up --wait"))
        compose(from_readme("docker compose --profile monitoring up --wait prometheus"))
        yield compose
    finally:
        compose("docker compose --profile '*' down --volumes --timeout 10", fine=False)


def test_a_container_may_do_no_more_than_it_needs(compose: Compose) -> None:
    ours = [one for one in compose.containers() if one["Config"]["Image"].startswith("nightshift-")]

    assert {one["Config"]["Labels"]["com.docker.compose.service"] for one in ours} == {*SERVICES, "migrate"}
    for one in ours:
        assert one["Config"]["User"] == "10001:10001"
        assert one["HostConfig"]["ReadonlyRootfs"]
        assert one["HostConfig"]["CapDrop"] == ["ALL"]
        assert not re.search(r"://[^ ]*:[^ ]*@|TOKEN=|SECRET=|PASSWORD=", " ".join(one["Config"]["Env"]))


@pytest.mark.parametrize(
    ("service", "lacks"),
    [
        ("ingest", {"anthropic", "fastapi", "numpy", "typer"}),
        ("classifier", {"fastapi", "typer"}),
        ("actor", {"anthropic", "fastapi", "numpy", "typer"}),
        ("reporter", {"aiohttp", "anthropic", "httpx", "numpy", "typer"}),
        ("migrate", {"aiohttp", "anthropic", "fastapi", "httpx", "numpy", "typer"}),
    ],
)
@pytest.mark.usefixtures("compose")
def test_an_image_holds_its_own_service_alone(service: str, lacks: set[str]) -> None:
    look = (
        "import json, os, importlib.util as u; "
        f"print(json.dumps([os.listdir('services'), [name for name in {sorted(lacks)} if u.find_spec(name)]]))"
    )
    command = ["docker", "run", "--rm", "--entrypoint", "python", f"nightshift-{service}", "-c"]

    folders, present = json.loads(subprocess.check_output([*command, look]))

    others = set(SERVICES) - {service} if service != "migrate" else set()  # of which it holds the migrations
    assert not others & set(folders)
    assert present == []


def test_a_night_keeps_every_promise_and_leaves_no_customers_words_in_a_log(compose: Compose) -> None:
    summary = compose(from_readme("docker compose --profile demo run --rm demo"))

    print(summary)  # noqa: T201  # as above
    assert re.search(r"(\d+) of \1 promises held", summary)
    token = (Path(compose.environment["NIGHTSHIFT_SECRETS"]) / "zendesk_token").read_text()
    with httpx.Client(base_url=f"http://127.0.0.1:{compose.port('WORLD')}", auth=(f"{EMAIL}/token", token)) as world:
        tickets = [world.get(f"/api/v2/tickets/{number}.json") for number in range(1, 40)]
    pieces = [piece for one in tickets if one.is_success and (piece := piece_of(one.json()["ticket"]["description"]))]
    logs = compose(f"docker compose logs --no-color {' '.join(SERVICES)} migrate kafka postgres")
    assert len(pieces) > 10
    assert "ready" in logs
    assert [piece for piece in pieces if piece in logs] == []


def test_every_query_of_dashboards_and_alerts_answers(compose: Compose) -> None:
    give_up = time.monotonic() + SCRAPES_SECONDS_MAX

    with httpx.Client(base_url=f"http://127.0.0.1:{compose.port('PROMETHEUS')}", timeout=30) as prometheus:
        silent = [query for query in _queries() if not _answer(prometheus, query)]
        while (waiting := [q for q in silent if not any(part in q for part in EMPTY)]) and time.monotonic() < give_up:
            time.sleep(1)
            silent = [query for query in waiting if not _answer(prometheus, query)]
        health = {one["name"]: one["lastError"] for one in _rules(prometheus)}
        targets = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
        exemplars = prometheus.get(
            "/api/v1/query_exemplars",
            params={
                "query": "nightshift_asked_to_acknowledged_seconds_bucket",
                "start": time.time() - 3600,
                "end": time.time(),
            },
        ).json()["data"]

    assert {target["labels"]["job"] for target in targets if target["health"] == "up"} == {
        f"nightshift-{name}" for name in SERVICES
    }
    assert set(health.values()) == {""}
    assert waiting == []
    assert re.fullmatch(r"[0-9a-f]{32}", exemplars[0]["exemplars"][0]["labels"]["trace_id"])


def test_alerts_and_rules_do_what_their_tests_say() -> None:
    folder = ["--volume", f"{PROJECT}/deploy/prometheus:/p:ro", "--entrypoint", "promtool", "prom/prometheus:v2.53.3"]

    for command in (["check", "config", "/p/prometheus.yml"], ["test", "rules", "/p/tests.yml"]):
        done = subprocess.run(["docker", "run", "--rm", *folder, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_lost_when_it_is_taken_down_and_brought_up_again(compose: Compose) -> None:
    before = _books(compose)

    compose(from_readme("docker compose --profile '*' down"))
    assert compose.containers() == []
    compose(from_readme("docker compose up --wait"))

    assert _books(compose) == before
    summary = compose("docker compose --profile demo run --rm demo demo --elsewhere --exit --tickets 30")
    assert re.search(r"(\d+) of \1 promises held", summary), summary


def test_the_command_line_reads_the_same_stack_and_runs_its_history_again(compose: Compose) -> None:
    status = json.loads(compose(f"{from_readme('docker compose run --rm nightshift status')} --json"))

    assert status["runs_today"] > 0
    assert [switch["paused"] for switch in status["switches"]] == [False]
    topics = json.loads(compose("docker compose run --rm nightshift replay topics --json"))
    assert (topics["differing"], topics["events"]) == ({}, int(compose.sql("SELECT count(*) FROM reporter.event_log")))
    decisions = json.loads(compose("docker compose run --rm nightshift replay decisions --json"))
    assert (decisions["cases"], decisions["not_replayable"]) == ([], {})
    assert decisions["counts"]["same"] > 0


def test_an_old_month_is_detached_kept_elsewhere_and_dropped(compose: Compose) -> None:
    months = "SELECT part::text FROM control.months WHERE whole = 'ingest.deliveries'::regclass"
    month = max(name for name in compose.sql(months).split() if re.search(r"_\d{4}_\d\d$", name))
    detach = from_readme(
        "SET lock_timeout = '2s'; ALTER TABLE ingest.deliveries DETACH PARTITION ingest.deliveries_2027_01;"
    )

    compose.sql(detach.replace("ingest.deliveries_2027_01", month))

    dumped = compose(f"docker compose exec -T postgres {from_readme('pg_dump -t')} {month} -U nightshift")
    compose.sql(f"DROP TABLE {month}")
    assert f"CREATE TABLE {month} (" in dumped


def test_on_new_volumes_with_settings_of_ones_own_it_is_off_until_it_is_resumed_and_then_it_watches(
    compose: Compose, tmp_path: Path
) -> None:
    demo = (PROJECT / "deploy/compose/demo.env").read_text()
    settings = tmp_path / "own.env"
    settings.write_text("".join(re.findall(r"^NIGHTSHIFT_.*\n", demo, re.MULTILINE)[:4]).replace("world", "helpdesk"))
    own = Compose({**compose.environment, "NIGHTSHIFT_SETTINGS": str(settings)})
    (Path(own.environment["NIGHTSHIFT_SECRETS"]) / "zendesk_token").write_text("my own")

    own(from_readme("docker compose --profile '*' down --volumes"))
    assert own(f"docker volume ls --quiet --filter label={OURS}") == ""
    own(from_readme("docker compose up --wait"))
    assert own.sql("SELECT count(*) FROM control.switches") == "0"

    own(from_readme("docker compose run --rm nightshift resume support"))

    assert own.sql("SELECT paused FROM control.switches") == "f"
    modes = json.loads(own("docker compose run --rm nightshift modes support --json"))
    assert {row["mode"] for row in modes} == {"watch"}
    own.sql(from_readme("UPDATE control.switches SET paused = true, reason = '…' WHERE process = 'support';"))
    assert own.sql("SELECT paused FROM control.switches") == "t"


def _books(compose: Compose) -> Sequence[str]:
    """What there is: the log, the projections, what each side did, and which life of the broker holds it."""
    return [
        compose.sql("SELECT count(*), md5(string_agg(event_id::text, '' ORDER BY event_id)) FROM reporter.event_log"),
        compose.sql("SELECT count(*), md5(string_agg(p::text, '' ORDER BY p::text)) FROM reporter.projections p"),
        compose.sql("SELECT state, count(*) FROM actor.effects GROUP BY 1 ORDER BY 1"),
        compose.sql("SELECT epoch FROM reporter.broker_epoch"),
        compose.sql("SELECT paused, generation FROM control.switches ORDER BY process"),
    ]


def _rules(prometheus: httpx.Client) -> list[dict[str, Any]]:
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    return [rule | {"lastError": rule.get("lastError", "")} for group in groups for rule in group["rules"]]


def _queries() -> list[str]:
    """Those of dashboards and rules as they are; an alert's with `bool`, which tells operands from no data."""
    found = []
    for name in ("rules", "alerts"):
        groups = yaml.safe_load((PROJECT / f"deploy/prometheus/{name}.yml").read_text())["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        found += [re.sub(r" ([<>]) ", r" \1 bool ", r["expr"]) if "alert" in r else r["expr"] for r in rules]
    for file in sorted((PROJECT / "deploy/grafana/dashboards").glob("*.json")):
        panels = json.loads(file.read_text())["panels"]
        found += [target["expr"] for panel in panels for target in panel["targets"]]
    return found


def _answer(prometheus: httpx.Client, query: str) -> list[Any]:
    answer = prometheus.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    result: list[Any] = answer["data"]["result"]
    return result
