"""An hour of intake beside the provider's own list: what no webhook told, and what may be said of the hour."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha1
from typing import Literal, NamedTuple

from connectors.protocol import Part, Update

HOUR = timedelta(hours=1)
NEAR = timedelta(seconds=5)
"""A webhook may name a second that is not quite that of its update."""
SETTLED_LOOKS = 3
"""The list is settled once so many looks in a row, after the first, saw what the first one saw."""
UNKNOWN_LOOKS = 6
"""So many looks after its end an hour whose list cannot be had is unknown."""
WAIT_SHARE = 8
"""An hour whose own list is refused is asked for again once it is older by an eighth."""
REACH = timedelta(days=30)
"""An hour older than that whose own list is refused cannot be mended any more."""

ERASED = "permanently_deleted"

State = Literal["open", "complete", "missing", "backfilled", "unknown"]
"""`open`: nothing is said of it yet."""


class Heard(NamedTuple):
    """A change that a webhook told."""

    object_id: str
    kind: str
    at: datetime
    """Of the update, as the webhook knows it."""
    comment_id: str | None = None
    hint: bool = False
    """The object is read anew because of it, so it tells everything up to its moment."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a look saw."""

    listed: int
    digest: str
    """Equal for the same updates."""
    missing: Sequence[Update]
    """Those that no webhook told, or not all of it."""
    doubtful: Sequence[Update]
    """Of the same second and kind as a missing one: nobody can tell which of them was told."""


def compare(updates: Iterable[Update], heard: Iterable[Heard], kinds: Collection[str]) -> Compared:
    """Each part of an update that some of `kinds` would tell needs a change of its own that tells it."""
    asked = {update.update_id: (update, _compared(update, kinds)) for update in updates}
    listed = {name: pair for name, pair in asked.items() if pair[1]}
    ears: dict[str, _Ears] = defaultdict(_Ears)
    for change in heard:
        ears[change.object_id].add(change)
    by_object: dict[str, list[tuple[Update, Part]]] = defaultdict(list)
    for update, parts in listed.values():
        by_object[update.object_id] += [(update, part) for part in parts]
    missing: dict[str, Update] = {}
    doubtful: dict[str, Update] = {}
    for object_id, wanted in by_object.items():
        for update, part in ears[object_id].not_told(wanted):
            missing[update.update_id] = update
            for other, same in wanted:
                if same == part and other.at == update.at:
                    doubtful[other.update_id] = other
    return Compared(
        listed=len(listed),
        digest=sha1("|".join(sorted(listed)).encode(), usedforsecurity=False).hexdigest(),
        missing=tuple(missing.values()),
        doubtful=tuple(other for name, other in doubtful.items() if name not in missing),
    )


def is_short(
    updates: Iterable[Update], heard: Collection[Heard], kinds: Collection[str], *, since: datetime, until: datetime
) -> bool:
    """Whether webhooks told of an update that certainly lies between the two, and the list does not hold it.

    Of a ticket that was erased nobody knows what the list still holds.
    """
    moments: dict[str, list[datetime]] = defaultdict(list)
    comments: set[str | None] = set()
    for update in updates:
        moments[update.object_id].append(update.at)
        comments |= {part.comment_id for part in update.parts} - {None}
    erased = {one.object_id for one in heard if one.kind == ERASED}
    return any(
        since + NEAR <= one.at < until - NEAR
        and one.kind in kinds
        and not one.hint
        and one.object_id not in erased
        and one.comment_id not in comments
        and all(abs(moment - one.at) > NEAR for moment in moments[one.object_id])
        for one in heard
    )


def _compared(update: Update, kinds: Collection[str]) -> Sequence[Part]:
    return [part for part in update.parts if not part.kinds.isdisjoint(kinds)]


class _Ears:
    """What was heard about one object; each change tells one part."""

    def __init__(self) -> None:
        self._moments: dict[str, list[datetime]] = defaultdict(list)
        self._comments: set[tuple[str, str]] = set()
        self._read_at: datetime | None = None

    def add(self, change: Heard) -> None:
        if change.hint:
            self._read_at = max(change.at, self._read_at or change.at)
            return
        self._moments[change.kind].append(change.at)
        if change.comment_id is not None:
            self._comments.add((change.kind, change.comment_id))

    def not_told(self, wanted: Sequence[tuple[Update, Part]]) -> list[tuple[Update, Part]]:
        """Changes of the very second come first, so that a near one is left to the update that has none."""
        left = [pair for pair in wanted if not self._is_known(*pair)]
        for near in (timedelta(0), NEAR):
            left = [pair for pair in left if not self._take(*pair, near)]
        return left

    def _is_known(self, update: Update, part: Part) -> bool:
        if self._read_at is not None and self._read_at >= update.at:
            return True
        if part.comment_id is not None:
            return any((kind, part.comment_id) in self._comments for kind in part.kinds)
        return "created" in part.kinds and bool(self._moments["created"])

    def _take(self, update: Update, part: Part, near: timedelta) -> bool:
        if part.comment_id is not None:
            return False
        for kind in sorted(part.kinds):
            for moment in self._moments[kind]:
                if abs(moment - update.at) <= near:
                    self._moments[kind].remove(moment)
                    return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """What is known of one hour of one door."""

    hour: datetime
    since: datetime
    """From when on it is compared."""
    state: State = "open"
    listed: int = 0
    missing: int = 0
    digest: str | None = None
    """Of the last look at the whole hour."""
    same_since: datetime | None = None
    """When that was seen first."""
    code: str | None = None
    settled: bool = False
    due_at: datetime | None = None
    """It is not asked for before that, and those that were put off first come first. None: before all of them."""

    @property
    def end(self) -> datetime:
        return self.hour + HOUR

    def word(self) -> tuple[object, ...]:
        """What others are told, as far as a change of it is news: a list that merely grows is none."""
        return (self.state, self.settled, self.code, self.missing)


def seen(hour: Hour, compared: Compared, *, outstanding: int, whole: bool, now: datetime, every: timedelta) -> Hour:
    """After a look. `outstanding`: how many updates are still to be taken in; `whole`: it saw all of the hour."""
    missing = max(hour.missing, len(compared.missing))
    same = whole and compared.digest == hour.digest and hour.same_since is not None
    same_since = hour.same_since if same else now if whole else None
    settled = not outstanding and same_since is not None and now - same_since >= SETTLED_LOOKS * every
    state: State = hour.state
    if outstanding:
        state = "missing"
    elif missing:
        state = "backfilled"
    elif settled:
        state = "complete"
    return replace(
        hour,
        state=state,
        listed=max(hour.listed, compared.listed),
        missing=missing,
        digest=compared.digest if whole else None,
        same_since=same_since,
        code=hour.code if state == "unknown" else None,
        settled=settled,
        due_at=now if outstanding and whole else None,
    )


def not_had(hour: Hour, code: str, *, now: datetime, every: timedelta) -> Hour:
    """After a look at a list that could not be had. What is known to be missing is worse than unknown, and stays."""
    if hour.settled or hour.state == "missing" or now - hour.end < UNKNOWN_LOOKS * every:
        return hour
    return replace(hour, state="unknown", code=code, digest=None, same_since=None)


def refused(hour: Hour, code: str, *, now: datetime, every: timedelta) -> Hour:
    """After a look at which this hour's own list could not be had, while others could."""
    after, age = not_had(hour, code, now=now, every=every), now - hour.end
    if age >= REACH:
        return replace(after, settled=True, due_at=None)
    wait = age / WAIT_SHARE
    return replace(after, due_at=now + wait if wait > every else None)
