"""The shapes that Zendesk sends, by webhook and by API, reduced to words of ours: ids as text, empty as ""."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from html.parser import HTMLParser
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
    return at if at.tzinfo else at.replace(tzinfo=UTC)


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
_SILENT = frozenset({"script", "style", "head"})


def readable(body: str) -> str:
    """What a person would read: HTML reduced to text, card numbers masked."""
    if "<" in body and _TAG.search(body):
        reader = _Reader()
        reader.feed(body)
        reader.close()
        body = reader.text()
    return cards.mask(body)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._silent: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # HTMLParser's
        if tag in _SILENT:
            self._silent = tag
        elif tag in _BLOCKS:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = None
        elif tag in _BLOCKS:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._silent is None:
            self._parts.append(data)

    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._parts).splitlines())
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
