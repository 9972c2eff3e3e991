"""What Kubernetes takes, told without a cluster: the part of its OpenAPI document that our objects need.

    python -m tests.kubernetes path/to/kubernetes/api/openapi-spec/swagger.json

cuts that part out anew, when KINDS or the version changes. It knows every field and its type; which values are taken,
an API server alone knows. Kubernetes is under the Apache License 2.0, as we are.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

FILE = Path(__file__).parent / "data" / "kubernetes" / "openapi-1.33.json"
KINDS = {
    "apps/v1": ("Deployment", "StatefulSet"),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "batch/v1": ("Job",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
    "v1": ("ConfigMap", "Namespace", "Service", "ServiceAccount"),
}
_WRITTEN_OTHERWISE = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
}
"""The document calls these strings."""


def faults(one: Mapping[str, Any]) -> list[str]:
    """What is wrong with an object, a field that its kind does not have included."""
    name = f"{one['apiVersion']}/{one['kind']}"
    if name not in _document()["kinds"]:
        return [f"{name} is not in {FILE.name}"]
    schema = {"$ref": _document()["kinds"][name], "definitions": _document()["definitions"]}
    found = jsonschema.Draft202012Validator(schema).iter_errors(one)
    return [f"{one['kind']}/{one['metadata']['name']} {error.json_path}: {error.message}" for error in found]


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text())
    return document


def _cut(swagger: dict[str, Any]) -> dict[str, Any]:
    kinds = {
        f"{group}/{key['version']}/{key['kind']}".removeprefix("/"): f"#/definitions/{name}"
        for name, schema in swagger["definitions"].items()
        for key in schema.get("x-kubernetes-group-version-kind", ())
        for group in [key["group"]]
        if key["kind"] in KINDS.get(f"{group}/{key['version']}".removeprefix("/"), ())
    }
    definitions: dict[str, Any] = {}
    ahead = list(kinds.values())
    while ahead:
        name = ahead.pop().removeprefix("#/definitions/")
        if name not in definitions:
            definitions[name] = _WRITTEN_OTHERWISE.get(name) or _closed(swagger["definitions"][name])
            ahead += _references(definitions[name])
    return {"kinds": dict(sorted(kinds.items())), "definitions": dict(sorted(definitions.items()))}


def _closed(schema: Any) -> Any:
    """Without words for people, and with no property but those that it names."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: {name: _closed(one) for name, one in value.items()} if key == "properties" else _closed(value)
        for key, value in schema.items()
        if key not in {"description", "format", "default"} and not key.startswith("x-")
    }
    return {**kept, "additionalProperties": False} if "properties" in kept else kept


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from _references(one)


if __name__ == "__main__":
    FILE.write_text(json.dumps(_cut(json.loads(Path(sys.argv[1]).read_text())), separators=(",", ":")) + "\n")
