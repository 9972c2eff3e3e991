"""Runs the evals of a process through facts, model and rules, by the services' own functions; nothing is sent."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from contracts.base import Json
from contracts.decision import verdict_of
from contracts.failures import LaterError, PermanentError
from nightshift import MendableError
from nightshift.evals.examples import Eval
from nightshift.evals.result import Answered, Result, Row
from nightshift.progress import Progress, silent
from nightshift.trial import Customer, Tried, attempt_with, desk_for
from services.classifier.ports import Provider
from services.runtime.process import Process

AT_ONCE = 4


class _NoRows:
    """A customer of whom the shop's books know nothing: an eval is about words."""

    async def look_up(self, query: str, params: Json) -> Sequence[Json]:
        del query, params
        return ()


@dataclass(frozen=True, slots=True)
class Ran:
    """The result, and what it took."""

    result: Result
    latencies_ms: Sequence[int]
    """Of each answer, ascending."""


async def run_evals(
    process: Process, evals: Sequence[Eval], provider: Provider, *, times: int, progress: Progress = silent
) -> Ran:
    """Ask `times` about each eval. Raises MendableError for a model that does not answer."""
    sources = dict.fromkeys(process.settings.sources, _NoRows())
    desk = desk_for(process, provider.name)
    try:
        weights = await provider.weights()
    except (LaterError, PermanentError) as error:
        raise MendableError(f"{provider.name} does not answer: {error}") from error
    regime = desk.regime(provider.name, weights)  # of what is asked, whatever somebody writes meanwhile
    free, done = asyncio.Semaphore(AT_ONCE), 0

    async def tried(one: Eval) -> Tried:
        nonlocal done
        async with free:
            customer = Customer(text=one.text, subject=one.subject)
            answer = await attempt_with(process, customer, [provider], desk, sources)
        done += 1
        progress("evals", done, len(evals) * times)
        return answer

    async with asyncio.TaskGroup() as group:
        tasks = [[group.create_task(tried(one)) for _ in range(times)] for one in evals]
    answers = [[task.result() for task in of_one] for of_one in tasks]
    everything = [one for of_one in answers for one in of_one]
    result = Result(
        process=process.name,
        model=provider.name,
        regime=regime,
        evals=digest_of(evals),
        times=times,
        cost_usd=sum((one.spent.cost_usd for one in everything), start=Decimal(0)),
        rows=tuple(
            Row(
                id=one.id,
                must_pass=one.must_pass,
                expected=one.expected,
                answers=tuple(_answered(one, answer) for answer in of_one),
            )
            for one, of_one in zip(evals, answers, strict=True)
        ),
    )
    return Ran(result, sorted(one.spent.latency_ms for one in everything))


def digest_of(evals: Sequence[Eval]) -> str:
    """Of all evals in their order."""
    return hashlib.sha256("\n".join(one.model_dump_json() for one in evals).encode()).hexdigest()


def _answered(one: Eval, tried: Tried) -> Answered:
    output: Mapping[str, object] = {} if tried.output is None else tried.output.model_dump(mode="json")
    return Answered(
        got={name: output[name] for name in one.expected if name in output},
        confidence=0.0 if tried.output is None else tried.output.confidence,
        verdict="dead letter" if tried.judgment is None else verdict_of(tried.judgment.decision),
    )
