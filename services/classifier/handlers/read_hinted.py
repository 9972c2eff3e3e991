"""A hint says that an object changed and not how: it is read outside, and then it is seen whether somebody waits."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from connectors.protocol import Reads
from contracts.failures import LaterError
from services.classifier.handlers.case_changed import work_for
from services.classifier.handlers.complete import completed, loaded
from services.runtime import cases, tasks
from services.runtime.cases import Change, StoredCase, merging
from services.runtime.failures import Never
from services.runtime.postgres import Connection, Database
from services.runtime.process import Process
from services.runtime.tasks import Claim, Done, Outcome
from services.runtime.vault import CaseKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadHinted:
    """The work of kind `read` for one process. Many hints of one object are one read."""

    database: Database
    process: Process
    doors: Mapping[str, Reads]
    reads_at_once: asyncio.Semaphore

    async def perform(self, claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        """Read each claim's object; one that fails leaves the others alone."""
        held = await loaded(self.database, self.process, claims)
        async with asyncio.TaskGroup() as group:
            read = [group.create_task(self._one(*one)) for one in held]
        return [task.result() for task in read]

    async def store(self, connection: Connection, finished: Sequence[tuple[Claim, Done]]) -> None:
        """Keep what was read, and want a proposal where somebody waits."""
        processes: Mapping[str, Process] = {self.process.name: self.process}
        read: dict[str, StoredCase] = {claim.case_id: done.result for claim, done in finished if done.result}
        changes = {
            case_id: Change(stored.process, stored.door, stored.object_id, [merging(stored.case)])
            for case_id, stored in read.items()
        }
        after = await cases.update(connection, processes, changes)
        claims = {claim.case_id: claim for claim, _ in finished}
        wanted = [
            work_for(
                self.process,
                stored,
                cause=claims[case_id].cause,
                correlation_id=claims[case_id].correlation_id,
                traceparent=claims[case_id].traceparent,
            )
            for case_id, stored in after.items()
        ]
        await tasks.want(connection, [work for work in wanted if work is not None])

    async def _one(self, claim: Claim, stored: StoredCase, keys: CaseKeys, now: datetime) -> Outcome | Exception:
        if not self.process.case.needs_reading(stored.case):
            return Done()  # read meanwhile, for a proposal
        try:
            async with self.reads_at_once:
                return Done((), await completed(stored, self.process, self.doors, keys=keys, now=now))
        except LaterError as error:
            hinted_at = datetime.fromisoformat(claim.basis.partition("|")[0])
            too_old = now - hinted_at > self.process.max_age(stored.door)
            return Never(error.code, "what was hinted at could not be read in time") if too_old else error
        except Exception as error:  # noqa: BLE001  # failures.tell sorts it: never, later, or again
            return error
