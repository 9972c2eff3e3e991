"""A service's own picture of each case: changes folded in at once, whatever the order in which they come."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from contracts.base import Contract
from contracts.events.cases import CaseChanged
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.vault import KEYS_OF_ROW, CaseKeys, keys_of

_LOCK = "SELECT case_id, basis FROM lock_cases($1)"
_LOCK_AND_READ = "SELECT case_id, process, door, object_id, body FROM lock_cases($1)"
_READ = "SELECT case_id, process, door, object_id, body FROM cases WHERE case_id = ANY($1)"
_READ_WITH_KEYS = f"""
SELECT c.case_id, c.process, c.door, c.object_id, c.body, clock_timestamp() AS now, k.key_versions, k.keys
FROM cases c {KEYS_OF_ROW.format(row="c")} WHERE c.case_id = ANY($1)
"""  # noqa: S608  # two texts of ours
_WRITE = """
INSERT INTO cases (case_id, process, door, object_id, body, basis, party, is_open, opened_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::text[], $8::boolean[],
                     $9::timestamptz[])
ON CONFLICT (case_id) DO UPDATE SET body = excluded.body, basis = excluded.basis, party = excluded.party,
    is_open = excluded.is_open, opened_at = excluded.opened_at, changed_at = clock_timestamp()
"""


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case with where it came from. Texts are sealed."""

    case_id: str
    process: str
    door: str
    object_id: str
    case: Contract


class Readable(NamedTuple):
    """A case with the keys of its texts, and Postgres' time of this reading."""

    stored: StoredCase
    keys: CaseKeys
    now: datetime


Step = Callable[[Process, Contract | None], Contract]


@dataclass(frozen=True, slots=True)
class Change:
    """What to do to one case: steps, applied in turn."""

    process: str
    door: str
    object_id: str
    steps: list[Step] = field(default_factory=list)


async def lock(connection: Connection, case_ids: Sequence[str]) -> dict[str, str | None]:
    """Nobody else folds these cases until the transaction ends. Returns the newest basis of those that there are."""
    return {row["case_id"]: row["basis"] for row in await connection.fetch(_LOCK, case_ids)}


async def read(
    connection: Connection, processes: Mapping[str, Process], case_ids: Sequence[str]
) -> dict[str, StoredCase]:
    """The cases that there are."""
    return _stored(processes, await connection.fetch(_READ, list(set(case_ids))))


async def read_with_keys(
    connection: Connection, processes: Mapping[str, Process], case_ids: Sequence[str]
) -> dict[str, Readable]:
    """The cases that there are."""
    rows = await connection.fetch(_READ_WITH_KEYS, list(set(case_ids)))
    stored = _stored(processes, rows)
    return {
        row["case_id"]: Readable(
            stored[row["case_id"]], keys_of(row["case_id"], row["key_versions"], row["keys"]), row["now"]
        )
        for row in rows
    }


def _stored(processes: Mapping[str, Process], rows: Iterable[Any]) -> dict[str, StoredCase]:
    return {
        row["case_id"]: StoredCase(
            row["case_id"],
            row["process"],
            row["door"],
            row["object_id"],
            processes[row["process"]].case.Case.model_validate(row["body"]),
        )
        for row in rows
    }


async def write(connection: Connection, processes: Mapping[str, Process], cases: Sequence[StoredCase]) -> None:
    """Store cases that the caller locked."""
    if not cases:
        return
    modules = [processes[c.process].case for c in cases]
    await connection.execute(
        _WRITE,
        [c.case_id for c in cases],
        [c.process for c in cases],
        [c.door for c in cases],
        [c.object_id for c in cases],
        [c.case.model_dump(mode="json") for c in cases],
        [m.basis(c.case) for m, c in zip(modules, cases, strict=True)],
        [m.party(c.case) for m, c in zip(modules, cases, strict=True)],
        [m.is_open(c.case) for m, c in zip(modules, cases, strict=True)],
        [m.opened_at(c.case) for m, c in zip(modules, cases, strict=True)],
    )


async def update(
    connection: Connection,
    processes: Mapping[str, Process],
    changes: Mapping[str, Change],
) -> dict[str, StoredCase]:
    """Lock, read, change and write cases, by case_id. Returns them as they are afterwards."""
    known = _stored(processes, await connection.fetch(_LOCK_AND_READ, list(changes)))
    after: dict[str, StoredCase] = {}
    for case_id, change in changes.items():
        case = known[case_id].case if case_id in known else None
        for step in change.steps:
            case = step(processes[change.process], case)
        assert case is not None, "a change has at least one step"
        after[case_id] = StoredCase(case_id, change.process, change.door, change.object_id, case)
    await write(connection, processes, list(after.values()))
    return after


def folding(change: CaseChanged) -> Step:
    """A step for `update`: fold one change."""
    return lambda process, case: process.case.fold(case, change)


def merging(other: Contract) -> Step:
    """A step for `update`: join what somebody else knew of the case."""
    return lambda process, case: other if case is None else process.case.merge(case, other)
