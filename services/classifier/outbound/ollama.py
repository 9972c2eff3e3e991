"""The provider `ollama:<model>`: one call of a private Ollama server for each try, bounded in tokens and in time.

The server cuts the front off a prompt that does not fit, the instructions first, and answers as if nothing were amiss.
So a prompt that might not fit is never sent: no token is shorter than a byte, so a prompt's bytes bound its tokens. The
server lowers a context above what the model was trained for without a word: the model is looked up first. And it is
told to refuse rather than to cut, which old servers do not understand: a count of tokens that is too low for the bytes
that were sent is no answer.

A machine answers few questions side by side. The others wait for their turn here, where their time does not run yet and
nothing of theirs is lost.

A tag may be pulled anew: the server is asked for the digest of what it stands for, which is part of the regime.

What becomes of a failure, beside those of a status (model_failures.py):
  never connected, no turn
  within a call's time      LaterError, after a few seconds
  timeout, cut connection,
  an answer without end     AnswerLostError (a LaterError): it may have used up tokens
  no such model there       PermanentError that says how to get it
  the prompt does not fit   PermanentError, before the call wherever that is possible
  the prompt was cut        RefusedError (a PermanentError that carries what was spent)
  the answer was cut off at
  tokens_out_max            no failure here: it does not parse, and the engine's one retry says so
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from typing import Final, Literal

import httpx
from pydantic import BaseModel, Field, JsonValue, ValidationError

from connectors.http_failures import RETRY_DEFAULT_SECONDS, timeouts
from contracts.base import Contract
from contracts.failures import LaterError, PermanentError
from services.classifier.domain import prompt
from services.classifier.domain.prices import Price
from services.classifier.outbound.model_failures import failure_of_status
from services.classifier.ports import TOKENS_MAX, Answer, AnswerLostError, Ask, Cost, RefusedError

VENDOR: Final = "ollama"
SEED: Final = 1
KEEP_ALIVE: Final = "30m"
"""How long the server keeps the model in memory: loading it again takes many times what an answer takes."""
ANSWER_BYTES_MAX: Final = 4_000_000
"""Many times what `tokens_out_max` can be, and what a model's particulars are; more than this is no answer."""
FRAME_TOKENS_MAX: Final = 500
"""What the model's own template adds to what is sent."""
BYTES_A_TOKEN_MAX: Final = 16
"""Of a whole prompt: words and JSON take three to six, and a long run of one character eight to sixteen."""
REPEATS_MAX: Final = 100
"""The server's grammar spells out a bound on a length: one of thousands ends the process that holds the model."""
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems"})
_NONE_KEPT = httpx.Limits(max_keepalive_connections=0)
"""An answer takes seconds, a connection to a machine of ours next to nothing, and one that is kept may be cut."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Ollama:
    """Implements ports.Provider. Retries are the engine's: the client makes none."""

    def __init__(
        self,
        *,
        model: str,
        price: Price,
        url: str,
        context_tokens: int,
        asks_at_once: int,
        timeout_seconds: float,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        """`context_tokens` hold a question and its answer."""
        self.name = f"{VENDOR}:{model}"
        self._price = price
        self._model = model
        self._url = url.rstrip("/")
        self._context_tokens = context_tokens
        self._is_looked_up = False
        self._turns = asyncio.Semaphore(asks_at_once)
        self._timeout_seconds = timeout_seconds
        self._client = http_client or httpx.AsyncClient(limits=_NONE_KEPT)

    def worst_case(self, ask: Ask) -> Cost:
        """See Provider. Raises PermanentError where the prompt might not fit."""
        sent = self._fitting(ask)
        cost_usd = self._price.cost_usd_max(sent=sent, answered=ask.tokens_out_max)
        return Cost(tokens_in=sent, tokens_out=ask.tokens_out_max, cost_usd=cost_usd)

    async def weights(self) -> str:
        """See Provider: a tag may be pulled anew. The model is not asked."""
        with _telling():
            async with asyncio.timeout(self._timeout_seconds):
                listed = _Listed.model_validate_json(await self._call("GET", "/api/tags"))
        for one in listed.models:
            if one.name in (self._model, f"{self._model}:latest"):
                return one.digest
        raise self._unknown()

    async def propose(self, ask: Ask) -> Answer:
        """One call, and one before it in a process' life. Raises LaterError, PermanentError, AnswerLostError."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            raise LaterError(
                "model_busy", "the model is busy with other questions of ours", seconds=RETRY_DEFAULT_SECONDS
            ) from error
        try:
            return await self._asked(ask)
        finally:
            self._turns.release()

    async def _look_up(self) -> None:
        shown = _Shown.model_validate_json(await self._call("POST", "/api/show", {"model": self._model}))
        self._context_tokens = min(self._context_tokens, shown.context_tokens or self._context_tokens)
        self._is_looked_up = True

    async def _asked(self, ask: Ask) -> Answer:
        started = time.perf_counter()
        with _telling():
            async with asyncio.timeout(self._timeout_seconds):  # the client's own limit is one of each step
                if not self._is_looked_up:
                    await self._look_up()
                sent = self._fitting(ask)
                chat = _Chat.model_validate_json(await self._call("POST", "/api/chat", self._body(ask)))
        answer = self._answer(chat, started)
        if chat.prompt_eval_count * BYTES_A_TOKEN_MAX < sent - FRAME_TOKENS_MAX:
            raise RefusedError(
                answer, code="model_context_exceeded", why=f"read {answer.tokens_in} tokens, and not the whole prompt"
            )
        return answer

    def _fitting(self, ask: Ask) -> int:
        """The tokens of the prompt at most. Raises PermanentError where they and the answer's might not fit."""
        told = json.dumps(self._messages(ask), ensure_ascii=False)
        sent = FRAME_TOKENS_MAX + len(told.encode("utf-8", "surrogatepass"))
        if sent + ask.tokens_out_max > self._context_tokens:
            raise PermanentError(
                "model_context_exceeded",
                f"{self.name} holds {self._context_tokens} tokens, and the prompt can take {sent} and its answer "
                f"{ask.tokens_out_max}",
            )
        return sent

    def _messages(self, ask: Ask) -> list[dict[str, str]]:
        """The schema stands in words too: a model that thinks is not held to `format`."""
        system = f"{ask.instructions}\n\n# The schema\n\n{json.dumps(prompt.schema_of(ask.output))}"
        told = [{"role": turn.role, "content": turn.text} for turn in prompt.turns(ask.data(), ask.previous)]
        return [{"role": "system", "content": system}, *told]

    def _body(self, ask: Ask) -> dict[str, object]:
        return {
            "model": self._model,
            "messages": self._messages(ask),
            "format": _grammar_of(ask.output),
            "stream": False,
            "think": False,
            "truncate": False,
            "shift": False,
            "keep_alive": KEEP_ALIVE,
            "options": {
                "temperature": 0,
                "seed": SEED,
                "num_ctx": self._context_tokens,
                "num_predict": ask.tokens_out_max,
            },
        }

    async def _call(self, method: str, path: str, body: object = None) -> bytes:
        """An answer of 2xx. Raises httpx.HTTPError, and the failure that another status is."""
        request = self._client.build_request(
            method,
            f"{self._url}{path}",
            content=None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
            timeout=timeouts(self._timeout_seconds),
        )
        response = await self._client.send(request, stream=True)
        try:
            answered = await _bounded(response)
        finally:
            await response.aclose()
        if response.is_success:
            return answered
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise self._unknown()
        # A 5xx may say "context deadline exceeded", which is the server's time and not its room.
        if response.is_client_error and b"context" in answered and b"exceed" in answered:
            raise PermanentError("model_context_exceeded", f"the prompt does not fit into {self.name}")
        raise failure_of_status(response.status_code, response.headers)

    def _unknown(self) -> PermanentError:
        return PermanentError("model_unknown", f"there is no {self._model} there: `ollama pull {self._model}`")

    def _answer(self, chat: "_Chat", started: float) -> Answer:
        sent, answered = chat.prompt_eval_count, chat.eval_count
        return Answer(
            text=chat.message.content,
            model=f"{VENDOR}:{chat.model}",
            tokens_in=sent,
            tokens_out=answered,
            cost_usd=self._price.cost_usd(sent=sent, written=0, read=0, answered=answered),
            latency_ms=round((time.perf_counter() - started) * 1000),
        )


_UNREACHABLE: Final = "the model cannot be reached"


@contextmanager
def _telling() -> Iterator[None]:
    """What goes wrong on the wire and at its other end, as the failure that it is."""
    try:
        yield
    except _NEVER_SENT as error:
        raise LaterError("model_unreachable", _UNREACHABLE, seconds=RETRY_DEFAULT_SECONDS) from error
    except (httpx.TimeoutException, TimeoutError) as error:
        raise AnswerLostError(
            "model_timeout", "the model did not answer in time", seconds=RETRY_DEFAULT_SECONDS
        ) from error
    except httpx.HTTPError as error:
        raise AnswerLostError("model_unreachable", _UNREACHABLE, seconds=RETRY_DEFAULT_SECONDS) from error
    except ValidationError:
        raise _unreadable() from None  # the cause quotes the other side's words


class _Tag(BaseModel):
    name: str
    digest: str = Field(min_length=1)


class _Listed(BaseModel):
    """What is read of the list of models that the server has."""

    models: list[_Tag]


class _Shown(BaseModel):
    """What is read of a model's particulars."""

    model_info: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def context_tokens(self) -> int | None:
        """What the model was trained for: `<architecture>.context_length`; none where it is not told."""
        told = self.model_info.get(f"{self.model_info.get('general.architecture')}.context_length")
        return told if isinstance(told, int) and told > 0 else None


class _Message(BaseModel):
    content: str


class _Chat(BaseModel):
    """What is read of an answer. Its counts are not guessed."""

    model: str
    message: _Message
    done: Literal[True]
    prompt_eval_count: int = Field(gt=0, le=TOKENS_MAX)
    eval_count: int = Field(default=0, ge=0, le=TOKENS_MAX)


async def _bounded(response: httpx.Response) -> bytes:
    """The body. Raises AnswerLostError for one without end, or one that is compressed, though nobody asked for it."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _unreadable()
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise _unreadable()
    return bytes(body)


def _unreadable() -> AnswerLostError:
    return AnswerLostError("model_unreadable", "the model's answer is no message", seconds=RETRY_DEFAULT_SECONDS)


@cache
def _grammar_of(output: type[Contract]) -> JsonValue:
    """The schema without what the server's grammar cannot hold; the parser looks at all of it."""
    return _within(prompt.schema_of(output))


def _within(schema: JsonValue) -> JsonValue:
    match schema:
        case dict():
            return {name: _within(value) for name, value in schema.items() if not _is_endless(name, value)}
        case list():
            return [_within(item) for item in schema]
        case _:
            return schema


def _is_endless(name: str, value: JsonValue) -> bool:
    return name in _COUNTS and isinstance(value, int) and value > REPEATS_MAX
