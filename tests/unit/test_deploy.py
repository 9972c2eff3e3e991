"""What deploy/ and the compose file say, compared with what they are about."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it comes with other packages, its types do not

from nightshift.demo.play import OVERRIDES
from nightshift.supervisor import PROJECT
from services.runtime.migrate import SERVICES

DASHBOARDS = sorted((PROJECT / "deploy/grafana/dashboards").glob("*.json"))
RULES = [
    rule
    for name in ("rules", "alerts")
    for group in yaml.safe_load((PROJECT / f"deploy/prometheus/{name}.yml").read_text())["groups"]
    for rule in group["rules"]
]
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
_DECLARED = re.compile(r'(?:Counter|Gauge|Histogram)\(\s*"(nightshift_\w+)"')
_USED = re.compile(r"\bnightshift_\w+")


def metrics() -> set[str]:
    """The names that the services give their metrics, and those that Prometheus makes of them."""
    declared = {name for file in (PROJECT / "services").rglob("*.py") for name in _DECLARED.findall(file.read_text())}
    return {name + end for name in declared for end in ("", "_bucket", "_sum", "_count")}


def queries(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_every_metric_that_rules_and_dashboards_name_is_one_of_the_services() -> None:
    asked = [rule["expr"] for rule in RULES] + [q for file in DASHBOARDS for q in queries(json.loads(file.read_text()))]

    assert {name for query in asked for name in _USED.findall(query)} - metrics() == set()


def test_what_every_target_tells_is_asked_of_our_services_alone() -> None:
    asked = [rule["expr"] for rule in RULES] + [q for file in DASHBOARDS for q in queries(json.loads(file.read_text()))]
    everybodys = [one for query in asked for one in re.findall(r"\b(?:up|process_\w+)(?:\{[^}]*\}|\)|\[| )", query)]

    assert len(everybodys) > len(SERVICES)
    assert [one for one in everybodys if not re.search(r'\{job=~?"nightshift-', one)] == []


def test_every_alert_is_seen_to_fire() -> None:
    told = yaml.safe_load((PROJECT / "deploy/prometheus/tests.yml").read_text())["tests"]
    fires = {one["alertname"] for test in told for one in test["alert_rule_test"] if one["exp_alerts"]}

    assert fires == {rule["alert"] for rule in RULES if "alert" in rule}


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_is_whole(file: Path) -> None:
    board = json.loads(file.read_text())
    places = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(places) == len(set(places)), "no panel covers another"
    assert max(x for x, _ in places) < 24, "a row is 24 wide"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"prometheus"}
    assert board["uid"] == f"nightshift-{file.stem}"


def test_every_alert_leads_to_a_section_of_the_readme() -> None:
    headings = re.findall(r"^#+ (.+)$", (PROJECT / "README.md").read_text(), re.MULTILINE)
    anchors = {f"README.md#{re.sub(r'[^a-z0-9 -]', '', heading.lower()).replace(' ', '-')}" for heading in headings}

    assert {rule["annotations"]["runbook_url"] for rule in RULES if "alert" in rule} <= anchors


def test_the_stack_in_containers_plays_the_night_that_the_demo_plays() -> None:
    settings = (PROJECT / "deploy/compose/demo.env").read_text()
    overrides = re.search(r'NIGHTSHIFT_PROCESS_OVERRIDES="(.*?)"', settings, re.DOTALL)

    assert overrides is not None
    assert tomllib.loads(overrides[1]) == tomllib.loads(OVERRIDES)


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]

    assert len(published) == 5
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_secret_has_a_maker() -> None:
    script = (PROJECT / "scripts/secrets").read_text()
    made = set(re.findall(r"^keep (\w+)", script, re.MULTILINE)) | {f"{name}_database_url" for name in SERVICES}

    assert made == COMPOSE["secrets"].keys()


@pytest.mark.parametrize("service", ["ingest", "classifier", "actor"])
def test_whoever_calls_the_help_desk_has_its_token_and_may_get_there(service: str) -> None:
    composed = COMPOSE["services"][service]
    manifest = (PROJECT / f"deploy/k8s/base/{service}.yaml").read_text()
    secrets = (PROJECT / "deploy/k8s/secrets").read_text()
    policies = yaml.safe_load_all((PROJECT / "deploy/k8s/base/network.yaml").read_text())
    (outside,) = [policy["spec"] for policy in policies if policy["metadata"]["name"] == "outside"]

    assert "zendesk_token" in composed["secrets"]
    assert composed["environment"]["NIGHTSHIFT_ZENDESK_TOKEN_FILE"] == "/run/secrets/zendesk_token"
    assert "outside" in composed["networks"]
    assert "{ name: NIGHTSHIFT_ZENDESK_TOKEN_FILE, value: /run/secrets/nightshift/zendesk_token }" in manifest
    assert re.search(rf"^make nightshift-{service} .*\bzendesk_token\b", secrets, re.MULTILINE)
    assert service in outside["podSelector"]["matchExpressions"][0]["values"]


def test_the_reporter_has_the_urls_of_whom_it_tells_and_may_get_there() -> None:
    composed = COMPOSE["services"]["reporter"]
    manifest = (PROJECT / "deploy/k8s/base/reporter.yaml").read_text()
    secrets = (PROJECT / "deploy/k8s/secrets").read_text()
    policies = yaml.safe_load_all((PROJECT / "deploy/k8s/base/network.yaml").read_text())
    (outside,) = [policy["spec"] for policy in policies if policy["metadata"]["name"] == "outside"]

    assert "outside" in composed["networks"]
    assert "reporter" in outside["podSelector"]["matchExpressions"][0]["values"]
    for name in ("tell_urls", "tell_escalation_urls"):
        setting = f"NIGHTSHIFT_{name.upper()}_FILE"
        assert name in composed["secrets"]
        assert composed["environment"][setting] == f"/run/secrets/{name}"
        assert f"{{ name: {setting}, value: /run/secrets/nightshift/{name} }}" in manifest
        assert re.search(rf"^make nightshift-reporter .*\b{name}\b", secrets, re.MULTILINE)


@pytest.mark.parametrize("service", [*SERVICES, "migrate"])
def test_a_service_is_given_the_same_secrets_by_compose_as_by_kubernetes(service: str) -> None:
    said = COMPOSE["services"][service]
    file = PROJECT / "deploy/k8s/base" / ("prepare.yaml" if service == "migrate" else f"{service}.yaml")
    objects = yaml.safe_load_all(file.read_text())
    pods = [one["spec"]["template"]["spec"] for one in objects if one["kind"] in ("Deployment", "Job")]
    [container] = [one for pod in pods for one in pod["containers"] if one["name"] == service]

    in_compose = {n: Path(path).name for n, path in said["environment"].items() if n.endswith("_FILE")}
    assert in_compose == {one["name"]: Path(one["value"]).name for one in container["env"]}
    assert {one if isinstance(one, str) else one["target"] for one in said["secrets"]} == {*in_compose.values()}
