"""Zendesk's API: one ticket read, listed, written and read back."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import httpx
from pydantic import JsonValue, ValidationError

from connectors.http_failures import failure_of, http_date, sending, timeouts
from connectors.protocol import Acknowledged, Page, PlainChange, Written
from connectors.zendesk import audits as history, webhooks
from connectors.zendesk.updates import TicketEvents, update_of
from connectors.zendesk.wire import Audit, Ticket, UnusualError, User, Wire, moment
from contracts import basis
from contracts.decision import Request
from contracts.failures import OutcomeUnknownError, PermanentError

PAGE_ROWS = 100
LIST_ROWS = 250
"""A page of it is parsed in some milliseconds, in which no webhook is answered."""
HISTORY_PAGES_MAX = 30
"""3,000 updates of one ticket; a longer history is a duel of machines, and a person's."""
STAMP_SECONDS = 1.0
"""The resolution of `updated_at`: updates of one second have one stamp."""
_NOT_FOUND = 404
_ME = "/users/me.json"


M = TypeVar("M", bound=Wire)


class _One(Wire):
    ticket: Ticket


class _Updated(Wire):
    ticket: Ticket
    audit: Audit | None = None


class _Meta(Wire):
    has_more: bool = False
    after_cursor: str | None = None


class _Audits(Wire):
    audits: tuple[Audit, ...]
    users: tuple[User, ...] = ()
    meta: _Meta = _Meta()


class _Me(Wire):
    user: User


class Zendesk:
    """A Zendesk account, spoken to as one user that nobody else uses."""

    def __init__(
        self,
        *,
        base_url: str,
        email: str,
        token: str,
        our_user_id: str,
        client: httpx.AsyncClient,
        timeout_seconds: float = 10.0,
    ) -> None:
        """`base_url` is `https://<account>.zendesk.com`. The caller closes `client`."""
        self._api = base_url.rstrip("/") + "/api/v2"
        self._auth = httpx.BasicAuth(f"{email}/token", token)
        self._ours = our_user_id
        self._client = client
        self._timeout_seconds = timeout_seconds

    def delivery_id(self, headers: Mapping[str, str], body: bytes) -> str:
        """See `webhooks.delivery_id`."""
        return webhooks.delivery_id(headers, body)

    def receive(self, payload: object, body: bytes, received_at: datetime) -> Sequence[PlainChange]:
        """See `webhooks.changes_in`."""
        return webhooks.changes_in(payload, body, received_at, our_user_id=self._ours)

    async def user_id(self) -> str:
        """The id of the user that these credentials belong to."""
        return _parsed(_Me, await self._get(_ME)).user.id

    async def read(self, object_id: str) -> Sequence[PlainChange]:
        """The whole history, and last the state (kind `read`).

        A ticket that is gone (404) gives one `soft_deleted`, dated by the other side's clock.
        """
        response = await self._response("GET", f"/tickets/{object_id}.json")
        if response.status_code == _NOT_FOUND:
            return _gone(object_id, response)
        await self._check_about(object_id, response)
        ticket = _parsed(_One, response).ticket
        audits, users = await self._audits(object_id)
        try:
            return history.changes_of(ticket, audits, users, our_user_id=self._ours)
        except ValueError as error:
            raise _unreadable("a time is malformed") from error

    async def list_updates(self, since: datetime, cursor: str | None) -> Page:
        """Audits of all tickets, deleted ones too, but those of the last minute. Our user must be an admin for it.

        Comments are asked for whole, since only then they have ids; their texts are dropped.
        """
        start = int(cursor or since.timestamp())
        query = {"start_time": str(start), "per_page": str(LIST_ROWS), "include": "comment_events"}
        page = _parsed(TicketEvents, await self._get("/incremental/ticket_events.json", query))
        try:
            updates = [update_of(event) for event in page.ticket_events]
        except (ValueError, UnusualError) as error:
            raise _unreadable("a time or an id is malformed") from error
        if not page.end_of_stream and page.end_time is None:
            raise _unreadable("the list goes on nowhere")
        # A page holds the whole of its last second, however much that is: a page of one second is followed by the next.
        return Page(updates, str(max(page.end_time or 0, start + 1)), end=page.end_of_stream)

    async def send(self, request: Request, *, effect_key: str, stamp: str | None) -> Acknowledged:
        """One PUT of `request.body["ticket"]`, with the effect's key in its metadata.

        A conditional request needs a stamp and fails with ConflictError where the ticket changed since. A ticket that
        was closed meanwhile (merged, archived) can never be written again: PermanentError("closed").
        """
        ticket = request.body.get("ticket")
        if not isinstance(ticket, dict):
            raise PermanentError("malformed", "a request to Zendesk needs a ticket in its body")
        metadata = ticket.get("metadata")
        told = metadata if isinstance(metadata, dict) else {}
        body: dict[str, JsonValue] = {**ticket, "metadata": {**told, history.EFFECT_KEY: effect_key}}
        if request.semantics == "conditional":
            if stamp is None:
                raise PermanentError("malformed", "a conditional request to Zendesk needs a stamp")
            body |= {"safe_update": True, "updated_stamp": stamp}
        response = await self._response("PUT", f"/tickets/{request.object_id}.json", json={"ticket": body})
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY and await self._is_closed(request.object_id):
            raise PermanentError("closed", "Zendesk answered 422: the ticket is closed")
        await self._check_about(request.object_id, response)
        try:
            done = _Updated.model_validate_json(response.content)
            reference = history.reference_of(done.audit) if done.audit else f"ticket:{done.ticket.updated_at}"
            at = moment(done.audit.created_at if done.audit else done.ticket.updated_at)
        except ValueError as error:
            raise OutcomeUnknownError(
                "unreadable_answer", "Zendesk answered yes with a body that says nothing"
            ) from error
        return Acknowledged(reference=reference, at=at, stamp=done.ticket.updated_at)

    async def current_stamp(self, object_id: str) -> str:
        """The ticket's `updated_at`, as Zendesk writes it. Raises PermanentError("gone").

        Answers when that second is over there: what else was written within it, a later read finds.
        """
        response = await self._response("GET", f"/tickets/{object_id}.json")
        await self._check_about(object_id, response)
        stamp = _parsed(_One, response).ticket.updated_at
        if _may_be_of_now(stamp, response):
            await asyncio.sleep(STAMP_SECONDS)
        return stamp

    async def written(self, object_id: str) -> Sequence[Written]:
        """The audits that our user wrote, oldest first. Raises PermanentError("gone")."""
        audits, _ = await self._audits(object_id)
        try:
            return history.written_by(audits, self._ours)
        except ValueError as error:
            raise _unreadable("a time is malformed") from error

    async def _is_closed(self, object_id: str) -> bool:
        return _parsed(_One, await self._get(f"/tickets/{object_id}.json")).ticket.status.lower() == "closed"

    async def _audits(self, object_id: str) -> tuple[list[Audit], list[User]]:
        audits: list[Audit] = []
        users: list[User] = []
        params = {"page[size]": str(PAGE_ROWS), "include": "users"}
        for _ in range(HISTORY_PAGES_MAX):
            response = await self._response("GET", f"/tickets/{object_id}/audits.json", params=params)
            await self._check_about(object_id, response)
            page = _parsed(_Audits, response)
            audits += page.audits
            users += page.users
            if not page.meta.has_more or page.meta.after_cursor is None:
                return sorted(audits, key=lambda audit: int(audit.id)), users
            params["page[after]"] = page.meta.after_cursor
        raise PermanentError("history_too_long", f"the ticket has more than {HISTORY_PAGES_MAX * PAGE_ROWS} updates")

    async def _check_about(self, object_id: str, response: httpx.Response) -> None:
        """Like `_check`. A 403 is about one ticket where our user is known and may not even see it.

        Such a user is restricted to groups, brands or organisations, and the ticket lies outside of them: waiting
        mends nothing. Where the ticket can be read, or nothing can, what is missing is a right or the credentials.
        """
        if response.status_code == httpx.codes.FORBIDDEN:
            ticket = await self._response("GET", f"/tickets/{object_id}.json")
            if ticket.status_code == httpx.codes.FORBIDDEN and _is_staff(await self._response("GET", _ME)):
                raise PermanentError("forbidden", "Zendesk answered 403: our user may not see this ticket")
        _check(response)

    async def _get(self, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        response = await self._response("GET", path, params=params)
        _check(response)
        return response

    async def _response(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, JsonValue] | None = None,
    ) -> httpx.Response:
        limits = timeouts(self._timeout_seconds)
        with sending("Zendesk", method != "GET"):
            async with asyncio.timeout(self._timeout_seconds):
                return await self._client.request(
                    method, self._api + path, params=params, json=json, auth=self._auth, timeout=limits
                )


def _check(response: httpx.Response) -> None:
    if failure := failure_of(response, what="Zendesk"):
        raise failure


def _parsed(model: type[M], response: httpx.Response) -> M:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) for e in error.errors(include_input=False)[:5])
        raise _unreadable(places) from error


def _is_staff(response: httpx.Response) -> bool:
    """Whether this answer names an agent. To nobody, and to one who is no agent any more, Zendesk says `end-user`."""
    try:
        return response.is_success and _Me.model_validate_json(response.content).user.role in {"agent", "admin"}
    except ValidationError:
        return False


def _may_be_of_now(stamp: str, response: httpx.Response) -> bool:
    """Whether more may be written under a stamp, by the clock of the answer that told it."""
    answered_at = http_date(response.headers.get("date", ""))
    try:
        return answered_at is not None and answered_at <= moment(stamp)
    except ValueError:
        return False


def _unreadable(what: str) -> PermanentError:
    return PermanentError("unreadable_answer", f"Zendesk's answer cannot be understood: {what}")


def _gone(object_id: str, response: httpx.Response) -> tuple[PlainChange, ...]:
    at = http_date(response.headers.get("date", ""))
    if at is None:
        return ()
    return (
        PlainChange(
            object_id=object_id,
            kind="soft_deleted",
            identity=f"gone:{object_id}:{at.astimezone(UTC):%Y%m%dT%H%M%SZ}",
            version=basis.version_of(at),
            update_id="audit:gone",
            author="system",
            occurred_at=at,
        ),
    )
