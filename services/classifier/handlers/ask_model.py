"""Ask the provider and parse what it answers; once more with the error, then a person."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from prometheus_client import Counter, Histogram
from pydantic import ValidationError

from contracts.failures import LaterError, PermanentError
from contracts.proposed import Proposed
from services.classifier.ports import (
    Answer,
    AnswerLostError,
    Ask,
    Cost,
    Provider,
    Purse,
    RefusedError,
    RunBudgetExhaustedError,
)
from services.runtime.telemetry import exemplar

TRIES = 2
_INVALID = "output_invalid"

asked_total = Counter("nightshift_model_asks_total", "Calls of a model by how they ended", ["provider", "outcome"])
tokens_total = Counter("nightshift_model_tokens_total", "Tokens", ["provider", "direction"])
cost_usd_total = Counter("nightshift_model_cost_usd_total", "Cost in US dollars", ["provider"])
asked_seconds = Histogram("nightshift_model_ask_seconds", "Latency of one call", ["provider"])
OUTCOMES = ("accepted", "invalid", "refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the calls for one proposal took, failed ones too; money and tokens with those of earlier tries."""

    attempts: int
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = Decimal(0)
    latency_ms: int = 0

    def and_for(self, answer: Answer) -> "Spent":
        """With one more call."""
        return Spent(
            attempts=self.attempts + 1,
            tokens_in=self.tokens_in + answer.tokens_in,
            tokens_out=self.tokens_out + answer.tokens_out,
            cost_usd=self.cost_usd + answer.cost_usd,
            latency_ms=self.latency_ms + answer.latency_ms,
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """An output that fits the schema."""

    output: Proposed
    model: str
    spent: Spent


@dataclass(frozen=True, slots=True)
class Rejected:
    """The model refused, or its output failed the schema, and the retry too or in vain.

    `why` names fields, never values.
    """

    code: str
    why: str
    spent: Spent


class PausedError(LaterError):
    """The process was paused since the work was claimed: no model is asked."""


async def always() -> None:
    """Nothing forbids a call."""


async def ask_model(
    provider: Provider, ask: Ask, purse: Purse | None = None, *, may_call: Callable[[], Awaitable[None]] = always
) -> Accepted | Rejected:
    """Ask, at most twice, each call out of the purse. Raises the provider's failures (contracts.failures), and Purse's.

    Without a purse nothing bounds what is spent, beyond the two calls. `may_call` raises before a call that may not be.
    """
    spent = Spent(attempts=0)
    why = ""
    for _ in range(TRIES):
        await may_call()
        try:
            answer = await _asked(provider, ask, purse)
        except RunBudgetExhaustedError as error:
            return Rejected(error.code, str(error), with_earlier(spent, purse))
        except RefusedError as refusal:
            _count(provider.name, refusal.answer)
            asked_total.labels(provider.name, "refused").inc()
            return Rejected(refusal.code, str(refusal), with_earlier(spent.and_for(refusal.answer), purse))
        except PermanentError as error:
            if not why:
                raise
            return Rejected(_INVALID, f"the output failed the schema: {why}; then: {error}", with_earlier(spent, purse))
        spent = spent.and_for(answer)
        _count(provider.name, answer)
        try:
            output = ask.output.model_validate_json(answer.text)
        except ValidationError as error:
            why = _fields(error)
            asked_total.labels(provider.name, "invalid").inc()
            ask = replace(ask, previous=(answer.text, why))
        else:
            asked_total.labels(provider.name, "accepted").inc()
            return Accepted(output, answer.model, with_earlier(spent, purse))
    return Rejected(_INVALID, f"the output failed the schema twice: {why}", with_earlier(spent, purse))


async def _asked(provider: Provider, ask: Ask, purse: Purse | None) -> Answer:
    """One call. What is certain of it is settled; of anything else the most that it can take stays reserved."""
    if purse is None or (worst := provider.worst_case(ask)) is None:
        return await provider.propose(ask)
    call = await purse.reserve(worst, provider.name)
    try:
        answer = await provider.propose(ask)
    except RefusedError as refusal:
        await purse.settle(call, _cost_of(refusal.answer), request_id=refusal.answer.request_id)
        raise
    except AnswerLostError:
        await purse.lose(call)
        raise
    except (LaterError, PermanentError):  # turned away: nothing was answered
        await purse.settle(call, Cost())
        raise
    await purse.settle(call, _cost_of(answer), request_id=answer.request_id)
    return answer


def _cost_of(answer: Answer) -> Cost:
    return Cost(tokens_in=answer.tokens_in, tokens_out=answer.tokens_out, cost_usd=answer.cost_usd)


def with_earlier(spent: Spent, purse: Purse | None) -> Spent:
    """With what earlier tries of the same work took, which no event has told."""
    if purse is None or (taken := purse.taken) is None:
        return spent
    return replace(spent, tokens_in=taken.tokens_in, tokens_out=taken.tokens_out, cost_usd=taken.cost_usd)


def _fields(error: ValidationError) -> str:
    """What was wrong where. The model's text is untrusted and may quote the customer: it is left out."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'output'}: {e['type']}" for e in found[:10])


def count_from_zero(provider: str) -> None:
    """Tell every way in which a call may end before the first does: then the first is an increase as well."""
    for outcome in OUTCOMES:
        asked_total.labels(provider, outcome)


def _count(provider: str, answer: Answer) -> None:
    tokens_total.labels(provider, "in").inc(answer.tokens_in)
    tokens_total.labels(provider, "out").inc(answer.tokens_out)
    cost_usd_total.labels(provider).inc(float(answer.cost_usd))
    asked_seconds.labels(provider).observe(answer.latency_ms / 1000, exemplar(None))
