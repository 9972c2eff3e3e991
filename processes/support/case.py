"""A ticket, and the fold of outside changes into it: in any order, with any duplication, to the same case.

`fold` merges the case that one change alone would make (ticket.py); the rest of this file reads a case: what was asked,
by whom, whether it still waits, and whether what is known of it is enough to answer.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

from contracts.basis import Basis, basis_of, version_of
from contracts.events.cases import Author, CaseChanged, FieldValue
from processes.support.ticket import Case, Comment, Saying, Turn, canonical, merge

__all__ = [
    "Case",
    "Gone",
    "answers",
    "asked",
    "asked_at",
    "awaits_answer",
    "basis",
    "fold",
    "gone",
    "is_open",
    "merge",
    "messages",
    "needs_reading",
    "opened_at",
    "party",
    "reopened",
    "replied",
    "restored",
    "reveal",
    "speaker",
    "stamp",
    "unanswered",
]

_IDS = frozenset({"assignee_id", "group_id", "requester_id", "brand_id", "organization_id"})
_FIELDS = _IDS | {"status", "priority", "channel", "tags", "updated_at", "created_at", "is_public"}
_WORDS = frozenset({"status", "priority", "channel"})
_GONE = {
    "merged": "merged",
    "marked_as_spam": "spam",
    "soft_deleted": "deleted",
    "permanently_deleted": "deleted",
    "undeleted": None,
}
_RESTING = frozenset({"solved", "closed", "deleted"})

AGES_AGO = datetime.fromtimestamp(0, UTC)

Gone = Literal["merged", "spam", "deleted", "closed"]


def fold(case: Case | None, change: CaseChanged) -> Case:
    """The case after a change, whenever the change arrives."""
    alone = _alone(change)
    return alone if case is None else merge(case, alone)


def speaker(case: Case, comment: Comment) -> Author:
    """Who wrote a comment; `unknown` where nothing tells."""
    if comment.author not in ("unknown", "system"):
        return comment.author
    if comment.author_id is not None and comment.author_id == case.value("requester_id"):
        return "customer"
    if comment.author == "system" or comment.is_staff is None:
        return comment.author
    return "staff" if comment.is_staff else "customer"


def messages(case: Case) -> list[Comment]:
    """What the customer's side wrote publicly, oldest first. An author nobody can name counts: the rules hold it."""
    return [c for c in case.comments if c.public is not False and speaker(case, c) in ("customer", "unknown")]


def answers(case: Case) -> list[Comment]:
    """What staff or Nightshift wrote publicly, oldest first."""
    return [c for c in case.comments if c.public and speaker(case, c) in ("staff", "ours")]


def unanswered(case: Case) -> list[Comment]:
    """The customer's messages since the last public answer."""
    answered = answers(case)
    return [c for c in messages(case) if not answered or c.key > answered[-1].key]


def reopened(case: Case) -> Turn | None:
    """The newest return from solved that was not ours and that no message of the same moment explains."""
    woken = [
        after
        for before, after in pairwise(case.statuses)
        if before.status == "solved" and after.status not in _RESTING and after.author != "ours"
    ]
    spoken = {c.at for c in messages(case)} if woken else ()
    return next((turn for turn in reversed(woken) if turn.version not in spoken), None)


def restored(case: Case) -> Saying | None:
    """The newest return of a ticket that was gone, where the customer still waited for an answer then.

    What was decided before came to nothing, for a ticket that is gone is neither answered nor handed over.
    """
    newest = case.said("gone")[-1:]
    if not newest or newest[0].values["gone"] is not None:
        return None
    at = newest[0].version
    words = [key for key in _words(case) if key[0] <= at]
    if not words or any(words[-1] < c.key for c in answers(case) if c.at <= at):
        return None
    status = [turn for turn in case.statuses if turn.version <= at and turn.status != "deleted"][-1:]
    dealt_with = status and status[0].status in _RESTING and status[0].version > words[-1][0]
    return None if dealt_with else newest[0]


def basis(case: Case) -> Basis | None:
    """The customer's newest public comment, a reopening without one, or the return of a ticket that was gone.

    None while nobody has asked anything.
    """
    found = [basis_of(*key) for key in _words(case)[-1:]]
    if (back := restored(case)) is not None:
        found.append(basis_of(back.version, "restored"))
    return max(found, default=None)


def asked(case: Case) -> Comment | None:
    """The comment that is to be answered; none for a reopening."""
    newest = messages(case)[-1:]
    return newest[0] if newest and newest[0].key == _words(case)[-1] else None


def _words(case: Case) -> list[tuple[str, str]]:
    """When the customer asked, oldest first: by a message, or by reopening the ticket without one."""
    turn = reopened(case)
    return sorted([c.key for c in messages(case)] + ([] if turn is None else [(turn.version, "reopened")]))


def gone(case: Case) -> Gone | None:
    """Why the ticket cannot be answered any more."""
    match case.value("gone"):
        case "merged" | "spam" | "deleted" as why:
            return why
        case _:
            pass
    match case.value("status"):
        case "closed" | "deleted" as end:
            return end
        case _:
            return None


def awaits_answer(case: Case) -> bool:
    """Whether the customer had the last word and the case can still be answered."""
    now = basis(case)
    if now is None or gone(case) is not None:
        return False
    if any(basis_of(*c.key) > now for c in answers(case)[-1:]):
        return False
    solved = case.said("status")[-1].version if case.value("status") == "solved" else ""
    return solved <= now.split("|")[0]  # solved later, and silently: somebody dealt with it


def asked_at(case: Case) -> datetime:
    """When the customer asked; when the case began, while nobody did. A ticket that came back is as old as before."""
    words = _words(case)
    return datetime.fromisoformat(words[-1][0]) if words else opened_at(case)


def opened_at(case: Case) -> datetime:
    """When the ticket was made, or, until that was told, its oldest change.

    A ticket known by hints alone may be of any age, and counts as older than every other: it is left alone outside.
    """
    if not case.sayings and not case.comments:
        return AGES_AGO
    return datetime.fromisoformat(case.text("created_at") or case.first_at)


def replied(case: Case) -> bool:
    """Whether anybody has answered publicly. What staff wrote before the customer said a word answers nothing."""
    spoken = messages(case)
    return bool(spoken) and any(c.key > spoken[0].key for c in answers(case))


def is_open(case: Case) -> bool:
    """Whether the ticket still asks for work."""
    return gone(case) is None and case.value("status") not in _RESTING


def party(case: Case) -> str | None:
    """The requester's id."""
    return case.text("requester_id")


def stamp(case: Case) -> str | None:
    """The raw `updated_at` as last seen; none where only a read can tell what was said up to then.

    An update makes several events. What is younger than the question may be known by one of them, a status, while the
    public answer beside it comes later, or never.
    """
    said = case.said("updated_at")
    now = basis(case)
    if not said or now is None:
        return case.text("updated_at")
    at = said[-1].version
    heard_whole = at <= now.split("|")[0] or (case.read_at is not None and _tells(case.read_at, said))
    return case.text("updated_at") if heard_whole else None


def _tells(read_at: str, said: Sequence[Saying]) -> bool:
    """Whether a read tells all of a stamp: until a second is over, more is written under it."""
    told_until = version_of(datetime.fromisoformat(read_at) - timedelta(seconds=1))
    return said[-1].version <= told_until and all(saying.received <= read_at for saying in said)


def needs_reading(case: Case) -> bool:
    """A hint, a tie, a missing text, an unnamed author, an unexplained reopening or return that no read has covered."""
    open_questions = [case.hinted_at or ""]
    for field in {name for saying in case.sayings for name in saying.values} if len(case.sayings) > 1 else ():
        said = case.said(field)
        if len({canonical(saying.values[field]) for saying in said}) > 1:
            open_questions += [saying.received for saying in said if saying.audit == 0]
    open_questions += [comment.received for comment in case.comments if comment.public is None]
    for comment in unanswered(case):
        if comment.text is None or speaker(case, comment) == "unknown":
            open_questions.append(comment.received)
    if (turn := reopened(case)) is not None and asked(case) is None:
        open_questions.append(turn.received)
    if (back := restored(case)) is not None:  # an answer may have reached it just before it went
        open_questions.append(back.received)
    return max(open_questions) > (case.read_at or "")


def reveal(case: Case, unseal: Callable[[str], str]) -> Case:
    """The same case with its texts in clear. Raises what `unseal` raises."""
    sayings = tuple(
        saying.model_copy(update={"values": {**saying.values, "subject": unseal(str(saying.values["subject"]))}})
        if "subject" in saying.values
        else saying
        for saying in case.sayings
    )
    comments = tuple(c if c.text is None else c.model_copy(update={"text": unseal(c.text)}) for c in case.comments)
    return case.model_copy(update={"sayings": sayings, "comments": comments})


def _alone(change: CaseChanged) -> Case:
    received = version_of(change.received_at)
    first_at = version_of(change.occurred_at)
    if change.hint or change.kind == "trigger":  # its fields may be older than it looks: only a read is believed
        return Case(door=change.door, object_id=change.object_id, first_at=first_at, hinted_at=received)
    audit = change.update_id is not None and change.update_id.startswith("audit:")
    number = (change.update_id or "").removeprefix("audit:")
    values = {name: _plain(name, value) for name, value in change.fields.items() if name in _FIELDS}
    if "created_at" in values:
        values["created_at"] = _moment(values["created_at"])
    if change.kind in _GONE:
        values["gone"] = _GONE[change.kind]
    if "subject" in change.texts:
        values["subject"] = change.texts["subject"]
    at: dict[str, Any] = {
        "version": change.version,
        "audit": int(number) if audit and number.isdecimal() else int(audit),
        "position": change.position,
        "identity": change.identity,
        "received": received,
    }
    saying = Saying(**at, update=change.update_id or change.identity, values=dict(sorted(values.items())))
    status = values.get("status") if change.kind in ("created", "status_changed") else None
    comment = _comment_of(change, received)
    return Case(
        door=change.door,
        object_id=change.object_id,
        sayings=(saying,) if values else (),
        comments=() if comment is None else (comment,),
        statuses=(Turn(**at, status=status, author=change.author),) if isinstance(status, str) else (),
        first_at=first_at,
        read_at=received if audit and not change.late else None,  # late intake tells one update, not the whole
    )


def _comment_of(change: CaseChanged, received: str) -> Comment | None:
    fields = change.fields
    name = _plain("comment_id", fields.get("comment_id"))
    if name is None and change.kind == "created":
        name = "description"
    if name is None or change.kind not in ("created", "comment_added"):
        return None
    created = fields.get("comment_created_at") or (fields.get("created_at") if change.kind == "created" else None)
    public = fields.get("comment_public", fields.get("is_public") if change.kind == "created" else None)
    staff = fields.get("author_is_staff")
    author_id = _plain("author_id", fields.get("author_id"))
    return Comment(
        id=str(name),
        at=_moment(created) or change.version,
        public=public if isinstance(public, bool) else None,
        author=change.author,
        author_id=None if author_id is None else str(author_id),
        is_staff=staff if isinstance(staff, bool) else None,
        text=change.texts.get("body"),
        received=received,
    )


def _moment(told: FieldValue) -> str | None:
    """A time as a version; none where it is no time, or none of the calendar in UTC. Without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(str(told))
        return version_of(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def _plain(name: str, value: FieldValue) -> FieldValue:
    """One spelling for what the source spells in several: ids as text, nothing as none, tags as a sorted set."""
    if isinstance(value, tuple):
        return tuple(sorted(set(value)))
    if value is None or value == "" or isinstance(value, bool):
        return None if value == "" else value
    text = str(value)
    return text.lower() if name in _WORDS else text
