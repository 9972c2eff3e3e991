"""What `claude` sends, what it costs, and which failure is which."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import httpx2
import pytest

from contracts.failures import LaterError, PermanentError
from processes.support.steps.answer.output import Proposal
from services.classifier.outbound.claude import ANSWER_BYTES_MAX, Claude
from services.classifier.outbound.price_list import prices
from services.classifier.ports import AnswerLostError, RefusedError
from tests.fakes.anthropic import USAGE, FakeAnthropic
from tests.unit.support.tickets import ASK, proposal
from tests.virtual import VirtualTime, live

MODEL = "claude-sonnet-5-5"


def claude(fake: FakeAnthropic, model: str = MODEL) -> Claude:
    return fake.claude(model)


@pytest.fixture
def fake() -> FakeAnthropic:
    return FakeAnthropic(proposal().model_dump_json())


async def test_instructions_data_and_schema_travel_apart(fake: FakeAnthropic) -> None:
    await claude(fake).propose(ASK)

    (sent,) = fake.requests
    assert sent["system"] == [{"type": "text", "text": "Answer.", "cache_control": {"type": "ephemeral"}}]
    assert sent["messages"][0]["content"].startswith('<data>\n{"case": {}}\n</data>\n')
    assert sent["max_tokens"] == 1200
    assert sent["output_config"]["effort"] == "low"
    schema = sent["output_config"]["format"]["schema"]
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(Proposal.model_fields)
    assert schema["$defs"]["Refund"]["required"] == ["name", "order_id", "amount"]
    assert fake.sent[0].headers["authorization"] == "Bearer secret-key"


async def test_a_model_that_cannot_be_told_how_much_to_think_is_not_told(fake: FakeAnthropic) -> None:
    await claude(fake, "claude-haiku-4-5").propose(ASK)

    assert "effort" not in fake.requests[0]["output_config"]


async def test_the_retry_holds_the_last_output_and_the_error_as_data(fake: FakeAnthropic) -> None:
    await claude(fake).propose(replace(ASK, previous=("x" * 50_000, "confidence: </data> missing")))

    first, last_output, why = fake.requests[0]["messages"]
    assert (first["role"], last_output["role"], why["role"]) == ("user", "assistant", "user")
    assert len(last_output["content"]) == 20_000
    assert why["content"].count("</data>") == 1


async def test_an_empty_last_output_is_still_a_turn(fake: FakeAnthropic) -> None:
    await claude(fake).propose(replace(ASK, previous=(" \n", "output: json_invalid")))

    assert fake.requests[0]["messages"][1]["content"] == "(no output)"


async def test_tokens_and_cost_are_those_of_the_price_list(fake: FakeAnthropic) -> None:
    answer = await claude(fake).propose(ASK)

    assert (answer.tokens_in, answer.tokens_out) == (1400, 200)
    assert answer.cost_usd == Decimal("0.00404")  # 1000 x 2 + 400 x 0.10 + 200 x 10, per million
    assert answer.request_id == "req_1"
    assert answer.model == "claude:claude-sonnet-5-5"


@pytest.mark.parametrize("previous", [None, ("x" * 50_000, "confidence: missing"), ("ü" * 300, "ü")])
async def test_the_worst_case_is_no_less_than_a_token_for_each_byte_that_is_sent(
    fake: FakeAnthropic, previous: tuple[str, str] | None
) -> None:
    asked = replace(ASK, previous=previous)
    await claude(fake).propose(asked)

    worst = claude(fake).worst_case(asked)

    sent = fake.requests[0]
    texts = [sent["system"][0]["text"], *(turn["content"] for turn in sent["messages"])]
    texts.append(json.dumps(sent["output_config"]["format"]["schema"]))
    assert (
        sum(len(text.encode()) for text in texts) < worst.tokens_in < sum(len(text.encode()) for text in texts) + 3000
    )
    assert worst.tokens_out == sent["max_tokens"]
    assert worst.cost_usd == (worst.tokens_in * Decimal("2.50") + worst.tokens_out * 10) / 1_000_000


@pytest.mark.parametrize(
    ("fake", "lost"),
    [
        pytest.param(FakeAnthropic("", status=429), False, id="rate limited"),
        pytest.param(FakeAnthropic("", status=529), False, id="overloaded"),
        pytest.param(FakeAnthropic("", fails=httpx2.ConnectError), False, id="never connected"),
        pytest.param(FakeAnthropic("", fails=httpx2.ConnectTimeout), False, id="never connected in time"),
        pytest.param(FakeAnthropic("", status=500), False, id="failing"),
        pytest.param(FakeAnthropic("", status=502), True, id="away behind a gateway"),
        pytest.param(FakeAnthropic("", status=504), True, id="given up by a gateway"),
        pytest.param(FakeAnthropic("", fails=httpx2.ReadTimeout), True, id="slow"),
        pytest.param(FakeAnthropic("", fails=httpx2.RemoteProtocolError), True, id="cut"),
        pytest.param(FakeAnthropic("", body=b"<html>"), True, id="no message"),
    ],
)
async def test_what_may_have_been_answered_is_told_from_what_was_turned_away(fake: FakeAnthropic, lost: bool) -> None:  # noqa: FBT001  # of the table above
    with pytest.raises(LaterError) as caught:
        await claude(fake).propose(ASK)

    assert isinstance(caught.value, AnswerLostError) == lost


@pytest.mark.parametrize(("sent", "cost"), [(100_000, "0.0101"), (100_001, "0.0505005")])
def test_a_long_prompt_has_its_own_price(sent: int, cost: str) -> None:
    price = prices().models["claude-haiku-5-5"]

    assert price.cost_usd(sent=sent, written=0, read=0, answered=200) == Decimal(cost)


@pytest.mark.parametrize(
    ("status", "headers", "code", "seconds"),
    [
        (429, {"retry-after": "7"}, "model_rate_limited", 7.0),
        (429, {}, "model_rate_limited", 15.0),
        (503, {"retry-after": "2.5"}, "model_overloaded", 2.5),
        (529, {}, "model_overloaded", 15.0),
        (529, {"retry-after": "999999"}, "model_overloaded", 3600.0),
        (429, {"retry-after": "nonsense"}, "model_rate_limited", 15.0),
        (429, {"retry-after": "-3"}, "model_rate_limited", 15.0),
        (429, {"retry-after": "0"}, "model_rate_limited", 15.0),
        (500, {"retry-after": "0.0"}, "model_failed", 5.0),
        (
            529,
            {"retry-after": "Wed, 25 Nov 2026 08:59:00 GMT", "date": "Wed, 25 Nov 2026 09:00:00 GMT"},
            "model_overloaded",
            15.0,
        ),
        (
            503,
            {"retry-after": "Wed, 25 Nov 2026 09:00:30 GMT", "date": "Wed, 25 Nov 2026 09:00:00 GMT"},
            "model_overloaded",
            30.0,
        ),
        (500, {}, "model_failed", 5.0),
        (504, {}, "model_failed", 5.0),
        (408, {}, "model_failed", 5.0),
        (409, {}, "model_failed", 5.0),
    ],
)
async def test_what_passes_is_tried_later(status: int, headers: dict[str, str], code: str, seconds: float) -> None:
    with pytest.raises(LaterError) as caught:
        await claude(FakeAnthropic("", status=status, headers=headers)).propose(ASK)

    assert (caught.value.code, caught.value.seconds) == (code, seconds)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "model_request_rejected"),
        (401, "model_key_rejected"),
        (402, "model_payment_required"),
        (403, "model_forbidden"),
        (404, "model_unknown"),
        (413, "model_request_too_large"),
        (418, "model_request_rejected"),
        (499, "model_request_rejected"),
    ],
)
async def test_what_trying_again_cannot_help_is_permanent(status: int, code: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await claude(FakeAnthropic("", status=status)).propose(ASK)

    assert caught.value.code == code
    assert "customer" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("fails", "code"),
    [
        (httpx2.ReadTimeout, "model_timeout"),
        (httpx2.ConnectTimeout, "model_timeout"),
        (httpx2.ConnectError, "model_unreachable"),
        (httpx2.RemoteProtocolError, "model_unreachable"),
    ],
)
async def test_a_broken_wire_is_tried_later(fails: type[httpx2.TransportError], code: str) -> None:
    with pytest.raises(LaterError) as caught:
        await claude(FakeAnthropic("", fails=fails)).propose(ASK)

    assert caught.value.code == code


async def test_the_client_itself_makes_no_second_try() -> None:
    fake = FakeAnthropic("", status=529)
    with pytest.raises(LaterError):
        await claude(fake).propose(ASK)

    assert len(fake.sent) == 1


async def test_a_refusal_is_permanent_and_says_what_it_cost() -> None:
    with pytest.raises(RefusedError) as caught:
        await claude(FakeAnthropic("", stop_reason="refusal")).propose(ASK)

    assert caught.value.code == "model_refused"
    assert caught.value.answer.cost_usd > 0


async def test_an_answer_that_was_cut_off_is_handed_on_for_the_one_retry() -> None:
    answer = await claude(FakeAnthropic('{"intent": "tra', stop_reason="max_tokens")).propose(ASK)

    assert answer.text == '{"intent": "tra'
    assert answer.cost_usd > 0


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b'{"type": "message"}'])
async def test_what_is_no_message_is_tried_later(body: bytes) -> None:
    fake = FakeAnthropic("", body=body, headers={"content-type": "application/json"})
    with pytest.raises(LaterError) as caught:
        await claude(fake).propose(ASK)

    assert caught.value.code == "model_unreadable"


@pytest.mark.parametrize(
    "changed",
    [
        {"usage": USAGE | {"input_tokens": -5}},
        {"usage": USAGE | {"output_tokens": 10**30}},
        {"usage": USAGE | {"output_tokens": True}},
        {"usage": USAGE | {"cache_read_input_tokens": -5}},
        {"usage": USAGE | {"cache_creation_input_tokens": "many"}},
        {"model": None},
        {"content": [{"type": "text", "text": 5}]},
    ],
    ids=repr,
)
async def test_a_message_that_cannot_be_counted_or_named_is_lost_and_nothing_is_guessed(
    changed: dict[str, object],
) -> None:
    fake = FakeAnthropic("{}")
    whole = {"id": "m", "type": "message", "role": "assistant", "model": MODEL, "stop_reason": "end_turn"}
    told = {**whole, "content": [{"type": "text", "text": "{}"}], "usage": USAGE, **changed}
    fake.body, fake.headers = json.dumps(told).encode(), {"content-type": "application/json"}

    with pytest.raises(AnswerLostError) as caught:
        await claude(fake).propose(ASK)

    assert caught.value.code == "model_unreadable"


async def test_an_output_that_no_wire_can_carry_back_is_shown_without_what_it_cannot() -> None:
    fake = FakeAnthropic("{}")

    await claude(fake).propose(replace(ASK, previous=("no\ud800pe", "output: json_invalid")))

    assert fake.requests[0]["messages"][1]["content"] == "nope"


async def _endless(piece: bytes, seconds: float = 0.0) -> AsyncIterator[bytes]:
    while True:
        yield piece
        await asyncio.sleep(seconds)


async def test_an_answer_without_end_is_read_to_a_bound_and_tried_later() -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        async for piece in _endless(b" " * 10_000):
            sent += len(piece)
            yield piece

    with pytest.raises(LaterError) as caught:
        await claude_over(httpx2.Response(200, content=body())).propose(ASK)

    assert caught.value.code == "model_unreadable"
    assert sent <= ANSWER_BYTES_MAX + 10_000


def test_an_answer_that_drips_is_given_up_after_the_model_s_time() -> None:
    async def scenario(time: VirtualTime) -> None:
        dripping = httpx2.Response(200, content=_endless(b" ", seconds=4.0))
        with pytest.raises(LaterError) as caught:
            await claude_over(dripping, seconds=60).propose(ASK)

        assert caught.value.code == "model_timeout"
        assert 60 <= time.seconds < 61

    live(scenario, begins_at=datetime(2026, 11, 22, tzinfo=UTC))


async def test_a_compressed_answer_that_nobody_asked_for_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    packed = httpx2.Response(200, headers={"content-encoding": "gzip"}, content=_pieces(bomb))

    with pytest.raises(LaterError) as caught:
        await claude_over(packed).propose(ASK)

    assert caught.value.code == "model_unreadable"


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


def claude_over(response: httpx2.Response, *, seconds: float = 5) -> Claude:
    return Claude(
        model=MODEL,
        price=prices().models[MODEL],
        api_key="secret-key",
        base_url="http://model.test",
        timeout_seconds=seconds,
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: response)),
    )
