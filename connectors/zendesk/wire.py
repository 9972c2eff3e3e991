"""The shapes that Zendesk sends, by webhook and by API, reduced to words of ours: ids as text, empty as ""."""

import html
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from connectors import cards
from contracts.base import Json
from contracts.events.cases import Author, FieldValue

DESCRIPTION = "description"
"""The name of a ticket's first comment, by whichever way it is learnt."""
SYSTEM_USER = "-1"
"""Zendesk's own automations."""
ID_DIGITS_MAX = 20


def _as_text(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _as_word(value: object) -> object:
    text = _as_text(value)
    return text.lower().strip() if isinstance(text, str) else text


def clean(text: str) -> str:
    """Without NUL and half characters, which databases refuse."""
    if text.isascii() and "\0" not in text:  # nearly always, and twenty times a webhook
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode()


Text = Annotated[str, BeforeValidator(_as_text)]
Word = Annotated[str, BeforeValidator(_as_word)]
Id = Annotated[Text, StringConstraints(pattern=rf"^[0-9]{{1,{ID_DIGITS_MAX}}}$")]


class Wire(BaseModel):
    """Something of Zendesk's. What we do not know is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Via(Wire):
    """The way something came in."""

    channel: Word = ""


class Ticket(Wire):
    """A ticket of the API, or the `detail` of an event: the state after the change."""

    id: Id
    actor_id: Text = ""
    subject: Text = ""
    description: Text = ""
    status: Word = ""
    priority: Word = ""
    assignee_id: Text = ""
    group_id: Text = ""
    requester_id: Text = ""
    submitter_id: Text = ""
    brand_id: Text = ""
    organization_id: Text = ""
    tags: tuple[Text, ...] = ()
    via: Via = Via()
    is_public: bool | None = None
    created_at: Text = ""
    updated_at: Text = ""

    def fields(self) -> dict[str, FieldValue]:
        """The state as a change carries it: only what was sent."""
        found: dict[str, FieldValue] = {name: getattr(self, name) for name in _FIELDS if name in self.model_fields_set}
        if "via" in self.model_fields_set:
            found["channel"] = self.via.channel
        return found


class UnusualError(Exception):
    """A value that the models must judge."""


def plain_text(value: object) -> str:
    """What `Text` makes of what a sender usually sends. Raises UnusualError for anything else."""
    if type(value) is str:
        return value if value.isascii() and "\0" not in value else clean(value)
    if value is None:
        return ""
    if type(value) is int:
        return str(value)
    raise UnusualError


def plain_id(value: object) -> str:
    """What `Id` makes of a usual value. Raises UnusualError."""
    text = plain_text(value)
    if text.isascii() and text.isdecimal() and len(text) <= ID_DIGITS_MAX:
        return text
    raise UnusualError


def plain_truth(value: object) -> bool | None:
    """Raises UnusualError for all but true, false and null: the models know more words for them."""
    if value is True or value is False or value is None:
        return value
    raise UnusualError


def _plain_word(value: object) -> str:
    return plain_text(value).lower().strip()


def _plain_tags(value: object) -> tuple[str, ...]:
    if type(value) is not list:
        raise UnusualError
    return tuple(map(plain_text, value))


_FIELDS: Mapping[str, Callable[[object], FieldValue]] = {
    "status": _plain_word,
    "priority": _plain_word,
    "assignee_id": plain_text,
    "group_id": plain_text,
    "requester_id": plain_text,
    "brand_id": plain_text,
    "organization_id": plain_text,
    "tags": _plain_tags,
    "is_public": plain_truth,
    "created_at": plain_text,
    "updated_at": plain_text,
}


def plain_fields(detail: Mapping[str, Any]) -> dict[str, FieldValue]:
    """`Ticket.fields` of a usual `detail`. Raises UnusualError, AttributeError, TypeError."""
    found = {name: read(detail[name]) for name, read in _FIELDS.items() if name in detail}
    if "via" in detail:
        found["channel"] = _plain_word(detail["via"].get("channel"))
    return found


class Metadata(Wire):
    """What was said about an update by whoever made it."""

    custom: Json = Field(default_factory=dict)


class AuditEvent(Wire):
    """A part of an audit: a comment, or a field that was set or changed."""

    id: Id
    type: str
    author_id: Text = ""
    public: bool = True
    body: Text = ""
    field_name: Text = ""
    value: object = None
    previous_value: object = None


class Audit(Wire):
    """One update of a ticket."""

    id: Id
    author_id: Text
    created_at: Text
    via: Via = Via()
    metadata: Metadata | None = None
    events: tuple[AuditEvent, ...] = ()

    @property
    def custom(self) -> Json:
        """What the writer of the update said about it."""
        return self.metadata.custom if self.metadata else {}


class User(Wire):
    """Somebody: `end-user`, `agent` or `admin`."""

    id: Id
    role: Word = ""


@lru_cache(maxsize=4096)
def moment(stamp: str) -> datetime:
    """Zendesk's RFC 3339 stamp, of one second mostly: many webhooks say the same. Raises ValueError."""
    at = datetime.fromisoformat(stamp)
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError("no time of the calendar in UTC") from error


def author_of(user_id: str, *, ours: str, requester: str, staff: bool | None) -> Author:
    """Who `user_id` is; `staff` is none where nobody said."""
    if user_id and user_id == ours:
        return "ours"
    if user_id == SYSTEM_USER:
        return "system"
    if staff is not None:
        return "staff" if staff else "customer"
    if user_id and user_id == requester:
        return "customer"
    return "unknown"


_TAG = re.compile(
    r"</?(?:html|body|head|div|p|br|hr|span|a|b|i|u|em|strong|font|table|tbody|tr|td|th|ul|ol|li|h[1-6]|img|script|style"
    r"|blockquote|pre)\b[^<>]{0,2000}>",
    re.IGNORECASE,
)
_BLOCKS = frozenset({"p", "div", "br", "hr", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre"})
_MARK = re.compile(r"<!--|<(/?[a-z][a-z0-9]*)[^<>]*>|<[!?/][^<>]*>", re.IGNORECASE)
_SILENT_UNTIL = {
    "<!--": re.compile("-->"),
    **{tag: re.compile(rf"</{tag}\b[^<>]*>", re.IGNORECASE) for tag in ("script", "style", "head")},
}
_NO_CHARACTER = re.compile(r"&#(?=x?[0-9a-f]{9})", re.IGNORECASE)
"""A number that is longer than any character's, and that Python may refuse to read."""


def readable(body: str) -> str:
    """What a person would read: HTML reduced to text, card numbers masked. In a time that grows with the length alone.

    Whatever it is: customers write it, and it is read while webhooks wait. The standard library's parser takes the
    square of the length for what is never closed, and refuses declarations that mail programs write.
    """
    if "<" in body and _TAG.search(body):
        lines = (" ".join(line.split()) for line in _text_of(body).splitlines())
        body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return cards.mask(body)


def _text_of(body: str) -> str:
    """What is never closed hides nothing."""
    parts: list[str] = []
    endless: set[str] = set()
    at = 0
    while (mark := _MARK.search(body, at)) is not None:
        parts.append(body[at : mark.start()])
        at = mark.end()
        name = (mark[1] or mark[0]).lower()
        if name.removeprefix("/") in _BLOCKS:
            parts.append("\n")
        if name in _SILENT_UNTIL and name not in endless:
            if (end := _SILENT_UNTIL[name].search(body, at)) is None:
                endless.add(name)
            else:
                at = end.end()
    parts.append(body[at:])
    return html.unescape(_NO_CHARACTER.sub("&amp;#", "".join(parts)))
