"""docker-compose.yml on a container engine: built, up, a night played on it, watched, down and up again.

The tests follow one another on one stack. Secrets, ports, volumes and names are of this run alone.
"""

import json
import os
import re
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

NAME = "nightshift-test"
SCRAPES_SECONDS = 75
"""Long enough for five scrapes and their rules: a rate needs two."""
EMPTY = {
    "nightshift_dead_letters_raised_total": "no work failed for good this night",
    'outcome=~"invalid|refused"': "the offline model's answers fit their schema",
    "nightshift_approvals_put_off_total": "no approval was overdue",
    "nightshift_last_error_timestamp_seconds": "a night without errors has none to tell of",
    "nightshift_events_unknown_total": "one build wrote all events",
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

    def __call__(self, *arguments: str, fine: bool = True, seconds: float = 600) -> str:
        """Run `docker compose …`; gives what it printed. Fails the test where it does."""
        command = ["docker", "compose", *arguments]
        done = subprocess.run(
            command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert not fine or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def sql(self, query: str) -> str:
        return self("exec", "-T", "postgres", "psql", "-U", "nightshift", "-Atqc", query).strip()

    def containers(self) -> list[dict[str, Any]]:
        ids = self("--profile", "demo", "--profile", "monitoring", "ps", "--all", "--quiet").split()
        found: list[dict[str, Any]] = json.loads(subprocess.check_output(["docker", "inspect", *ids]))
        return found

    def night(self, *options: str) -> str:
        """Play one; gives the summary."""
        return self("--profile", "demo", "run", "--rm", "-T", "demo", "demo", "--elsewhere", "--exit", *options)

    def port(self, name: str) -> int:
        return int(self.environment[f"NIGHTSHIFT_{name}_PORT"])


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    secrets = tmp_path_factory.mktemp("secrets")
    subprocess.run([PROJECT / "scripts/secrets", secrets], check=True)
    ports = {f"NIGHTSHIFT_{name}_PORT": str(free_port()) for name in ("INTAKE", "CONSOLE", "WORLD", "PROMETHEUS")}
    compose = Compose({**os.environ, "COMPOSE_PROJECT_NAME": NAME, "NIGHTSHIFT_SECRETS": str(secrets), **ports})
    try:
        _timed("build", compose, "--profile", "demo", "build", seconds=1200)
        _timed("up --wait", compose, "up", "--wait")
        compose("--profile", "monitoring", "up", "--wait", "prometheus")  # Grafana's image cannot be had everywhere
        yield compose
    finally:
        compose("--profile", "demo", "--profile", "monitoring", "down", "--volumes", "--timeout", "10", fine=False)


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
    summary = compose.night()

    print(summary)  # noqa: T201  # shown by -s
    assert re.search(r"(\d+) of \1 promises held", summary)
    token = (Path(compose.environment["NIGHTSHIFT_SECRETS"]) / "zendesk_token").read_text()
    with httpx.Client(base_url=f"http://127.0.0.1:{compose.port('WORLD')}", auth=(f"{EMAIL}/token", token)) as world:
        tickets = [world.get(f"/api/v2/tickets/{number}.json") for number in range(1, 40)]
    pieces = [piece for one in tickets if one.is_success and (piece := piece_of(one.json()["ticket"]["description"]))]
    logs = compose("logs", "--no-color", *SERVICES, "migrate", "kafka", "postgres")
    assert len(pieces) > 10
    assert "ready" in logs
    assert [piece for piece in pieces if piece in logs] == []


def test_every_query_of_dashboards_and_alerts_answers(compose: Compose) -> None:
    time.sleep(SCRAPES_SECONDS)  # real time is what a rate is made of

    with httpx.Client(base_url=f"http://127.0.0.1:{compose.port('PROMETHEUS')}", timeout=30) as prometheus:
        health = {one["name"]: one["lastError"] for one in _rules(prometheus)}
        silent = [query for query in _queries() if not _answer(prometheus, query)]
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
    assert [query for query in silent if not any(part in query for part in EMPTY)] == []
    assert re.fullmatch(r"[0-9a-f]{32}", exemplars[0]["exemplars"][0]["labels"]["trace_id"])


def test_alerts_and_rules_do_what_their_tests_say() -> None:
    folder = ["--volume", f"{PROJECT}/deploy/prometheus:/p:ro", "--entrypoint", "promtool", "prom/prometheus:v2.53.3"]

    for command in (["check", "config", "/p/prometheus.yml"], ["test", "rules", "/p/tests.yml"]):
        done = subprocess.run(["docker", "run", "--rm", *folder, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_lost_when_it_is_taken_down_and_brought_up_again(compose: Compose) -> None:
    before = _books(compose)

    compose("--profile", "demo", "--profile", "monitoring", "down")
    _timed("up --wait, again", compose, "up", "--wait")

    assert _books(compose) == before
    summary = compose.night("--tickets", "30")
    assert re.search(r"(\d+) of \1 promises held", summary), summary


def test_the_command_line_reads_the_same_stack(compose: Compose) -> None:
    said = json.loads(compose("run", "--rm", "-T", "nightshift", "status", "--json"))

    assert said["runs_today"] > 0
    assert [switch["paused"] for switch in said["switches"]] == [False]


def _timed(what: str, compose: Compose, *arguments: str, seconds: float = 600) -> None:
    began = time.monotonic()
    compose(*arguments, seconds=seconds)
    print(f"{what}: {time.monotonic() - began:.0f} s")  # noqa: T201  # as above


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
