"""What every process's proposal has, whatever else it holds."""

from abc import abstractmethod
from typing import Annotated

from pydantic import Field, Strict

from contracts.base import Contract


class Proposed(Contract):
    """A model's suggestion, parsed. Untrusted: parsing proves its shape, rules decide about its content."""

    confidence: Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
    """How likely the label and the answer are right, 0 to 1."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The word, of the process's closed set, that reports count by: an intent."""
