"""A model that does not answer is left alone, but for one call now and then."""

from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from contracts.failures import LaterError, PermanentError
from services.classifier.outbound.patient import FAILURES_MAX, OPEN_SECONDS, PatientProvider
from services.classifier.ports import AnswerLostError, Cost
from tests.fakes.proposing import GOOD, ScriptedModel
from tests.unit.support.tickets import ASK

LOST = AnswerLostError("model_timeout", "no answer", seconds=5)
BUSY = LaterError("model_rate_limited", "429", seconds=5)


@dataclass
class Outage:
    """A model behind its guard, and the time."""

    answers: list[str | Exception]
    now: float = 0.0
    model: ScriptedModel = field(init=False)
    guarded: PatientProvider = field(init=False)

    def __post_init__(self) -> None:
        self.model = ScriptedModel(answers=self.answers, worst=Cost(tokens_in=1, cost_usd=Decimal(1)))
        self.guarded = PatientProvider(self.model, clock=lambda: self.now)

    async def ask(self) -> str:
        """The code of the failure; `answered` where there is none."""
        try:
            self.guarded.worst_case(ASK)
            await self.guarded.propose(ASK)
        except (LaterError, PermanentError) as error:
            return error.code
        return "answered"


async def test_after_some_calls_that_were_lost_one_at_a_time_finds_out_more() -> None:
    outage = Outage([LOST])
    for _ in range(FAILURES_MAX):
        assert await outage.ask() == "model_timeout"

    assert await outage.ask() == "model_left_alone"
    outage.now += OPEN_SECONDS
    assert [await outage.ask() for _ in range(3)] == ["model_timeout", "model_left_alone", "model_left_alone"]
    assert len(outage.model.asked) == FAILURES_MAX + 1


async def test_a_queue_of_ones_own_says_nothing_about_the_model() -> None:
    outage = Outage([LaterError("model_busy", "no turn", seconds=5)])

    assert [await outage.ask() for _ in range(2 * FAILURES_MAX)] == ["model_busy"] * 2 * FAILURES_MAX


async def test_a_model_that_answers_again_is_asked_again() -> None:
    outage = Outage([*[LOST] * FAILURES_MAX, GOOD])
    for _ in range(FAILURES_MAX):
        await outage.ask()

    outage.now += OPEN_SECONDS

    assert [await outage.ask() for _ in range(3)] == ["answered"] * 3


@pytest.mark.parametrize("answer", [BUSY, PermanentError("model_request_rejected", "400")])
async def test_whatever_is_an_answer_closes_nothing(answer: Exception) -> None:
    outage = Outage([answer])

    codes = {await outage.ask() for _ in range(3 * FAILURES_MAX)}

    assert "model_left_alone" not in codes
    assert len(outage.model.asked) == 3 * FAILURES_MAX


async def test_nothing_is_set_aside_for_what_is_not_asked() -> None:
    outage = Outage([LOST])
    for _ in range(FAILURES_MAX):
        await outage.ask()

    with pytest.raises(LaterError) as refused:
        outage.guarded.worst_case(ASK)

    assert refused.value.seconds == OPEN_SECONDS
