"""What work on cases begins with: the cases as they are, and completed by reading their objects outside."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from connectors.protocol import Reads
from contracts.base import Contract
from services.runtime import cases
from services.runtime.cases import StoredCase
from services.runtime.changes import seal_change
from services.runtime.postgres import Database
from services.runtime.process import Process
from services.runtime.tasks import Claim
from services.runtime.vault import CaseKeys


async def completed(
    stored: StoredCase, process: Process, doors: Mapping[str, Reads], *, keys: CaseKeys, now: datetime
) -> StoredCase:
    """The case with what was read folded in. What is gone by now folds as deleted. Raises what Reads raises."""
    case: Contract = stored.case
    for plain in await doors[stored.door].read(stored.object_id):
        case = process.case.fold(case, seal_change(plain, door=stored.door, keys=keys, received_at=now))
    return StoredCase(stored.case_id, stored.process, stored.door, stored.object_id, case)


async def loaded(
    database: Database, process: Process, claims: Sequence[Claim]
) -> list[tuple[Claim, StoredCase, CaseKeys, datetime]]:
    """Each claim with its case, its keys, and Postgres' time of this reading."""
    async with database.connection() as connection:
        held = await cases.read_with_keys(connection, {process.name: process}, [claim.case_id for claim in claims])
    return [(claim, *held[claim.case_id]) for claim in claims]
