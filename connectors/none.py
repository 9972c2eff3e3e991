"""An outside world in memory: every side of a connector, so that a process runs with no outside at all.

As a door it takes a `PlainChange` written as JSON; as a source, a query is a JSON array of rows; as a destination it
keeps what was sent, where a test can read it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

import orjson
from pydantic import TypeAdapter, ValidationError

from connectors.protocol import Acknowledged, Page, Part, PlainChange, Update, Written
from connectors.queries import ROWS_MAX, InvalidQueryError, known
from contracts.base import Json
from contracts.basis import version_of
from contracts.decision import Request
from contracts.failures import ConflictError, PermanentError

PAGE_UPDATES_MAX = 100

_CHANGE = TypeAdapter(PlainChange)
_ROWS = TypeAdapter(list[Json])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One call that was carried out."""

    request: Request
    effect_key: str
    at: datetime


@dataclass(slots=True)
class _Object:
    stamp: str
    history: list[PlainChange] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)


class NoOutside:
    """Receives, Reads, Lists, LooksUp, Sends and ReadsBack. `sent` holds every call, oldest first."""

    def __init__(self, *, clock: Callable[[], datetime], queries: Mapping[str, str] | None = None) -> None:
        """Raises InvalidQueryError for a query that is no JSON array of objects."""
        self._clock = clock
        self._queries = {name: _rows(name, text) for name, text in (queries or {}).items()}
        self._objects: dict[str, _Object] = {}
        self._answers: dict[str, Acknowledged] = {}
        self._writes = 0
        self.sent: list[Sent] = []

    def put(self, change: PlainChange) -> None:
        """Somebody changed an object outside."""
        thing = self._objects.setdefault(change.object_id, _Object(change.version))
        thing.history.append(change)
        thing.stamp = max(thing.stamp, change.version)

    def remove(self, object_id: str) -> None:
        """Somebody deleted an object outside."""
        self._objects.pop(object_id, None)

    def delivery_id(self, headers: Mapping[str, str], body: bytes) -> str:
        return headers.get("webhook-id") or f"sha256:{sha256(body).hexdigest()}"

    def receive(self, payload: object, body: bytes, received_at: datetime) -> Sequence[PlainChange]:  # noqa: ARG002  # Receives
        """The change that the body is. Raises PermanentError("unreadable_body")."""
        try:
            return (_CHANGE.validate_python(payload),)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, e["loc"])) or "body" for e in error.errors(include_input=False)[:5])
            raise PermanentError("unreadable_body", f"no change: {places}") from None  # the cause quotes the body

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        thing = self._objects.get(object_id)
        return tuple(thing.history) if thing else ()

    async def list_updates(self, since: datetime, cursor: str | None) -> Page:
        """The cursor is the number of updates already listed. A change without an update's name is one by itself."""
        by_update: dict[tuple[datetime, str, str], list[Part]] = {}
        for thing in self._objects.values():
            for c in thing.history:
                if c.occurred_at >= since:
                    key = (c.occurred_at, c.object_id, c.update_id or c.identity)
                    comment_id = c.fields.get("comment_id")
                    part = Part(frozenset({c.kind}), None if comment_id is None else str(comment_id))
                    by_update.setdefault(key, []).append(part)
        updates = [
            Update(object_id=object_id, update_id=update_id, at=at, parts=tuple(by_update[at, object_id, update_id]))
            for at, object_id, update_id in sorted(by_update)
        ]
        start = int(cursor or 0)
        end = start + PAGE_UPDATES_MAX
        return Page(updates[start:end], str(min(end, len(updates))), end >= len(updates))

    async def look_up(self, query: str, params: Json) -> Sequence[Json]:
        """The rows that do not contradict the parameters. Raises PermanentError("unknown_query")."""
        known(query, self._queries)
        rows = self._queries[query]
        return [row for row in rows if all(row.get(name, value) == value for name, value in params.items())][:ROWS_MAX]

    async def send(self, request: Request, *, effect_key: str, stamp: str | None) -> Acknowledged:
        """Carry it out: a conditional request on the object's stamp alone, an idempotent one once, a blind one always.

        Raises ConflictError, PermanentError("gone") for a conditional request to an object that is not there.
        """
        if request.semantics == "idempotent" and effect_key in self._answers:
            return self._answers[effect_key]
        if request.semantics == "conditional" and stamp != await self.current_stamp(request.object_id):
            raise ConflictError(f"{request.object_id} changed in between")
        at = self._clock()
        self._writes += 1
        thing = self._objects.setdefault(request.object_id, _Object(version_of(at)))
        thing.stamp = f"{version_of(at)}#{self._writes:09}"
        answer = Acknowledged(reference=f"none-{self._writes}", at=at, stamp=thing.stamp)
        public = request.body.get("public") is not False
        thing.written.append(Written(reference=answer.reference, at=at, public=public, effect_key=effect_key))
        self._answers[effect_key] = answer
        self.sent.append(Sent(request=request, effect_key=effect_key, at=at))
        return answer

    async def current_stamp(self, object_id: str) -> str:
        if (thing := self._objects.get(object_id)) is None:
            raise PermanentError("gone", f"there is no object {object_id}")
        return thing.stamp

    async def written(self, object_id: str) -> Sequence[Written]:
        thing = self._objects.get(object_id)
        return tuple(thing.written) if thing else ()


def _rows(name: str, text: str) -> list[Json]:
    try:
        return _ROWS.validate_python(orjson.loads(text))
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise InvalidQueryError(name, "write a JSON array of objects") from error
