"""What is on the topics can be read for ever: schemas are committed, versions never change, examples stay."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event

from contracts import envelope, generate, topics
from contracts.base import Fact, Json
from contracts.envelope import UnknownTypeError, UnreadableError, decode
from contracts.events import NEWEST, REGISTRY, UPCASTS
from tests.fakes.events import event

EXAMPLES = sorted(generate.EXAMPLES.glob("*.json"))


def type_of(example: Path) -> str:
    return example.name.rsplit(".", 2)[0]


@pytest.mark.parametrize("fact", NEWEST, ids=lambda fact: fact.TYPE)
def test_the_committed_schema_is_the_one_in_force(fact: type[Fact]) -> None:
    committed = (generate.SCHEMAS / f"{fact.TYPE}.json").read_text()

    assert committed == generate.text_of(generate.schema_of(fact)), "run `make contracts`"


def test_the_committed_asyncapi_document_is_the_one_in_force() -> None:
    assert generate.ASYNCAPI.read_text() == generate.text_of(generate.asyncapi()), "run `make contracts`"


@pytest.mark.parametrize("example", EXAMPLES, ids=type_of)
def test_every_golden_example_of_every_version_still_reads_as_the_newest(example: Path) -> None:
    event_type, body = type_of(example), example.read_bytes()
    if event_type in UPCASTS:
        event_type, body = envelope.upcast(event_type, body)

    read = REGISTRY[event_type].model_validate_json(body)

    jsonschema.validate(json.loads(read.model_dump_json()), generate.schema_of(type(read)))
    if type_of(example) == event_type:
        told = json.loads(read.model_dump_json(exclude_unset=True))
        assert told == json.loads(body), "nothing of an example is lost"


def test_every_version_has_an_example() -> None:
    assert {type_of(example) for example in EXAMPLES} == REGISTRY.keys() | UPCASTS.keys()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s["properties"].pop("reason"), "removed"),
        (lambda s: s["required"].append("extra"), "became required"),
        (lambda s: s["properties"]["generation"].update(type="string"), "changed"),
    ],
)
def test_a_changed_schema_under_an_old_version_is_refused(change: Any, says: str) -> None:
    old = generate.schema_of(REGISTRY["process.paused.v1"])
    new = json.loads(json.dumps(old))
    change(new)

    assert any(says in why for why in generate.breaks(old, new))


def test_a_new_member_of_a_closed_set_is_a_new_version() -> None:
    old = generate.schema_of(REGISTRY["decision.made.v1"])
    new = json.loads(json.dumps(old))
    new["properties"]["verdict"]["enum"].append("ponder")

    assert generate.breaks(old, new) == ["verdict: changed"]


def test_an_optional_field_keeps_the_version() -> None:
    old = generate.schema_of(REGISTRY["process.paused.v1"])
    new = json.loads(json.dumps(old))
    new["properties"]["ticket"] = {"type": "string", "default": ""}

    assert generate.breaks(old, new) == []


def test_an_older_version_is_carried_over_by_its_upcast(monkeypatch: pytest.MonkeyPatch) -> None:
    def carry(old: Json) -> Json:
        return {"generation": old["gen"], "reason": "", "by": "nobody"}

    monkeypatch.setitem(UPCASTS, "process.paused.v0", ("process.paused.v1", carry))
    record = event("old").to_record()

    read = decode(record.headers | {"ce_type": "process.paused.v0"}, b'{"gen": 7}')

    assert read.data == REGISTRY["process.paused.v1"].model_validate({"generation": 7, "reason": "", "by": "nobody"})


@pytest.mark.parametrize("fact", NEWEST, ids=lambda fact: fact.TYPE)
def test_every_event_survives_the_wire_and_the_official_sdk_reads_it(fact: type[Fact]) -> None:
    data = fact.model_validate_json((generate.EXAMPLES / f"{fact.TYPE}.1.json").read_bytes())
    sent = event("x", data, case_id="support:zendesk:42")
    record = sent.to_record()

    assert decode(record.headers, record.body) == sent
    headers = {name: value.encode() for name, value in record.headers.items()}
    official = from_binary_event(KafkaMessage(headers=headers, key=record.key.encode(), value=record.body))
    assert (official.get_type(), official.get_subject()) == (fact.TYPE, "support:zendesk:42")


def test_every_event_has_a_topic_of_the_list() -> None:
    assert {fact.TOPIC for fact in NEWEST} == set(topics.ALL)


def test_unknown_types_and_broken_records_are_told_apart() -> None:
    record = event("x").to_record()

    with pytest.raises(UnknownTypeError):
        decode(record.headers | {"ce_type": "process.paused.v2"}, record.body)
    for headers, body, names in [
        ({}, b"{}", "ce_type"),
        (record.headers, b"{}", "generation"),
        (record.headers, b"\xff", "body"),
        ({k: v for k, v in record.headers.items() if k != "ce_id"}, record.body, "ce_id"),
        (record.headers | {"ce_id": "secret words"}, record.body, "malformed"),
    ]:
        with pytest.raises(UnreadableError, match=names) as caught:
            decode(headers, body)
        assert "secret words" not in str(caught.value)
