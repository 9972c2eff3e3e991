"""No facts."""

from collections.abc import Sequence

from contracts.decision import FactQuery
from processes.tiny.case import Case


def queries(case: Case) -> Sequence[FactQuery]:
    """Nothing is looked up."""
    del case
    return ()
