"""The provider `claude:<model>`: one call of Anthropic's Messages API for each try, its cost known before and after.

What becomes of a failure:
  429, 503, 529             LaterError, after Retry-After where it is named
  408, 409, other 5xx, never
  connected                 LaterError, after a few seconds
  502, 504, timeout, cut
  connection, an answer
  without end               AnswerLostError (a LaterError): it may have to be paid
  402 and any other 4xx     PermanentError with a code
  the model refuses         RefusedError (a PermanentError that carries what was spent)
  the answer was cut off at
  tokens_out_max            no failure here: it does not parse, and the engine's one retry says so
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

import anthropic
import httpx2
from anthropic.types import Message, MessageParam, OutputConfigParam, TextBlock, TextBlockParam

from connectors.http_failures import RETRY_DEFAULT_SECONDS, RETRY_MAX_SECONDS, http_date
from contracts.base import Contract
from contracts.failures import LaterError, PermanentError
from services.classifier.domain import prompt
from services.classifier.domain.prices import Price, UnknownPriceError, parse
from services.classifier.ports import Answer, AnswerLostError, Ask, Cost, RefusedError

PREFIX: Final = "claude:"
OVERLOADED_SECONDS: Final = 15.0
"""How long to wait where 429, 503 or 529 name no time."""
PREVIOUS_CHARACTERS_MAX: Final = 20_000
ANSWER_BYTES_MAX: Final = 1_000_000
"""Many times what `tokens_out_max` can be; more than this is no message."""
_OVERLOADED: Final = 529
_PATIENCE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, _OVERLOADED})
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT})
_OF_GATEWAYS = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})
"""What stands before the API gave up on it: the API itself may go on, and answer nobody."""
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_CODES: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: "model_request_rejected",
    HTTPStatus.UNAUTHORIZED: "model_key_rejected",
    HTTPStatus.PAYMENT_REQUIRED: "model_payment_required",
    HTTPStatus.FORBIDDEN: "model_forbidden",
    HTTPStatus.NOT_FOUND: "model_unknown",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "model_request_too_large",
}
FRAME_TOKENS_MAX: Final = 2_000
"""What the other side adds to what is sent: marks between turns, and words about the schema."""


@cache
def prices(own: str | None = None) -> dict[str, Price]:
    """The price list, by model. What `own`, a list of the same form, says of a model goes before what is shipped.

    Raises PricesInvalidError.
    """
    shipped = parse((Path(__file__).parent / "prices.toml").read_text(encoding="utf-8"), "prices.toml")
    return {**shipped, **({} if own is None else parse(own, "NIGHTSHIFT_PRICES"))}


class Claude:
    """Implements ports.Provider. Retries are the engine's: the client makes none."""

    def __init__(
        self,
        *,
        model: str,
        api_key: str,
        base_url: str | None,
        timeout_seconds: float,
        own_prices: str | None = None,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        """`base_url` none: Anthropic's own. Raises PricesInvalidError, UnknownPriceError."""
        known = prices(own_prices)
        if model not in known:
            raise UnknownPriceError(model, sorted(known))
        self.name = f"{PREFIX}{model}"
        self._model = model
        self._price = known[model]
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
            raise _failure_of(error) from None  # the cause quotes the other side's words
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
            model=f"{PREFIX}{message.model}",
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
    counts = (getattr(usage, "input_tokens", None), getattr(usage, "output_tokens", None))
    return isinstance(content, list) and all(isinstance(count, int) for count in counts)


def _turns(ask: Ask) -> list[MessageParam]:
    turns: list[MessageParam] = [{"role": "user", "content": prompt.fenced(ask.data())}]
    if ask.previous is not None:
        output, why = ask.previous
        turns.append({"role": "assistant", "content": output[:PREVIOUS_CHARACTERS_MAX].strip() or "(no output)"})
        turns.append({"role": "user", "content": prompt.refused(why)})
    return turns


def _failure_of(error: anthropic.APIStatusError) -> LaterError | PermanentError:
    status = error.status_code
    message = f"the model answered {status}"
    asked = _retry_after_seconds(error.response.headers)
    if status in _PATIENCE:
        code = "model_rate_limited" if status == HTTPStatus.TOO_MANY_REQUESTS else "model_overloaded"
        return LaterError(code, message, seconds=OVERLOADED_SECONDS if asked is None else asked)
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        later = AnswerLostError if status in _OF_GATEWAYS else LaterError
        return later("model_failed", message, seconds=RETRY_DEFAULT_SECONDS if asked is None else asked)
    return PermanentError(_CODES.get(status, "model_request_rejected"), message)


def _retry_after_seconds(headers: httpx2.Headers) -> float | None:
    """At most an hour; none where it is missing or unreadable. A date counts from the answer's own."""
    asked = headers.get("retry-after", "").strip()
    until, now = http_date(asked), http_date(headers.get("date", ""))
    if asked.isascii() and asked.replace(".", "", 1).isdigit():
        seconds = float(asked)
    elif until is not None and now is not None:
        seconds = (until - now).total_seconds()
    else:
        return None
    return min(max(seconds, 0.0), RETRY_MAX_SECONDS)
