"""A case is completed by reading its object outside."""

from collections.abc import Mapping
from datetime import datetime

from connectors.protocol import Reads
from contracts.base import Contract
from services.runtime.cases import StoredCase
from services.runtime.changes import seal_change
from services.runtime.process import Process
from services.runtime.vault import CaseKeys


async def completed(
    stored: StoredCase, process: Process, doors: Mapping[str, Reads], *, keys: CaseKeys, now: datetime
) -> StoredCase:
    """The case with what was read folded in. What is gone by now folds as deleted. Raises what Reads raises."""
    case: Contract = stored.case
    for plain in await doors[stored.door].read(stored.object_id):
        case = process.case.fold(case, seal_change(plain, door=stored.door, keys=keys, received_at=now))
    return StoredCase(stored.case_id, stored.process, stored.door, stored.object_id, case)
