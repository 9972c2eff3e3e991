"""What `ollama` sends, what never leaves because it might not fit, and which failure is which."""

import asyncio
import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from contracts.failures import LaterError, PermanentError
from processes.support.steps.answer.output import Proposal
from services.classifier.outbound.ollama import ANSWER_BYTES_MAX, FRAME_TOKENS_MAX, REPEATS_MAX, Ollama
from services.classifier.ports import AnswerLostError, Ask, RefusedError
from tests.fakes.ollama import FakeOllama
from tests.unit.support.tickets import ASK, proposal
from tests.virtual import VirtualTime, live


def asking(characters: int) -> Ask:
    return replace(ASK, data=lambda: json.dumps({"case": "a" * characters}))


def takes(ask: Ask) -> int:
    """The most that a question and its answer take."""
    worst = FakeOllama("").ollama(context_tokens=10_000_000).worst_case(ask)
    return worst.tokens_in + worst.tokens_out


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama(proposal().model_dump_json())


async def test_instructions_data_and_schema_travel_apart_and_nothing_is_left_to_chance(fake: FakeOllama) -> None:
    await fake.ollama(context_tokens=20_000).propose(ASK)

    (sent,) = fake.requests
    system, user = sent["messages"]
    assert system["role"] == "system"
    assert system["content"].startswith("Answer.\n\n# The schema\n\n{")
    assert user == {"role": "user", "content": user["content"]}
    assert user["content"].startswith('<data>\n{"case": {}}\n</data>\n')
    assert set(sent["format"]["required"]) == set(Proposal.model_fields)
    assert sent["options"] == {"temperature": 0, "seed": 1, "num_ctx": 20_000, "num_predict": 1200}
    assert (sent["model"], sent["stream"], sent["think"]) == ("m:1b", False, False)
    assert (sent["truncate"], sent["shift"]) == (False, False)


async def test_the_grammar_holds_no_long_repeats_which_would_end_the_server_s_process(fake: FakeOllama) -> None:
    await fake.ollama().propose(ASK)

    def counts(schema: Any) -> list[int]:
        match schema:
            case dict():
                here = [v for k, v in schema.items() if k in {"minLength", "maxLength", "minItems", "maxItems"}]
                return here + [count for value in schema.values() for count in counts(value)]
            case list():
                return [count for item in schema for count in counts(item)]
            case _:
                return []

    assert "maxLength" not in fake.requests[0]["format"]["properties"]["reply"]
    assert 0 < max(counts(fake.requests[0]["format"])) <= REPEATS_MAX


async def test_the_retry_shows_the_last_output_and_what_was_wrong(fake: FakeOllama) -> None:
    await fake.ollama().propose(replace(ASK, previous=("no JSON", "output: json_invalid")))

    turns = fake.requests[0]["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[2]["content"] == "no JSON"
    assert "json_invalid" in turns[3]["content"]


async def test_tokens_are_counted_and_cost_no_money(fake: FakeOllama) -> None:
    provider = fake.ollama()
    worst, answer = provider.worst_case(ASK), await provider.propose(ASK)

    assert answer.cost_usd == worst.cost_usd == 0
    assert worst.tokens_in > FRAME_TOKENS_MAX
    assert (0 < answer.tokens_in < worst.tokens_in, answer.tokens_out) == (True, 50)


async def test_a_list_of_ones_own_may_give_the_machine_a_price(fake: FakeOllama) -> None:
    own = """as_of = 2026-11-27
models = {}
[vendors.ollama]
input = "1"
output = "2"
cache_write = "1"
cache_read = "0"
"""
    answer = await fake.ollama(own_prices=own).propose(ASK)

    assert answer.cost_usd == (answer.tokens_in + Decimal(2) * answer.tokens_out) / 1_000_000


async def test_a_prompt_that_just_fits_is_sent(fake: FakeOllama) -> None:
    await fake.ollama(context_tokens=takes(ASK)).propose(ASK)

    assert len(fake.requests) == 1


async def test_a_prompt_that_might_not_fit_is_never_sent(fake: FakeOllama) -> None:
    provider = fake.ollama(context_tokens=takes(ASK) - 1)

    with pytest.raises(PermanentError) as unreserved:
        provider.worst_case(ASK)
    with pytest.raises(PermanentError) as unsent:
        await provider.propose(ASK)

    assert {unreserved.value.code, unsent.value.code} == {"model_context_exceeded"}
    assert fake.requests == []


async def test_a_context_above_what_the_model_was_trained_for_is_lowered_before_it_is_relied_on(
    fake: FakeOllama,
) -> None:
    fake.trained_tokens = takes(ASK)
    provider = fake.ollama(context_tokens=131072)
    await provider.propose(ASK)

    with pytest.raises(PermanentError) as refused:
        provider.worst_case(asking(100))

    assert refused.value.code == "model_context_exceeded"
    assert fake.requests[0]["options"]["num_ctx"] == fake.trained_tokens
    assert fake.looked_up == 1


async def test_a_model_that_does_not_say_what_it_was_trained_for_is_asked_all_the_same(fake: FakeOllama) -> None:
    fake.trained_tokens = None
    provider = fake.ollama()

    for _ in range(2):
        await provider.propose(ASK)

    assert (len(fake.requests), fake.looked_up) == (2, 1)


async def test_a_server_that_says_that_the_prompt_does_not_fit_is_believed(fake: FakeOllama) -> None:
    fake.status, fake.body = 400, b'{"error":"the input length exceeds the context length"}'

    with pytest.raises(PermanentError) as refused:
        await fake.ollama().propose(ASK)

    assert refused.value.code == "model_context_exceeded"


async def test_a_server_whose_own_time_is_over_is_not_taken_for_one_without_room(fake: FakeOllama) -> None:
    fake.status, fake.body = 500, b'{"error":"context deadline exceeded"}'

    with pytest.raises(LaterError) as later:
        await fake.ollama().propose(ASK)

    assert later.value.code == "model_failed"


async def test_an_answer_to_a_prompt_that_was_cut_is_refused_and_counted(fake: FakeOllama) -> None:
    fake.trained_tokens, fake.refuses_to_cut = None, False
    provider = fake.ollama()
    handle = fake.handle

    def cutting(request: httpx.Request) -> httpx.Response:
        answer = handle(request)
        told = answer.json()
        return httpx.Response(200, json={**told, "prompt_eval_count": 100} if "done" in told else told)

    provider._client = httpx.AsyncClient(transport=httpx.MockTransport(cutting))
    with pytest.raises(RefusedError) as refused:
        await provider.propose(ASK)

    assert (refused.value.code, refused.value.answer.tokens_in) == ("model_context_exceeded", 100)


@pytest.mark.parametrize(
    ("status", "kind", "code", "seconds"),
    [
        (429, LaterError, "model_rate_limited", 15.0),
        (503, LaterError, "model_overloaded", 15.0),
        (500, LaterError, "model_failed", 5.0),
        (502, AnswerLostError, "model_failed", 5.0),
    ],
)
async def test_a_server_that_cannot_answer_now_is_asked_later(
    fake: FakeOllama, status: int, kind: type[LaterError], code: str, seconds: float
) -> None:
    fake.status = status

    with pytest.raises(LaterError) as later:
        await fake.ollama().propose(ASK)

    assert (type(later.value), later.value.code, later.value.seconds) == (kind, code, seconds)


@pytest.mark.parametrize(
    ("fails", "kind", "code"),
    [
        (httpx.ConnectError, LaterError, "model_unreachable"),
        (httpx.ConnectTimeout, LaterError, "model_unreachable"),
        (httpx.ReadTimeout, AnswerLostError, "model_timeout"),
        (httpx.ReadError, AnswerLostError, "model_unreachable"),
    ],
)
async def test_what_never_left_is_told_from_what_may_have_been_answered(
    fake: FakeOllama, fails: type[httpx.TransportError], kind: type[LaterError], code: str
) -> None:
    fake.fails = fails

    with pytest.raises(LaterError) as later:
        await fake.ollama().propose(ASK)

    assert (type(later.value), later.value.code) == (kind, code)


@pytest.mark.parametrize(
    ("status", "code"), [(400, "model_request_rejected"), (401, "model_key_rejected"), (404, "model_unknown")]
)
async def test_a_definite_no_is_for_ever_and_quotes_nobody(fake: FakeOllama, status: int, code: str) -> None:
    fake.status = status

    with pytest.raises(PermanentError) as refused:
        await fake.ollama().propose(ASK)

    assert refused.value.code == code
    assert "customer" not in str(refused.value)


async def test_a_model_that_is_not_there_says_how_to_get_it(fake: FakeOllama) -> None:
    fake.status = 404

    with pytest.raises(PermanentError, match="`ollama pull m:1b`"):
        await fake.ollama().propose(ASK)


@pytest.mark.parametrize(("model", "weights"), [("m:1b", "sha-1"), ("latest-one", "sha-2")])
async def test_a_tag_has_the_weights_that_its_server_names_and_nothing_is_asked(
    fake: FakeOllama, model: str, weights: str
) -> None:
    assert await fake.ollama(model=model).weights() == weights
    assert fake.requests == []


async def test_the_weights_of_a_model_that_is_not_there_or_whose_server_is_away_are_a_failure_of_the_model(
    fake: FakeOllama,
) -> None:
    with pytest.raises(PermanentError, match="ollama pull n:1b"):
        await fake.ollama(model="n:1b").weights()
    fake.fails = httpx.ConnectError
    with pytest.raises(LaterError) as away:
        await fake.ollama().weights()

    assert away.value.code == "model_unreachable"


async def test_an_answer_that_was_cut_off_is_handed_on_for_the_one_retry(fake: FakeOllama) -> None:
    fake.text, fake.done_reason = '{"intent": "tra', "length"

    assert (await fake.ollama().propose(ASK)).text == '{"intent": "tra'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"<html>", {}),
        (b"null", {}),
        (b'{"model": "m:1b", "message": {"content": "{}"}, "done": false}', {}),
        (b'{"model": "m", "message": {"content": "{}"}, "done": true, "prompt_eval_count": -5}', {}),
        (b'{"model": "m", "message": {"content": "{}"}, "done": true, "prompt_eval_count": 9999999999999999999}', {}),
        (b" " * (ANSWER_BYTES_MAX + 1), {}),
        (gzip.compress(b"{}"), {"content-encoding": "gzip"}),
    ],
    ids=["nothing", "a page", "null", "half an answer", "less than nothing", "no count", "too much", "packed"],
)
async def test_what_is_no_answer_is_tried_later(fake: FakeOllama, body: bytes, headers: dict[str, str]) -> None:
    fake.body, fake.headers = body, headers

    with pytest.raises(AnswerLostError) as lost:
        await fake.ollama().propose(ASK)

    assert lost.value.code == "model_unreadable"


class Slow:
    """Lets each answer wait for its leave."""

    def __init__(self, fake: FakeOllama) -> None:
        self.fake = fake
        self.leave = asyncio.Event()

    async def handle(self, request: httpx.Request) -> httpx.Response:
        answer = self.fake.handle(request)
        if request.url.path == "/api/chat":
            await self.leave.wait()
        return answer

    def ollama(self) -> Ollama:
        provider = self.fake.ollama()
        provider._client = httpx.AsyncClient(transport=httpx.MockTransport(self.handle))
        return provider


def test_a_question_waits_for_its_turn_and_its_own_time_begins_then(fake: FakeOllama) -> None:
    async def scenario(_: VirtualTime) -> None:
        slow = Slow(fake)
        provider = slow.ollama()
        async with asyncio.TaskGroup() as group:
            first, second = (group.create_task(provider.propose(ASK)) for _ in range(2))
            await asyncio.sleep(4)  # of the 5 that each has
            asked_meanwhile = len(fake.requests)
            slow.leave.set()
            await first
            slow.leave.clear()
            await asyncio.sleep(4)
            slow.leave.set()
            await second

        assert (asked_meanwhile, len(fake.requests)) == (1, 2)

    live(scenario, begins_at=datetime(2026, 11, 22, tzinfo=UTC))


def test_a_question_whose_turn_does_not_come_was_never_sent_and_is_asked_later(fake: FakeOllama) -> None:
    async def scenario(_: VirtualTime) -> None:
        provider = Slow(fake).ollama()
        provider._timeout_seconds = 60
        async with asyncio.TaskGroup() as group:
            first = group.create_task(provider.propose(ASK))
            await asyncio.sleep(1)
            provider._timeout_seconds = 5
            with pytest.raises(LaterError) as later:
                await provider.propose(ASK)
            first.cancel()

        assert (type(later.value), later.value.code) == (LaterError, "model_busy")
        assert len(fake.requests) == 1

    live(scenario, begins_at=datetime(2026, 11, 22, tzinfo=UTC))
