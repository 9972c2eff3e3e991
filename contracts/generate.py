"""Write what others read: a JSON Schema per event version and one AsyncAPI document. `python -m contracts.generate`.

A version that was published never changes incompatibly: `check` compares, and refuses a schema that differs under an
old version in more than an optional field with a default.
"""

import json
from pathlib import Path
from typing import Any

from contracts import topics
from contracts.base import Fact
from contracts.envelope import CONTENT_TYPE
from contracts.events import NEWEST

HERE = Path(__file__).resolve().parent
SCHEMAS = HERE / "schemas"
EXAMPLES = HERE / "examples"
ASYNCAPI = HERE / "asyncapi.json"

_ATTRIBUTES = {
    "ce_specversion": "Always 1.0.",
    "ce_id": "Unique; a replay makes the same event with the same id.",
    "ce_type": "Name and version of the contract.",
    "ce_source": "nightshift/<service>.",
    "ce_time": "When it happened, RFC 3339, UTC.",
    "ce_subject": "The case: <process>:<door>:<object>. Also the record's key.",
    "ce_process": "The process.",
    "ce_correlationid": "The run: one pass of a case through the pipeline.",
    "content-type": CONTENT_TYPE,
}
_OPTIONAL = {"ce_causationid": "The event that led to this one.", "ce_traceparent": "W3C trace context."}


def schema_of(fact: type[Fact]) -> dict[str, Any]:
    """The JSON Schema of a payload, as it is written."""
    return fact.model_json_schema(mode="serialization")


def asyncapi() -> dict[str, Any]:
    """Every topic with its events, AsyncAPI 3.0."""
    headers = {
        "type": "object",
        "required": list(_ATTRIBUTES),
        "properties": {n: {"type": "string", "description": d} for n, d in (_ATTRIBUTES | _OPTIONAL).items()},
    }
    messages = {
        fact.TYPE: {
            "name": fact.TYPE,
            "summary": (fact.__doc__ or "").strip().splitlines()[0],
            "contentType": CONTENT_TYPE,
            "headers": {"$ref": "#/components/schemas/cloudevents"},
            "payload": {"$ref": f"schemas/{fact.TYPE}.json"},
        }
        for fact in NEWEST
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Nightshift", "version": "1", "description": "CloudEvents 1.0, Kafka binary content mode."},
        "channels": {
            topic: {
                "address": topic,
                "messages": {f.TYPE: {"$ref": f"#/components/messages/{f.TYPE}"} for f in NEWEST if topic == f.TOPIC},
            }
            for topic in topics.ALL
        },
        "components": {"schemas": {"cloudevents": headers}, "messages": messages},
    }


def breaks(old: dict[str, Any], new: dict[str, Any], at: str = "") -> list[str]:
    """Why readers of `old` could fail on what `new` describes; empty when nothing but optional fields was added."""
    gone = old.get("properties", {}).keys() - new.get("properties", {}).keys()
    found = [f"{at}{name}: removed" for name in sorted(gone)]
    turned = set(new.get("required", [])) ^ set(old.get("required", []))
    found += [f"{at}{name}: became required, or ceased to be" for name in sorted(turned)]
    for name, before in old.get("properties", {}).items():
        after = new.get("properties", {}).get(name)
        if after is not None and _bare(before) != _bare(after):
            found.append(f"{at}{name}: changed")
    for name, before in old.get("$defs", {}).items():
        if name in new.get("$defs", {}):
            found += breaks(before, new["$defs"][name], f"{at}{name}.")
            if before.get("enum") != new["$defs"][name].get("enum"):
                found.append(f"{at}{name}: members changed")
    return found


def _bare(schema: Any) -> Any:
    """Without what readers do not depend on."""
    if isinstance(schema, dict):
        return {k: _bare(v) for k, v in schema.items() if k not in {"description", "title", "default"}}
    return [_bare(s) for s in schema] if isinstance(schema, list) else schema


def text_of(document: dict[str, Any]) -> str:
    """As it is committed."""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


class IncompatibleSchemaError(Exception):
    """A published version was changed; make a new version with an upcast."""


def main() -> None:
    """Write all documents. Raises IncompatibleSchemaError before it writes anything."""
    SCHEMAS.mkdir(exist_ok=True)
    for fact in NEWEST:
        file = SCHEMAS / f"{fact.TYPE}.json"
        if file.exists() and (why := breaks(json.loads(file.read_text()), schema_of(fact))):
            raise IncompatibleSchemaError(f"{fact.TYPE}: {'; '.join(why)}")
    for fact in NEWEST:
        (SCHEMAS / f"{fact.TYPE}.json").write_text(text_of(schema_of(fact)))
    ASYNCAPI.write_text(text_of(asyncapi()))


if __name__ == "__main__":
    main()
