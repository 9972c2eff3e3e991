"""Ask the models of a process in turn: its first choice, then each fallback; after the last, a person."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final, get_args

from prometheus_client import Counter

from contracts.events.proposals import ModelFailed
from contracts.failures import LaterError, PermanentError
from services.classifier.handlers.ask_model import (
    Accepted,
    PausedError,
    Rejected,
    Spent,
    always,
    ask_model,
    count_from_zero,
    with_earlier,
)
from services.classifier.ports import Ask, MoneyReservedError, Provider, Purse
from services.runtime.process import FallsBackOn

WHY: Final[Mapping[str, FallsBackOn]] = {
    "model_unreachable": "unavailable",
    "model_timeout": "unavailable",
    "model_failed": "unavailable",
    "model_unreadable": "unavailable",
    "model_left_alone": "unavailable",
    "model_rate_limited": "overloaded",
    "model_overloaded": "overloaded",
    "model_busy": "overloaded",
    "model_key_rejected": "rejected",
    "model_payment_required": "rejected",
    "model_forbidden": "rejected",
    "model_unknown": "rejected",
    "model_request_rejected": "rejected",
    "model_request_too_large": "too_large",
    "model_context_exceeded": "too_large",
    "output_invalid": "invalid_output",
    "model_refused": "refused",
    "run_budget_exhausted": "budget",
    "day_budget_exhausted": "budget",
    "total_budget_exhausted": "budget",
}
"""The word of process.toml for each code of a failure."""

SAID_NOTHING: Final[frozenset[FallsBackOn]] = frozenset({"unavailable", "overloaded", "rejected", "too_large"})
"""Failures of a model that answered nothing, not even something that was not accepted."""

passed_over_total = Counter(
    "nightshift_model_passed_over_total", "Models that failed, so that another was asked", ["provider", "why"]
)


class NobodyAnsweredError(LaterError):
    """No model answered, and one of them may later: after the shortest of the times that they named."""

    def __init__(self, soonest: LaterError, failed: Sequence[ModelFailed]) -> None:
        super().__init__(soonest.code, str(soonest), seconds=soonest.seconds)
        self.failed = tuple(failed)


async def ask_models(
    models: Sequence[Provider],
    falls_back_on: Collection[FallsBackOn],
    ask: Ask,
    purse: Purse | None = None,
    *,
    may_call: Callable[[], Awaitable[None]] = always,
) -> tuple[Accepted | Rejected, tuple[ModelFailed, ...]]:
    """What came of the question, and which models came to nothing, in their order.

    An output that nobody accepted is a person's, and is not asked for again. Where no model said anything, those that
    may answer later are waited for. Raises NobodyAnsweredError, MoneyReservedError, PausedError.
    """
    failed: list[ModelFailed] = []
    rejected: list[Rejected] = []
    later: list[LaterError] = []
    never: list[PermanentError] = []
    for number, model in enumerate(models, start=1):
        try:
            answer = await ask_model(model, ask, purse, may_call=may_call)
        except (MoneyReservedError, PausedError):
            raise
        except LaterError as error:
            later.append(error)
            code = error.code
        except PermanentError as error:
            never.append(error)
            code = error.code
        else:
            if isinstance(answer, Accepted):
                return replace(answer, spent=_in_all(answer.spent, rejected)), tuple(failed)
            code = answer.code
            rejected.append(answer)
        failed.append(ModelFailed(model=model.name, code=code))
        if (why := WHY.get(code)) not in falls_back_on:
            break
        if number < len(models):
            passed_over_total.labels(model.name, why).inc()
    if never and purse is not None:
        await purse.look()
    return _without_answer(failed, rejected, later, never, purse), tuple(failed)


def _without_answer(
    failed: Sequence[ModelFailed],
    rejected: Sequence[Rejected],
    later: Sequence[LaterError],
    never: Sequence[PermanentError],
    purse: Purse | None,
) -> Rejected:
    if any(one.spent.attempts for one in rejected) or (rejected and not later):
        last = rejected[-1]
        return replace(last, why=_told(last.why, failed), spent=_in_all(last.spent, rejected[:-1]))
    if later:
        soonest = min(later, key=lambda error: error.seconds)
        raise NobodyAnsweredError(soonest, failed) from soonest
    return Rejected(never[-1].code, _told(str(never[-1]), failed), with_earlier(Spent(attempts=len(never)), purse))


def _told(why: str, failed: Sequence[ModelFailed]) -> str:
    if len(failed) == 1:
        return why
    return f"{why} (asked in turn: {', '.join(f'{one.model} {one.code}' for one in failed)})"


def _in_all(spent: Spent, before: Sequence[Rejected]) -> Spent:
    """With the calls of models before it; their money and tokens are the purse's already."""
    return replace(
        spent,
        attempts=spent.attempts + sum(one.spent.attempts for one in before),
        latency_ms=spent.latency_ms + sum(one.spent.latency_ms for one in before),
    )


def count_all_from_zero(models: Sequence[Provider]) -> None:
    """Tell every way in which a call may end, and every failure, before the first: then that is an increase as well."""
    for model in models:
        count_from_zero(model.name)
        for why in get_args(FallsBackOn):
            passed_over_total.labels(model.name, why)
