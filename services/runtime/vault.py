"""The keys of the cases, from the one table that holds them, and sealing with them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any, NamedTuple

from contracts import sealed
from contracts.sealed import KEY_BYTES, SealedText, UnsealableError
from services.runtime.postgres import Connection

_READ = "SELECT case_id, version, key FROM vault.case_keys WHERE case_id = ANY($1) ORDER BY version"
KEYS_OF_ROW = """
LEFT JOIN LATERAL (SELECT array_agg(k.version) AS key_versions, array_agg(k.key) AS keys
                   FROM vault.case_keys k WHERE k.case_id = {row}.case_id AND k.key IS NOT NULL) k ON true
"""
"""Joins each row with the keys of its case, for `keys_of`; saves the round trip of `read`."""
_MAKE = """
WITH made AS (
    INSERT INTO vault.case_keys (case_id, version, key)
    SELECT n.case_id, coalesce((SELECT max(version) FROM vault.case_keys k WHERE k.case_id = n.case_id), 0) + 1, n.key
    FROM unnest($1::text[], $2::bytea[]) n(case_id, key)
    WHERE NOT EXISTS (SELECT 1 FROM vault.case_keys k WHERE k.case_id = n.case_id AND k.key IS NOT NULL)
    ON CONFLICT DO NOTHING RETURNING case_id, version, key)
SELECT case_id, version, key FROM made
UNION ALL SELECT case_id, version, key FROM vault.case_keys WHERE case_id = ANY($1)
"""


@dataclass(frozen=True, slots=True)
class CaseKeys:
    """The keys of one case, newest last. An erased version has none."""

    case_id: str
    versions: Mapping[int, bytes] = field(repr=False)

    def seal(self, text: str) -> SealedText:
        """Seal under the newest key. Raises UnsealableError when the case has none."""
        version = self._newest()
        return sealed.seal(text, key=self.versions[version], key_version=version, case_id=self.case_id)

    def seal_bytes(self, plain: bytes) -> bytes:
        """Seal what is stored and never travels. Raises UnsealableError when the case has no key."""
        version = self._newest()
        return sealed.seal_bytes(plain, key=self.versions[version], key_version=version, case_id=self.case_id)

    def unseal(self, text: str) -> str:
        """Raises UnsealableError: erased, or not ours."""
        key = self.versions.get(sealed.key_version_of(text, case_id=self.case_id))
        if key is None:
            raise UnsealableError(self.case_id)
        return sealed.unseal(text, key=key, case_id=self.case_id)

    def unseal_bytes(self, box: bytes) -> bytes:
        """Raises UnsealableError: erased, or not ours."""
        key = self.versions.get(sealed.key_version_of_bytes(box, case_id=self.case_id))
        if key is None:
            raise UnsealableError(self.case_id)
        return sealed.unseal_bytes(box, key=key, case_id=self.case_id)

    def _newest(self) -> int:
        if not self.versions:
            raise UnsealableError(self.case_id)
        return max(self.versions)


async def read(connection: Connection, case_ids: Iterable[str]) -> dict[str, CaseKeys]:
    """The keys of these cases; a case without any gets an empty CaseKeys. Never cached: erasing works at once."""
    wanted = sorted(set(case_ids))
    return _by_case(wanted, await connection.fetch(_READ, wanted))


def keys_of(case_id: str, versions: Sequence[int] | None, keys: Sequence[bytes] | None) -> CaseKeys:
    """Of a row that was joined with KEYS_OF_ROW: its columns."""
    return CaseKeys(case_id, dict(zip(versions or (), keys or (), strict=True)))


class NewKey(NamedTuple):
    """A key that comes into being when the caller inserts it into vault.case_keys."""

    case_id: str
    version: int
    key: bytes


async def read_or_propose(
    connection: Connection, case_ids: Collection[str]
) -> tuple[dict[str, CaseKeys], dict[str, NewKey]]:
    """For intake: the keys of these cases, and which of them are new: of the cases without any (never, or erased).

    A new key that another transaction inserted meanwhile is a violation of the table's primary key: ask again then.
    """
    versions: dict[str, dict[int, bytes]] = {}
    erased: dict[str, int] = {}
    for case_id, version, key in await connection.fetch(_READ, list(case_ids)):
        if key is not None:
            versions.setdefault(case_id, {})[version] = key
        else:
            erased[case_id] = version
    new = {
        case_id: NewKey(case_id, erased.get(case_id, 0) + 1, token_bytes(KEY_BYTES))
        for case_id in case_ids
        if case_id not in versions
    }
    for case_id, one in new.items():
        versions[case_id] = {one.version: one.key}
    return {case_id: CaseKeys(case_id, of_case) for case_id, of_case in versions.items()}, new


async def make(connection: Connection, fresh: Mapping[str, bytes]) -> dict[str, CaseKeys]:
    """For redrives: a key for each case, made in the caller's transaction where there is none (never, or erased).

    `fresh` brings one random key a case; where another transaction was faster, its key is the one returned.
    """
    case_ids = sorted(fresh)
    found = _by_case(case_ids, await connection.fetch(_MAKE, case_ids, [fresh[case_id] for case_id in case_ids]))
    if all(keys.versions for keys in found.values()):
        return found
    return await read(connection, case_ids)  # what another transaction made meanwhile, a later statement sees


def _by_case(case_ids: Iterable[str], rows: Iterable[Any]) -> dict[str, CaseKeys]:
    found: dict[str, dict[int, bytes]] = {case_id: {} for case_id in case_ids}
    for case_id, version, key in rows:
        if key is not None:
            found[case_id][version] = key
    return {case_id: CaseKeys(case_id, versions) for case_id, versions in found.items()}
