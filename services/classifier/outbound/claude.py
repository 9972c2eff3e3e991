"""The provider `claude:<model>`: one call of Anthropic's Messages API for each try, its cost known before and after.

What becomes of a failure, beside those of a status (model_failures.py):
  never connected           LaterError, after a few seconds
  timeout, cut connection,
  an answer without end     AnswerLostError (a LaterError): it may have to be paid
  the model refuses         RefusedError (a PermanentError that carries what was spent)
  the answer was cut off at
  tokens_out_max            no failure here: it does not parse, and the engine's one retry says so
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import cache
from typing import Final

import anthropic
import httpx2
from anthropic.types import Message, MessageParam, OutputConfigParam, TextBlock, TextBlockParam

from connectors.http_failures import RETRY_DEFAULT_SECONDS
from contracts.base import Contract
from contracts.failures import LaterError
from services.classifier.domain import prompt
from services.classifier.domain.prices import Price
from services.classifier.outbound.model_failures import failure_of_status
from services.classifier.ports import TOKENS_MAX, Answer, AnswerLostError, Ask, Cost, RefusedError

VENDOR: Final = "claude"
ANSWER_BYTES_MAX: Final = 1_000_000
"""Many times what `tokens_out_max` can be; more than this is no message."""
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
FRAME_TOKENS_MAX: Final = 2_000
"""What the other side adds to what is sent: marks between turns, and words about the schema."""


class Claude:
    """Implements ports.Provider. Retries are the engine's: the client makes none."""

    def __init__(
        self,
        *,
        model: str,
        price: Price,
        api_key: str,
        base_url: str | None,
        timeout_seconds: float,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        """`base_url` none: Anthropic's own."""
        self.name = f"{VENDOR}:{model}"
        self._price = price
        self._model = model
        self._timeout_seconds = timeout_seconds
        client = http_client or anthropic.DefaultAsyncHttpxClient()
        client.event_hooks = {"response": [_bounded]}
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url or "https://api.anthropic.com",
            timeout=timeout_seconds,
            max_retries=0,
            http_client=client,
            default_headers={"Accept-Encoding": "identity"},  # its length is its length in memory
        )

    def worst_case(self, ask: Ask) -> Cost:
        """No token is shorter than a byte, so the bytes of all that is sent bound its tokens."""
        told = [ask.instructions, json.dumps(_schema_of(ask.output)), json.dumps(_turns(ask), ensure_ascii=False)]
        sent = FRAME_TOKENS_MAX + sum(len(text.encode("utf-8", "surrogatepass")) for text in told)
        cost_usd = self._price.cost_usd_max(sent=sent, answered=ask.tokens_out_max)
        return Cost(tokens_in=sent, tokens_out=ask.tokens_out_max, cost_usd=cost_usd)

    async def weights(self) -> str | None:
        """See Provider. The vendor's names of models do not move; how much one thinks may be set otherwise."""
        return self._price.effort

    async def propose(self, ask: Ask) -> Answer:
        """One call. Raises LaterError, PermanentError, RefusedError, AnswerLostError."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_seconds):  # the client's own limit is one of each step
                message = await self._client.messages.create(
                    model=self._model,
                    max_tokens=ask.tokens_out_max,
                    system=[_kept(ask.instructions)],
                    messages=_turns(ask),
                    output_config=self._output_config(ask.output),
                )
        except anthropic.APIStatusError as error:
            raise failure_of_status(
                error.status_code, error.response.headers
            ) from None  # the cause quotes the other side's words
        except (anthropic.APITimeoutError, TimeoutError) as error:
            raise _lost(error)(
                "model_timeout", "the model did not answer in time", seconds=RETRY_DEFAULT_SECONDS
            ) from error
        except anthropic.APIConnectionError as error:
            endless = isinstance(error.__cause__, _EndlessAnswerError)
            raise _lost(error)(
                "model_unreadable" if endless else "model_unreachable",
                "the model's answer has no end" if endless else "the model cannot be reached",
                seconds=RETRY_DEFAULT_SECONDS,
            ) from error
        except (anthropic.APIError, json.JSONDecodeError) as error:
            raise AnswerLostError(
                "model_unreadable", "the model's answer is no message", seconds=RETRY_DEFAULT_SECONDS
            ) from error
        if not _is_whole(message):
            raise AnswerLostError("model_unreadable", "the model's answer is no message", seconds=RETRY_DEFAULT_SECONDS)
        answer = self._answer(message, started)
        if message.stop_reason == "refusal":
            raise RefusedError(answer)
        return answer

    def _output_config(self, output: type[Contract]) -> OutputConfigParam:
        config: OutputConfigParam = {"format": {"type": "json_schema", "schema": _schema_of(output)}}
        if self._price.effort is not None:
            config["effort"] = self._price.effort
        return config

    def _answer(self, message: Message, started: float) -> Answer:
        usage = message.usage
        written, read = usage.cache_creation_input_tokens or 0, usage.cache_read_input_tokens or 0
        return Answer(
            text="".join(block.text for block in message.content if isinstance(block, TextBlock)),
            model=f"{VENDOR}:{message.model}",
            tokens_in=usage.input_tokens + written + read,
            tokens_out=usage.output_tokens,
            cost_usd=self._price.cost_usd(
                sent=usage.input_tokens, written=written, read=read, answered=usage.output_tokens
            ),
            latency_ms=round((time.perf_counter() - started) * 1000),
            request_id=message._request_id,  # noqa: SLF001  # the SDK's documented place for it
        )


class _EndlessAnswerError(Exception):
    """More came than an answer can be."""


class _Bounded(httpx2.AsyncByteStream):
    """A body of ANSWER_BYTES_MAX at most."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = ANSWER_BYTES_MAX
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise _EndlessAnswerError
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bounded(response: httpx2.Response) -> None:
    """Let the client read no answer without end, nor one that is compressed, though nobody asked for it."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _EndlessAnswerError
    assert isinstance(response.stream, httpx2.AsyncByteStream), "the client is asynchronous"
    response.stream = _Bounded(response.stream)


@cache
def _schema_of(output: type[Contract]) -> dict[str, object]:
    """The schema in the part of JSON Schema that the API takes; bounds that it lacks become words."""
    return anthropic.transform_schema(prompt.schema_of(output))


def _kept(instructions: str) -> TextBlockParam:
    """Equal for every case, so kept for five minutes; below the model's least length that costs nothing."""
    return {"type": "text", "text": instructions, "cache_control": {"type": "ephemeral"}}


def _lost(error: Exception) -> type[LaterError]:
    """Whether an answer may have been lost: none where there was never a connection to ask on."""
    return LaterError if isinstance(error.__cause__, _NEVER_SENT) else AnswerLostError


def _is_whole(message: object) -> bool:
    """Whether what answered was the API: the SDK reads anything as a message, and a cost must not be guessed."""
    content, usage = getattr(message, "content", None), getattr(message, "usage", None)
    needed = [getattr(usage, name, None) for name in ("input_tokens", "output_tokens")]
    kept = [getattr(usage, name, None) or 0 for name in ("cache_creation_input_tokens", "cache_read_input_tokens")]
    return (
        isinstance(content, list)
        and isinstance(getattr(message, "model", None), str)
        and all(isinstance(block.text, str) for block in content if isinstance(block, TextBlock))
        and all(type(count) is int and 0 <= count <= TOKENS_MAX for count in [*needed, *kept])
    )


def _turns(ask: Ask) -> list[MessageParam]:
    told = prompt.turns(ask.data(), ask.previous)
    return [
        {"role": "user", "content": turn.text} if turn.role == "user" else {"role": "assistant", "content": turn.text}
        for turn in told
    ]
