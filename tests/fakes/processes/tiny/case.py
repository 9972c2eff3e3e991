"""A case is a set of comments and the newest word on three fields."""

from collections.abc import Callable
from datetime import datetime

from pydantic import Field

from contracts.base import Contract
from contracts.basis import Basis, basis_of, version_of
from contracts.events.cases import CaseChanged


class Comment(Contract):
    """Who said what."""

    version: str
    name: str
    author: str
    public: bool
    text: str | None


class Word(Contract):
    """What a field was at a version."""

    version: str
    value: str | None


class Case(Contract):
    """Joined by union and maximum, so in any order to the same."""

    comments: tuple[Comment, ...] = ()
    fields: dict[str, Word] = Field(default_factory=dict)
    first_at: str
    heard_at: str = ""
    hinted: bool = False


def fold(case: Case | None, change: CaseChanged) -> Case:
    """The case after a change."""
    name = change.fields.get("comment_id")
    comment = Comment(
        version=change.version,
        name=str(name),
        author=change.author,
        public=change.fields.get("comment_public") is not False,
        text=change.texts.get("body"),
    )
    words = {
        key: Word(version=change.version, value=str(value))
        for key in ("updated_at", "status", "assignee_id", "requester_id")
        if (value := change.fields.get(key)) is not None
    }
    alone = Case(
        comments=(comment,) if name else (),
        fields=words,
        first_at=change.version,
        heard_at=version_of(change.received_at),
        hinted=change.hint,
    )
    return alone if case is None else merge(case, alone)


def merge(one: Case, other: Case) -> Case:
    """What both knew."""
    comments = {c.name: c for c in (*one.comments, *other.comments)}
    fields = {
        key: max((c.fields[key] for c in (one, other) if key in c.fields), key=lambda w: (w.version, w.value or ""))
        for key in {**one.fields, **other.fields}
    }
    return Case(
        comments=tuple(sorted(comments.values(), key=lambda c: (c.version, c.name))),
        fields=fields,
        first_at=min(one.first_at, other.first_at),
        heard_at=max(one.heard_at, other.heard_at),
        hinted=one.hinted or other.hinted,
    )


def _of(case: Case, key: str) -> str | None:
    return case.fields[key].value if key in case.fields else None


def basis(case: Case) -> Basis | None:
    """The customer's newest comment."""
    return max((basis_of(c.version, c.name) for c in case.comments if c.author == "customer"), default=None)


def awaits_answer(case: Case) -> bool:
    """Whether the customer had the last public word."""
    spoken = [c for c in case.comments if c.public]
    return is_open(case) and bool(spoken) and spoken[-1].author == "customer"


def asked_at(case: Case) -> datetime:
    """When the basis happened."""
    return datetime.fromisoformat((basis(case) or case.first_at).split("|")[0])


def opened_at(case: Case) -> datetime:
    """When the first change happened."""
    return datetime.fromisoformat(case.first_at)


def replied(case: Case) -> bool:
    """Whether anybody answered publicly."""
    return any(c.public and c.author in {"ours", "staff"} for c in case.comments)


def is_open(case: Case) -> bool:
    """Whether it still asks for work."""
    return _of(case, "status") != "closed"


def party(case: Case) -> str | None:
    """The requester."""
    return _of(case, "requester_id")


def stamp(case: Case) -> str | None:
    """The newest `updated_at`."""
    return _of(case, "updated_at")


def taken(case: Case) -> bool:
    """Whether a person has it."""
    return _of(case, "assignee_id") is not None


def needs_reading(case: Case) -> bool:
    """After a hint."""
    return case.hinted


def reveal(case: Case, unseal: Callable[[str], str]) -> Case:
    """With texts in clear."""
    comments = tuple(c if c.text is None else c.model_copy(update={"text": unseal(c.text)}) for c in case.comments)
    return case.model_copy(update={"comments": comments})
