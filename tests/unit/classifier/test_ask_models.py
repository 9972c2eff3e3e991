"""The models of a process are asked in turn, and what is nobody's is a person's or waits."""

import contextlib
from collections.abc import Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import get_args
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

from contracts.failures import LaterError, PermanentError
from services.classifier.handlers.ask_model import Accepted, Rejected
from services.classifier.handlers.ask_models import WHY, NobodyAnsweredError, ask_models, count_all_from_zero
from services.classifier.outbound.model_failures import failure_of_status
from services.classifier.ports import (
    Answer,
    AnswerLostError,
    Ask,
    Cost,
    MoneyReservedError,
    Provider,
    RefusedError,
    RunBudgetExhaustedError,
)
from services.runtime.process import FallsBackOn, Model
from tests.fakes.acting import tiny
from tests.fakes.proposing import GOOD, ScriptedModel

BAD = '{"confidence": 7}'
BUSY = LaterError("model_overloaded", "503", seconds=15)
AWAY = LaterError("model_unreachable", "away", seconds=5)
LOST = AnswerLostError("model_timeout", "no answer", seconds=7)
NO_KEY = PermanentError("model_key_rejected", "401")
TOO_LARGE = PermanentError("model_context_exceeded", "too large")
REFUSED = RefusedError(Answer(text="", model="scripted-1", tokens_in=100, tokens_out=1))
SPENT = RunBudgetExhaustedError("nothing is left")
TOMORROW = LaterError("day_budget_exhausted", "nothing is left today", seconds=9000)
ASK = Ask(
    instructions="",
    data=str,
    output=tiny().Proposal,
    question=None,  # type: ignore[arg-type]  # nobody looks at it
    facts={},
    passages=(),
    index_version="",
    tokens_out_max=1,
)


class Till:
    """A purse without end."""

    def __init__(self, *refuses: Exception) -> None:
        self.refuses = list(refuses)
        self.taken: Cost | None = None
        self.asked_for: list[str] = []

    async def reserve(self, worst: Cost, model: str) -> UUID:
        del worst
        self.asked_for.append(model)
        if self.refuses:
            raise self.refuses.pop(0)
        return uuid4()

    async def settle(self, call: UUID, took: Cost, *, request_id: str | None = None) -> None:
        del call, request_id
        before = self.taken or Cost()
        self.taken = Cost(
            tokens_in=before.tokens_in + took.tokens_in,
            tokens_out=before.tokens_out + took.tokens_out,
            cost_usd=before.cost_usd + took.cost_usd,
        )

    async def look(self) -> None:
        pass

    async def lose(self, call: UUID) -> None:
        del call


def model(name: str, *answers: str | Exception) -> ScriptedModel:
    return ScriptedModel(name=name, worst=Cost(cost_usd=Decimal(1)), cost_usd=Decimal("0.01"), answers=[*answers])


async def ask(
    *models: Provider, purse: Till | None = None, falls_back_on: Sequence[FallsBackOn] = Model().falls_back_on
) -> tuple[Accepted | Rejected, list[tuple[str, str]]]:
    answer, failed = await ask_models(models, falls_back_on, ASK, purse or Till())
    return answer, [(one.model, one.code) for one in failed]


async def test_a_first_choice_that_answers_is_asked_alone() -> None:
    second = model("second", GOOD)

    answer, failed = await ask(model("first", GOOD), second)

    assert isinstance(answer, Accepted)
    assert (failed, second.asked) == ([], [])


@pytest.mark.parametrize("failure", [BUSY, AWAY, LOST, NO_KEY, TOO_LARGE, BAD], ids=repr)
async def test_a_model_that_fails_hands_over_to_the_next_and_is_named_with_its_code(failure: str | Exception) -> None:
    answer, failed = await ask(model("first", failure), model("second", GOOD))

    assert isinstance(answer, Accepted)
    assert failed == [("first", "output_invalid" if isinstance(failure, str) else failure.code)]  # type: ignore[attr-defined]  # each has one


async def test_the_next_model_is_not_shown_what_the_one_before_said() -> None:
    second = model("second", GOOD)

    await ask(model("first", BAD), second)

    assert second.asked[0].previous is None


async def test_what_failed_models_took_counts() -> None:
    answer, _ = await ask(model("first", BAD), model("second", BAD, GOOD))

    assert (answer.spent.attempts, answer.spent.latency_ms, answer.spent.cost_usd) == (4, 20, Decimal("0.04"))


@pytest.mark.parametrize("word", get_args(FallsBackOn))
async def test_only_failures_that_the_setting_names_move_on(word: FallsBackOn) -> None:
    failures: dict[FallsBackOn, str | Exception] = {
        "unavailable": AWAY,
        "overloaded": BUSY,
        "rejected": NO_KEY,
        "too_large": TOO_LARGE,
        "invalid_output": BAD,
        "refused": REFUSED,
        "budget": SPENT,
    }
    for failure in failures.values():
        second = model("second", GOOD)
        with contextlib.suppress(LaterError, PermanentError):
            await ask(model("first", failure), second, falls_back_on=[word])
        assert len(second.asked) == (failure is failures[word])


@pytest.mark.parametrize("failure", [REFUSED, SPENT], ids=repr)
async def test_a_refusal_and_the_end_of_the_money_are_a_persons_unless_the_setting_says_otherwise(
    failure: PermanentError,
) -> None:
    answer, failed = await ask(model("first", failure), model("second", GOOD))

    assert isinstance(answer, Rejected)
    assert (answer.code, failed) == (failure.code, [("first", failure.code)])


async def test_where_no_model_says_anything_the_first_that_may_answer_again_is_waited_for() -> None:
    with pytest.raises(NobodyAnsweredError) as nobody:
        await ask(model("first", BUSY), model("second", AWAY), model("third", TOO_LARGE))

    assert (nobody.value.code, nobody.value.seconds) == ("model_unreachable", 5)
    assert [(one.model, one.code) for one in nobody.value.failed] == [
        ("first", "model_overloaded"),
        ("second", "model_unreachable"),
        ("third", "model_context_exceeded"),
    ]


@pytest.mark.parametrize("models", [(BAD, AWAY), (AWAY, BAD)], ids=["said first", "said last"])
async def test_an_output_that_nobody_accepted_is_a_persons_and_is_not_paid_for_again(
    models: tuple[str | Exception, ...],
) -> None:
    answer, failed = await ask(*(model(f"m{number}", failure) for number, failure in enumerate(models)))

    assert isinstance(answer, Rejected)
    assert (answer.code, len(failed)) == ("output_invalid", 2)
    assert "asked in turn: m0 " in answer.why


async def test_a_model_that_was_too_dear_to_be_asked_said_nothing_and_the_next_is_waited_for() -> None:
    with pytest.raises(NobodyAnsweredError) as nobody:
        await ask(
            model("first", GOOD), model("second", AWAY), purse=Till(SPENT), falls_back_on=["budget", "unavailable"]
        )

    assert nobody.value.code == "model_unreachable"


async def test_an_invalid_output_whose_retry_has_no_room_is_told_as_what_it_was() -> None:
    answer, failed = await ask(model("first", BAD, TOO_LARGE))

    assert isinstance(answer, Rejected)
    assert (answer.code, failed) == ("output_invalid", [("first", "output_invalid")])
    assert (answer.why, answer.spent.cost_usd) == (
        "the output failed the schema: confidence: less_than_equal; answer: missing; then: too large",
        Decimal("0.01"),
    )


async def test_where_every_model_turns_the_question_away_a_person_learns_which_and_why() -> None:
    purse = Till()
    purse.taken = Cost(cost_usd=Decimal("0.07"))  # by tries before this one

    answer, _ = await ask(model("first", NO_KEY), model("second", TOO_LARGE), purse=purse)

    assert isinstance(answer, Rejected)
    assert (answer.spent.attempts, answer.spent.cost_usd) == (2, Decimal("0.07"))
    assert answer.code == "model_context_exceeded"
    assert answer.why == "too large (asked in turn: first model_key_rejected, second model_context_exceeded)"


async def test_money_that_calls_under_way_hold_is_waited_for_and_no_failure() -> None:
    second = model("second", GOOD)

    with pytest.raises(MoneyReservedError):
        await ask(
            model("first", GOOD),
            second,
            purse=Till(MoneyReservedError("soon", seconds=2)),
            falls_back_on=get_args(FallsBackOn),
        )

    assert second.asked == []


async def test_each_model_pays_under_its_own_name() -> None:
    purse = Till(TOMORROW)

    await ask(model("first", GOOD), model("second", GOOD), purse=purse, falls_back_on=["budget"])

    assert purse.asked_for == ["first", "second"]


async def test_who_was_passed_over_is_counted_from_zero_on() -> None:
    models = [model("counted first", BUSY), model("counted second", GOOD)]
    labels = {"provider": "counted first", "why": "overloaded"}
    count_all_from_zero(models)

    before = REGISTRY.get_sample_value("nightshift_model_passed_over_total", labels)
    await ask(*models)

    assert (before, REGISTRY.get_sample_value("nightshift_model_passed_over_total", labels)) == (0, 1)


def test_every_failure_of_a_model_has_a_word_in_the_setting() -> None:
    answered = {failure_of_status(status, {}).code for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST}

    assert answered <= set(WHY)
    assert set(WHY.values()) == set(get_args(FallsBackOn))
