"""The provider `nearest`: the nearest labelled examples name the label, the process's own code writes the answer.

Deterministic, free and offline.
"""

import time
from collections.abc import Callable
from typing import cast

from contracts.decision import Facts
from contracts.knowledge import Passage
from contracts.proposed import Proposed
from services.classifier.domain.regime import NEAREST
from services.classifier.outbound.desk import Library, library_of
from services.classifier.ports import Answer, Ask
from services.runtime.process import Process

Propose = Callable[..., Proposed]
"""`propose(*, label, confidence, familiar, question, facts, passages)` of the step's nearest.py."""


class Nearest:
    """Implements ports.Provider for a process whose last step has `nearest.py`."""

    name = NEAREST

    def __init__(self, process: Process) -> None:
        """Raises ProcessInvalidError."""
        step = process.settings.steps[-1].name
        self._propose = cast("Propose", process.step_module(step, "nearest").propose)
        self._library: Library = library_of(process)

    def worst_case(self, ask: Ask) -> None:
        """It costs nothing."""

    async def weights(self) -> None:
        """Its examples are part of every regime."""

    async def propose(self, ask: Ask) -> Answer:
        """Never waits. A retry gives the same answer, for the same question has only one."""
        started = time.perf_counter()
        vote = self._library.vote(ask.question.text)
        facts: Facts = ask.facts
        passages: tuple[Passage, ...] = ask.passages
        proposal = self._propose(
            label=vote.label,
            confidence=vote.confidence,
            familiar=vote.familiar,
            question=ask.question,
            facts=facts,
            passages=passages,
        )
        return Answer(
            text=proposal.model_dump_json(),
            model=f"{NEAREST}:{self._library.index_version[:12]}",
            latency_ms=round((time.perf_counter() - started) * 1000),
        )
