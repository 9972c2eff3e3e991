"""A real Ollama keeps the promises of every model, and what our client relies on is so.

NIGHTSHIFT_TEST_OLLAMA_URL names the server, NIGHTSHIFT_TEST_OLLAMA_MODEL a model that it has: the smaller the better,
for what it answers is looked at for its shape alone.
"""

import os
from dataclasses import replace
from functools import partial
from typing import Literal

import httpx
import pytest
from pydantic import field_validator

from contracts.failures import PermanentError
from contracts.knowledge import Question
from contracts.proposed import Proposed
from services.classifier.domain import prompt
from services.classifier.outbound.ollama import VENDOR, Ollama
from services.classifier.outbound.price_list import price_of
from services.classifier.ports import Ask
from tests.contract.promises import Asking, ProposesPromises
from tests.unit.support.tickets import ASK

CONTEXT_TOKENS = 4096
TEXT_CHARACTERS_MAX = 200
"""A processor reads some hundred tokens a second."""


class Small(Proposed):
    """An answer that no model can draw out."""

    mood: Literal["glad", "upset"]

    @field_validator("confidence", mode="before")
    @classmethod
    def _within_its_bounds(cls, told: float) -> float:
        """A grammar holds a model to a number, and to none of its bounds."""
        return min(max(float(told), 0.0), 1.0)

    @property
    def label(self) -> str:
        return self.mood


async def asking(body: str) -> Ask:
    question = Question(text=body, brand=None, language="en", shown={"messages": [body[:TEXT_CHARACTERS_MAX]]})
    return Ask(
        instructions="Say how the customer feels.",
        data=partial(prompt.data_of, question, {}, ()),
        output=Small,
        question=question,
        facts={},
        passages=(),
        index_version="",
        tokens_out_max=100,
    )


def named(setting: str) -> str:
    found = os.environ.get(setting)
    if not found:
        pytest.skip(f"{setting} is not set")
    return found


@pytest.fixture
def url() -> str:
    return named("NIGHTSHIFT_TEST_OLLAMA_URL")


@pytest.fixture
def model() -> str:
    return named("NIGHTSHIFT_TEST_OLLAMA_MODEL")


def ollama(url: str, model: str, context_tokens: int = CONTEXT_TOKENS) -> Ollama:
    price = price_of(VENDOR, model, None)
    return Ollama(model=model, price=price, url=url, context_tokens=context_tokens, asks_at_once=1, timeout_seconds=120)


class TestOllama(ProposesPromises):
    @pytest.fixture
    def asking(self) -> Asking:
        return asking

    @pytest.fixture
    def provider(self, url: str, model: str) -> Ollama:
        return ollama(url, model)


async def test_the_support_process_s_schema_is_one_that_it_can_hold_a_model_to(url: str, model: str) -> None:
    answer = await ollama(url, model, context_tokens=8192).propose(replace(ASK, tokens_out_max=50))

    assert answer.text.lstrip().startswith("{")


async def test_a_model_that_is_not_there_is_told_from_a_server_that_is_not(url: str) -> None:
    with pytest.raises(PermanentError, match="ollama pull nobodys-model:1b") as unknown:
        await ollama(url, "nobodys-model:1b").propose(await asking("hello"))

    assert unknown.value.code == "model_unknown"


async def test_a_context_beyond_what_the_model_was_trained_for_is_not_relied_on(url: str, model: str) -> None:
    provider = ollama(url, model, context_tokens=10_000_000)
    vast = replace(await asking("hello"), instructions="a " * 4_000_000)
    assert provider.worst_case(vast) is not None, "nobody has looked the model up yet"

    with pytest.raises(PermanentError) as refused:
        await provider.propose(vast)

    assert refused.value.code == "model_context_exceeded"


async def test_it_refuses_what_does_not_fit_where_it_is_told_not_to_cut(url: str, model: str) -> None:
    body = ollama(url, model)._body(await asking("hello"))
    assert isinstance(body["options"], dict)
    small = {**body, "options": {**body["options"], "num_ctx": 16}}

    async with httpx.AsyncClient(timeout=120) as client:
        answer = await client.post(f"{url}/api/chat", json=small)

    assert (answer.status_code, "exceed" in answer.text, "context" in answer.text) == (400, True, True)


async def test_it_names_the_digest_of_what_a_tag_stands_for(url: str, model: str) -> None:
    weights = await ollama(url, model).weights()

    assert len(bytes.fromhex(weights.removeprefix("sha256:"))) == 32
    with pytest.raises(PermanentError, match="ollama pull nobodys-model:1b"):
        await ollama(url, "nobodys-model:1b").weights()
