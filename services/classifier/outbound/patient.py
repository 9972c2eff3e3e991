"""A model that does not answer is left alone: each call into an outage may have to be paid, and brings nothing."""

import time
from collections.abc import Callable
from typing import Final

from contracts.failures import LaterError, PermanentError
from services.classifier.ports import Answer, Ask, Cost, Provider
from services.runtime.pace import Breaker

FAILURES_MAX: Final = 5
OPEN_SECONDS: Final = 15.0


class PatientProvider:
    """Implements ports.Provider. After FAILURES_MAX calls in a row without an answer, one at a time finds out more."""

    def __init__(self, provider: Provider, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = provider.name
        self._provider = provider
        self._clock = clock
        self._breaker = Breaker(failures_max=FAILURES_MAX, open_seconds=OPEN_SECONDS)

    def worst_case(self, ask: Ask) -> Cost | None:
        """See Provider. Nothing is reserved for what is not asked."""
        self._refuse_while_open()
        return self._provider.worst_case(ask)

    async def weights(self) -> str | None:
        """See Provider."""
        return await self._provider.weights()

    async def propose(self, ask: Ask) -> Answer:
        """See Provider."""
        self._refuse_while_open()
        self._breaker.begin(self._clock())
        try:
            answer = await self._provider.propose(ask)
        except LaterError as error:
            match error.code:
                case "model_rate_limited":  # an answer, if not the one that was hoped for
                    self._breaker.succeeded()
                case "model_busy":  # with our own questions: it was not asked
                    self._breaker.gave_up()
                case _:
                    self._breaker.failed(self._clock())
            raise
        except PermanentError:
            self._breaker.succeeded()
            raise
        except BaseException:  # cancelled, or a fault of ours: it says nothing about the other side
            self._breaker.gave_up()
            raise
        self._breaker.succeeded()
        return answer

    def _refuse_while_open(self) -> None:
        if (seconds := self._breaker.wait_seconds(self._clock())) > 0:
            raise LaterError(
                "model_left_alone", "the model does not answer, and is left alone for now", seconds=seconds
            )
