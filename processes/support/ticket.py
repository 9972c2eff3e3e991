"""A ticket as far as its changes tell, and the join of two such histories.

`merge` is a join: every part of a ticket is a maximum, a minimum or a set, so that merging is commutative, associative
and idempotent. What that rests on: a change has one identity, and a comment has one id and one creation stamp, by
whichever way they were learnt.
"""

import json
from collections.abc import Iterable, Sequence

from contracts.base import Contract
from contracts.events.cases import Author, FieldValue

COMMENTS_MAX = 200
TEXTS_MAX = 30
"""Of the newest comments; older ones keep who and when."""
RIVALS_MAX = 8
STATUSES_MAX = 50

_SPEAKERS: tuple[Author, ...] = ("unknown", "system", "customer", "staff", "ours")
"""Where two sources disagree about a comment's author the later one here is believed: never answer ourselves."""


class Stamp(Contract):
    """Where a change stands in the order of its source, and when it came to us."""

    version: str
    audit: int
    """The audit's number, which orders updates of one second; 0 where the change came by webhook."""
    position: int
    identity: str
    received: str


class Saying(Stamp):
    """What one change said of the ticket's fields, as far as it is still the newest word on them."""

    update: str
    """Which update of the source it belongs to: different ones of one version are a tie."""
    values: dict[str, FieldValue]


class Comment(Contract):
    """One comment. `text` is none where it is not known, or no longer kept."""

    id: str
    at: str
    public: bool | None
    author: Author
    author_id: str | None
    is_staff: bool | None
    text: str | None
    received: str

    @property
    def name(self) -> str:
        """Sorts after `description`, `reopened` and `restored`, and by number: what shares a second keeps its order."""
        return self.id if self.id == "description" else f"said:{self.id:0>20}"

    @property
    def key(self) -> tuple[str, str]:
        return self.at, self.name


class Turn(Stamp):
    """The ticket's status from a version on, and who turned it."""

    status: str
    author: Author


class Case(Contract):
    """A ticket as far as its changes tell; texts are sealed until `reveal`."""

    door: str
    object_id: str
    sayings: tuple[Saying, ...] = ()
    """Oldest first. `gone` and `subject` are fields like the others."""
    comments: tuple[Comment, ...] = ()
    """The newest COMMENTS_MAX, oldest first."""
    more_comments: bool = False
    """There were more than COMMENTS_MAX."""
    statuses: tuple[Turn, ...] = ()
    """The newest STATUSES_MAX, oldest first."""
    first_at: str
    hinted_at: str | None = None
    """When the newest hint came in."""
    read_at: str | None = None
    """When the object's audits were last read."""

    def said(self, field: str) -> tuple[Saying, ...]:
        """What the updates of the field's newest version said of it; the last one counts."""
        return tuple(saying for saying in self.sayings if field in saying.values)

    def value(self, field: str) -> FieldValue:
        """The field's newest value; none where it is empty or was never told."""
        for saying in reversed(self.sayings):
            if field in saying.values:
                return saying.values[field]
        return None

    def text(self, field: str) -> str | None:
        """Like `value`, for fields that hold a word or an id."""
        value = self.value(field)
        return value if isinstance(value, str) else None

    @property
    def tags(self) -> tuple[str, ...]:
        value = self.value("tags")
        return value if isinstance(value, tuple) else ()


def merge(one: Case, other: Case) -> Case:
    """What two histories of one ticket know together."""
    assert (one.door, one.object_id) == (other.door, other.object_id), "two cases are never merged into one"
    if one == other:  # a proposal's case is mostly the one that the actor knows
        return one
    comments = _comments((*one.comments, *other.comments))
    statuses: dict[tuple[str, str], Turn] = {}
    for turn in (*one.statuses, *other.statuses):
        known = statuses.get((turn.version, turn.status))
        statuses[turn.version, turn.status] = turn if known is None else max(known, turn, key=_turn_order)
    kept = {key: statuses[key] for key in sorted(statuses)[-STATUSES_MAX:]}
    return Case(
        door=one.door,
        object_id=one.object_id,
        sayings=_newest((*one.sayings, *other.sayings)),
        comments=comments[-COMMENTS_MAX:],
        more_comments=one.more_comments or other.more_comments or len(comments) > COMMENTS_MAX,
        statuses=tuple(sorted(kept.values(), key=_turn_order)),
        first_at=min(one.first_at, other.first_at),
        hinted_at=max(one.hinted_at or "", other.hinted_at or "") or None,
        read_at=max(one.read_at or "", other.read_at or "") or None,
    )


def _newest(sayings: Iterable[Saying]) -> tuple[Saying, ...]:
    """Of each field what its newest version said, of each update of that version its last word."""
    told: dict[_Order, Saying] = {}
    for saying in sayings:
        order = _order(saying)
        known = told.get(order)
        told[order] = saying if known is None or known == saying else _same_saying(known, saying)
    heard: dict[str, tuple[str, set[str]]] = {}
    kept: list[Saying] = []
    for order in sorted(told, reverse=True):
        saying = told[order]
        names: list[str] = []
        for name in sorted(saying.values):
            newest, updates = heard.setdefault(name, (saying.version, set()))
            if newest == saying.version and saying.update not in updates and len(updates) < RIVALS_MAX:
                updates.add(saying.update)
                names.append(name)
        if names:
            kept.append(_saying_only(saying, names))
    return tuple(reversed(kept))


def _same_saying(one: Saying, other: Saying) -> Saying:
    """What two sources know of one change."""
    values = {**one.values, **other.values}
    for name in one.values.keys() & other.values.keys():
        values[name] = max(one.values[name], other.values[name], key=canonical)
    return one.model_copy(update={"values": values})


def _saying_only(saying: Saying, names: Sequence[str]) -> Saying:
    """Of these fields, in this order."""
    if [*saying.values] == names:
        return saying
    return saying.model_copy(update={"values": {name: saying.values[name] for name in names}})


_Order = tuple[str, int, int, str, str, str]


def _order(saying: Saying) -> _Order:
    return saying.version, saying.audit, saying.position, saying.identity, saying.update, saying.received


def _turn_order(turn: Turn) -> tuple[str, int, int, str, str, str, str]:
    return turn.version, turn.audit, turn.position, turn.identity, turn.status, turn.author, turn.received


def canonical(value: FieldValue) -> str:
    """A value as text, to compare values of different types."""
    return json.dumps(value)


def _comments(comments: Iterable[Comment]) -> tuple[Comment, ...]:
    by_id: dict[str, Comment] = {}
    for comment in comments:
        known = by_id.get(comment.id)
        by_id[comment.id] = comment if known is None or known == comment else _same_comment(known, comment)
    ordered = sorted(by_id.values(), key=lambda c: c.key)
    forgotten = len(ordered) - TEXTS_MAX
    if forgotten <= 0:
        return tuple(ordered)
    return (*(c.model_copy(update={"text": None}) for c in ordered[:forgotten]), *ordered[forgotten:])


def _same_comment(one: Comment, other: Comment) -> Comment:
    """What two sources know of one comment. Public turns private, never back."""
    told = [c.public for c in (one, other) if c.public is not None]
    staff = [c.is_staff for c in (one, other) if c.is_staff is not None]
    return Comment(
        id=one.id,
        at=min(one.at, other.at),
        public=min(told, default=None),
        author=max(one.author, other.author, key=_SPEAKERS.index),
        author_id=max((c.author_id for c in (one, other) if c.author_id is not None), default=None),
        is_staff=max(staff, default=None),
        text=max((c.text for c in (one, other) if c.text is not None), default=None),
        received=min(one.received, other.received),
    )
