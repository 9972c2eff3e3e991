"""The manifests build, say only what the services know, and a real API server takes them without a warning.

The cluster is named by NIGHTSHIFT_TEST_KUBECONFIG and may be thrown away; nothing has to run in it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from nightshift.supervisor import PROJECT
from services.actor.config import Settings as ActorSettings
from services.classifier.config import Settings as ClassifierSettings
from services.ingest.config import Settings as IngestSettings
from services.reporter.config import ReporterSettings
from services.runtime.migrate import SERVICES
from tests.kubernetes import faults
from tests.readme import from_readme, typed

K8S = PROJECT / "deploy" / "k8s"
OVERLAYS = ("dev", "production")
JOBS = ("migrate", "topics")
ROLLOUT_SECONDS = 120
GRACE_SECONDS = ActorSettings.model_fields["grace_seconds"].default
Type = Callable[[str], "subprocess.CompletedProcess[str]"]
"""Types a line into a shell; fails the test where it fails."""
KNOWN = {
    f"NIGHTSHIFT_{field.upper()}"
    for settings in (IngestSettings, ClassifierSettings, ActorSettings, ReporterSettings)
    for field in settings.model_fields
} | {
    "NIGHTSHIFT_DATABASE_ADMIN_URL",
    "NIGHTSHIFT_SHOP_URL",
    "NIGHTSHIFT_SLACK_URL",
    "NIGHTSHIFT_ZENDESK_EMAIL",
    "NIGHTSHIFT_ZENDESK_TOKEN",
    "NIGHTSHIFT_ZENDESK_URL",
    "NIGHTSHIFT_ZENDESK_WEBHOOK_SECRET",
    *(f"NIGHTSHIFT_{name}_DATABASE_URL" for name in ("INGEST", "CLASSIFIER", "ACTOR", "REPORTER")),
}


@pytest.fixture(scope="session")
def kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("there is no kubectl")
    return found


@pytest.fixture(scope="session")
def cluster(kubectl: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Type]:
    """A shell whose kubectl speaks to the cluster, the namespace and its Secrets made."""
    kubeconfig = os.environ.get("NIGHTSHIFT_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("NIGHTSHIFT_TEST_KUBECONFIG names no cluster that may be thrown away")
    secrets = str(tmp_path_factory.mktemp("cluster") / "secrets")
    environment = {**os.environ, "KUBECONFIG": kubeconfig, "NIGHTSHIFT_SECRETS": secrets}

    def cluster(line: str) -> "subprocess.CompletedProcess[str]":
        done = typed(line, environment)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done

    cluster(from_readme("kubectl apply -f deploy/k8s/base/namespace.yaml"))
    cluster(from_readme("scripts/secrets && deploy/k8s/secrets"))
    yield cluster
    cluster(f"{kubectl} delete namespace nightshift --timeout=60s")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_holds_no_secret_and_only_settings_that_a_service_knows(kubectl: str, overlay: str) -> None:
    objects = built(kubectl, K8S / "overlays" / overlay)

    assert not [one for one in objects if one["kind"] == "Secret"]
    named = {name for one in objects if one["kind"] == "ConfigMap" for name in one["data"]} | {
        entry["name"].removesuffix("_FILE")
        for container in containers(objects)
        for entry in container.get("env", [])
        if entry["name"].startswith("NIGHTSHIFT_")
    }
    assert named
    assert named <= KNOWN


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_bounded_and_holds_no_token(kubectl: str, overlay: str) -> None:
    objects = built(kubectl, K8S / "overlays" / overlay)

    for one in objects:
        if one["kind"] in {"Deployment", "StatefulSet", "Job"}:
            assert one["spec"]["template"]["spec"]["automountServiceAccountToken"] is False, one["metadata"]["name"]
    for container in containers(objects):
        assert container["resources"]["requests"], container["name"]
        assert container["resources"]["limits"]["memory"], container["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_image_without_a_version_is_not_asked_of_a_registry_that_cannot_have_it(kubectl: str, overlay: str) -> None:
    """Kubernetes asks for the latest one always, unless it is told."""
    for container in containers(built(kubectl, K8S / "overlays" / overlay)):
        name = container["image"].rpartition("/")[2]
        assert re.search(r":(?!latest$)", name) or container["imagePullPolicy"] == "IfNotPresent", container["image"]


def test_production_names_what_the_settings_of_compose_name(kubectl: str) -> None:
    compose = (PROJECT / "deploy" / "compose" / "demo.env").read_text()
    objects = built(kubectl, K8S / "overlays" / "production")

    [settings] = [one["data"] for one in objects if one["kind"] == "ConfigMap"]

    assert {*re.findall(r"^(NIGHTSHIFT_\w+)=", compose, re.MULTILINE)} - {"NIGHTSHIFT_PROCESS_OVERRIDES"} <= {*settings}


def test_a_rollout_does_not_undo_what_the_autoscaler_has_set(kubectl: str) -> None:
    objects = built(kubectl, K8S / "overlays" / "production")

    scaled = [one["spec"]["scaleTargetRef"]["name"] for one in objects if one["kind"] == "HorizontalPodAutoscaler"]

    deployments = [one for one in objects if one["kind"] == "Deployment"]
    assert scaled == ["ingest"]
    assert {d["metadata"]["name"] for d in deployments if "replicas" not in d["spec"]} == {*scaled}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_service_has_what_a_rollout_and_a_lost_node_ask_for(kubectl: str, overlay: str) -> None:
    objects = built(kubectl, K8S / "overlays" / overlay)
    deployments = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "Deployment"}
    budgets = [one["spec"]["selector"] for one in objects if one["kind"] == "PodDisruptionBudget"]

    assert deployments.keys() >= {*SERVICES}
    for name in SERVICES:
        spec = deployments[name]
        pod, [container] = spec["template"]["spec"], spec["template"]["spec"]["containers"]
        paths = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")]
        assert paths == ["/healthz", "/healthz", "/readyz"], name
        [gate] = pod["initContainers"]
        assert (gate["command"][2:], gate["image"]) == (["services.runtime.migrated", name], container["image"])
        assert budgets.count(spec["selector"]) == 1, name
        assert [one["labelSelector"] for one in pod["topologySpreadConstraints"]] == [spec["selector"]], name
        sleeps = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert sleeps + GRACE_SECONDS < pod["terminationGracePeriodSeconds"], name
        for one in (gate, container):
            assert one["securityContext"]["readOnlyRootFilesystem"] is True, name


def test_the_cluster_knows_the_same_rules_and_alerts_as_prometheus_alone() -> None:
    rule = yaml.safe_load((K8S / "components" / "monitoring" / "prometheus-rule.yaml").read_text())
    files = [PROJECT / "deploy" / "prometheus" / name for name in ("rules.yml", "alerts.yml")]

    said = [entry for group in rule["spec"]["groups"] for entry in group["rules"]]

    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert said == [entry for group in groups for entry in group["rules"]]
    names = [group["name"] for group in rule["spec"]["groups"]]
    assert len(set(names)) == len(names)


def test_a_pod_reaches_and_is_reached_by_what_it_needs_and_nothing_else(kubectl: str) -> None:
    policies = [one["spec"] for one in built(kubectl, K8S / "overlays" / "dev") if one["kind"] == "NetworkPolicy"]
    names, postgres, kafka, outside = {53}, {5432}, {9092}, {443}
    stack = names | postgres | kafka

    def ports(pod: str, way: str) -> set[int]:
        """Which ports the policies that choose this pod allow; a rule that names none allows the pod to itself."""
        mine = [policy for policy in policies if pod in chosen(policy["podSelector"])]
        assert any(policy["podSelector"] == {} and way.title() in policy["policyTypes"] for policy in policies)
        return {port["port"] for policy in mine for rule in policy.get(way, ()) for port in rule.get("ports", ())}

    assert {
        pod: (ports(pod, "egress"), ports(pod, "ingress"))
        for pod in (*SERVICES, *JOBS, "command-line", "kafka", "postgres")
    } == {
        "ingest": (stack | outside, {8080}),
        "classifier": (stack | outside, set()),
        "actor": (stack | outside, set()),
        "reporter": (stack | outside, {8080}),
        "migrate": (names | postgres, set()),
        "topics": (names | kafka, set()),
        "command-line": (stack | outside, set()),
        "kafka": (names, {9092}),
        "postgres": (set(), {5432}),
    }


def production_with(component: str, folder: Path) -> Path:
    """A copy of the overlay in which the component is uncommented."""
    shutil.copytree(K8S, folder, dirs_exist_ok=True)
    overlay = folder / "overlays" / "production"
    file = overlay / "kustomization.yaml"
    file.write_text(re.sub(rf"^# (components:|- .+/{component})", r"\1", file.read_text(), flags=re.MULTILINE))
    return overlay


def test_the_command_line_is_typed_into_a_pod_that_is_there_and_has_its_program(kubectl: str) -> None:
    line = from_readme("kubectl --namespace nightshift exec deployment/command-line -- /app/run status")
    objects = built(kubectl, K8S / "overlays" / "dev")

    [pod] = [
        one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] == "Deployment" and f"deployment/{one['metadata']['name']} " in line
    ]
    [container] = pod["containers"]
    dockerfile = (PROJECT / "Dockerfile").read_text()
    assert container["image"] == "nightshift-cli"
    assert "cli) module=nightshift;" in dockerfile
    assert 'ENTRYPOINT ["/app/run"]' in dockerfile


def test_for_a_kafka_that_asks_for_a_password_whoever_speaks_to_it_has_its_secret(kubectl: str, tmp_path: Path) -> None:
    objects = built(kubectl, production_with("kafka-sasl", tmp_path))

    [settings] = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    files = {name: value for name, value in settings.items() if name.endswith("_FILE")}
    assert {name.removesuffix("_FILE") for name in settings} <= KNOWN
    assert settings["NIGHTSHIFT_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
    assert {Path(path).parent for path in files.values()} == {Path("/run/secrets/kafka")}
    told = [container for container in containers(objects) if "envFrom" in container]
    assert {container["name"] for container in told} == {*SERVICES, "topics"}
    for container in told:
        assert "/run/secrets/kafka" in [mount["mountPath"] for mount in container["volumeMounts"]], container["name"]
    assert [fault for one in objects for fault in faults(one)] == []


def test_with_the_monitoring_uncommented_each_service_is_the_job_that_rules_and_dashboards_name(
    kubectl: str, tmp_path: Path
) -> None:
    overlay = production_with("monitoring", tmp_path)
    prometheus = yaml.safe_load((PROJECT / "deploy" / "prometheus" / "prometheus.yml").read_text())

    added = {(one["kind"], one["metadata"]["name"]): one for one in built(kubectl, overlay)}
    for one in built(kubectl, K8S / "overlays" / "production"):
        del added[one["kind"], one["metadata"]["name"]]

    assert [*added] == [
        ("PodMonitor", "nightshift"),
        ("PrometheusRule", "nightshift"),
        ("NetworkPolicy", "from-prometheus"),
    ]
    assert {one["metadata"]["namespace"] for one in added.values()} == {"nightshift"}
    assert faults(added["NetworkPolicy", "from-prometheus"]) == []
    [endpoint] = added["PodMonitor", "nightshift"]["spec"]["podMetricsEndpoints"]
    [alone] = prometheus["scrape_configs"][0]["relabel_configs"]
    assert endpoint["relabelings"] == [
        {
            "sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_name"],
            "targetLabel": alone["target_label"],
            "replacement": alone["replacement"],
        }
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_field_of_an_overlay_is_one_that_kubernetes_knows(kubectl: str, overlay: str) -> None:
    objects = built(kubectl, K8S / "overlays" / overlay)

    assert [fault for one in objects for fault in faults(one)] == []


def test_a_misspelled_field_a_wrong_type_and_a_kind_that_nobody_knows_are_found() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "actor"}}

    assert faults({**service, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}}) == []
    for wrong in (
        {**service, "specs": {}},
        {**service, "spec": {"ports": [{"port": "80"}]}},
        service | {"kind": "Serv"},
    ):
        assert len(faults(wrong)) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_real_api_server_takes_an_overlay_without_a_warning(cluster: Type, overlay: str) -> None:
    answer = cluster(f"kubectl apply --dry-run=server --validate=strict -k deploy/k8s/overlays/{overlay}")

    assert "Warning" not in answer.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_rolls_out(cluster: Type, overlay: str) -> None:
    dev = from_readme("kubectl apply -k deploy/k8s/overlays/dev")
    answer = cluster(dev.replace("/dev", f"/{overlay}"))
    assert "Warning" not in answer.stderr

    mine, patience = "kubectl -n nightshift", f"--timeout={ROLLOUT_SECONDS}s"
    for name in SERVICES:
        cluster(f"{mine} rollout status deployment/{name} {patience}")
    cluster(f"{mine} wait --for=condition=complete job --all {patience}")
    events = cluster(f"{mine} get events -o yaml").stdout
    refused = [e["message"] for e in yaml.safe_load(events)["items"] if re.search("forbidden|violates", e["message"])]
    assert refused == []


def chosen(selector: dict[str, Any]) -> list[str]:
    """The pods' names that a policy's selector lists."""
    listed = [name for one in selector.get("matchExpressions", ()) for name in one["values"]]
    return [*listed, *selector.get("matchLabels", {}).values()]


def built(kubectl: str, folder: Path) -> list[dict[str, Any]]:
    manifest = subprocess.check_output([kubectl, "kustomize", folder], text=True)
    return [one for one in yaml.safe_load_all(manifest) if one]


def containers(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in objects:
        pod = one.get("spec", {}).get("template", {}).get("spec", {})
        yield from (*pod.get("containers", []), *pod.get("initContainers", []))
