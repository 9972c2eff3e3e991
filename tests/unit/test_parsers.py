"""No input makes a parser raise anything but its own refusal: those of outside, of people, and of models."""

import json
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from connectors import cards
from connectors.form import Form
from connectors.github import GitHub
from connectors.protocol import PlainChange
from connectors.zendesk.audits import changes_of, written_by
from connectors.zendesk.wire import Audit, Ticket, User, Wire
from contracts.decision import Hold
from contracts.failures import PermanentError
from processes.support.policy import Policy
from processes.support.rules import decide
from processes.support.steps.answer.output import Proposal
from services.classifier.handlers.ask_model import Accepted, Rejected, ask_model
from services.classifier.ports import Answer, Ask
from services.runtime.process import SHIPPED, ProcessInvalidError, Settings, load
from tests.fakes.obedient import obeys
from tests.unit.support.tickets import ASK, POLICY, at, circumstances, created, facts, proposal, revealed

NOW = datetime(2026, 11, 25, 7, 0, tzinfo=UTC)
TIMES = ("2026-11-25T06:00:00Z", "9999-99-99T99:99:99Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")
ODD = st.sampled_from(["", "\0", "\ud800", "\u202e", "²", "\uff19", "é" * 50, "0" * 30, *TIMES])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | ODD
JSON = st.recursive(
    SCALARS, lambda of: st.lists(of, max_size=4) | st.dictionaries(st.text(max_size=9) | ODD, of, max_size=4)
)


DEEPER = st.sampled_from([True] * 7 + [False])


def spoiled(data: st.DataObject, whole: Any) -> Any:
    """The same with one value, somewhere inside, replaced."""
    if isinstance(whole, dict) and whole and data.draw(DEEPER):
        name = data.draw(st.sampled_from(sorted(whole)))
        return {**whole, name: spoiled(data, whole[name])}
    if isinstance(whole, list) and whole and data.draw(DEEPER):
        place = data.draw(st.integers(0, len(whole) - 1))
        return [*whole[:place], spoiled(data, whole[place]), *whole[place + 1 :]]
    return data.draw(ODD | JSON)


TICKET = {
    "id": 42, "subject": "Order", "status": "open", "requester_id": 501, "tags": ["a"], "via": {"channel": "email"},
    "created_at": "2026-11-25T06:00:00Z", "updated_at": "2026-11-25T06:10:00Z",
}  # fmt: skip
AUDITS = [
    {
        "id": 1,
        "author_id": 501,
        "created_at": "2026-11-25T06:00:00Z",
        "via": {"channel": "email"},
        "metadata": {"custom": {"nightshift_effect": "k"}},
        "events": [
            {"id": 11, "type": "Comment", "body": "Where is it?", "public": True, "author_id": 501},
            {"id": 12, "type": "Create", "field_name": "status", "value": "new"},
        ],
    },
    {
        "id": 2,
        "author_id": 77,
        "created_at": "2026-11-25T06:05:00Z",
        "events": [{"id": 21, "type": "Change", "field_name": "tags", "value": ["a", "b"]}],
    },
]
USERS = [{"id": 501, "role": "end-user"}, {"id": 77, "role": "agent"}]


class _Read(Wire):
    ticket: Ticket
    audits: list[Audit]
    users: list[User]


def refused(call: Callable[[], object], by: type[Exception]) -> Exception | None:
    """What `call` was refused by; anything else that it raises fails the test."""
    try:
        call()
    except by as error:
        return error
    return None


@settings(max_examples=300)
@given(st.data())
def test_no_answer_of_zendesk_s_api_raises_anything_but_a_value_error(data: st.DataObject) -> None:
    """A ValidationError is one; the client makes a permanent failure of each."""
    told = spoiled(data, {"ticket": TICKET, "audits": AUDITS, "users": USERS})

    changes: list[PlainChange] = []

    def read() -> None:
        found = _Read.model_validate(told)
        changes[:] = changes_of(found.ticket, found.audits, found.users, our_user_id="900001")
        written_by(found.audits, "900001")

    refused(read, ValueError)

    for change in changes:
        words = "".join(map(str, (*change.fields.values(), *change.texts.values())))
        assert "\0" not in words
        words.encode()


@settings(max_examples=300)
@given(st.data())
def test_no_form_raises_anything_but_a_permanent_failure(data: st.DataObject) -> None:
    payload = spoiled(data, {"id": "1", "message": "help", "n": 2, "flag": True, "lines": ["a", "b"]})

    def read() -> None:
        (change,) = Form().receive(payload, b"body", NOW)
        assert change.object_id.isprintable()
        assert "\0" not in "".join(map(str, change.fields.values()))

    refused(read, PermanentError)


GITHUB = json.loads((Path(__file__).parents[1] / "data/webhooks/github/issue_comment.created.0.json").read_text())


@settings(max_examples=200)
@given(st.data())
def test_no_body_of_github_raises_anything_but_a_permanent_failure(data: st.DataObject) -> None:
    refused(lambda: GitHub().receive(spoiled(data, GITHUB), b"body", NOW), PermanentError)


@given(st.text(alphabet=st.characters() | st.sampled_from("0123456789 -\u00a0\u0660\u0661\u00b2\uff19"), max_size=200))
def test_no_text_breaks_the_masking_of_cards(text: str) -> None:
    masked = cards.mask(text)

    assert cards.mask(masked) == masked
    assert masked == text or "[card ending " in masked


FILE = (SHIPPED / "support" / "process.toml").read_text()


@settings(max_examples=150)
@given(st.data())
def test_no_settings_of_a_process_raise_anything_but_a_validation_error(data: st.DataObject) -> None:
    raw = spoiled(data, tomllib.loads(FILE))

    refused(lambda: Policy.model_validate(Settings.model_validate(raw).policy), ValidationError)


@settings(max_examples=60)
@given(place=st.integers(0, len(FILE)), cut=st.integers(0, 40), more=st.text(max_size=10) | ODD)
def test_a_process_file_with_a_slip_of_the_pen_is_loaded_or_refused_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, place: int, cut: int, more: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "slips"
    (root / "support").mkdir(parents=True, exist_ok=True)
    content = (FILE[:place] + more + FILE[place + cut :]).encode("utf-8", "surrogatepass")
    (root / "support" / "process.toml").write_bytes(content)

    error = refused(lambda: load("support", root), ProcessInvalidError)

    assert error is None or "process.toml" in str(error)


class Says:
    """A model that says one thing."""

    name = "says"

    def __init__(self, text: str) -> None:
        self._text = text

    async def weights(self) -> None:
        """It has none."""

    def worst_case(self, ask: Ask) -> None:
        del ask

    async def propose(self, ask: Ask) -> Answer:
        del ask
        return Answer(text=self._text, model="m", tokens_in=1, tokens_out=1, latency_ms=1)


GOOD = json.loads(obeys("refund", ["track-order"]))


@settings(max_examples=300)
@given(st.data())
async def test_no_output_of_a_model_is_anything_but_accepted_and_judged_or_rejected(data: st.DataObject) -> None:
    odd = st.text(max_size=60) | st.just(json.dumps(GOOD)[: data.draw(st.integers(0, 400))])
    told = data.draw(odd) if data.draw(st.booleans()) else json.dumps(spoiled(data, GOOD))

    found = await ask_model(Says(told), ASK)

    if isinstance(found, Rejected):
        assert found.code == "output_invalid"
        return
    assert isinstance(found, Accepted)
    assert isinstance(found.output, Proposal)
    case = revealed(created())
    decide(case, facts(), found.output, POLICY, at(60), circumstances())


@settings(max_examples=200)
@given(reply=st.text(max_size=300), amount=st.floats(min_value=1e-9, max_value=1_000_000), order=st.text(max_size=20))
def test_the_rules_judge_whatever_the_parser_takes(reply: str, amount: float, order: str) -> None:
    try:
        said = proposal(
            reply=reply, actions=[{"name": "reply"}, {"name": "refund", "order_id": order, "amount": amount}]
        )
    except ValidationError:
        return
    decided = decide(revealed(created()), facts(), said, POLICY, at(60), circumstances())

    assert isinstance(decided, Hold) or (order == "100200300" and amount <= 50)
