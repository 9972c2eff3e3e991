"""What the tiny model suggests."""

from contracts.proposed import Proposed


class Proposal(Proposed):
    """An answer, and what to do besides."""

    intent: str = "question"
    answer: str
    do: tuple[str, ...] = ("reply",)

    @property
    def label(self) -> str:
        return self.intent
