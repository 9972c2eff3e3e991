"""The simulated world over HTTP: Zendesk's API, Slack's webhook, the inbox for a newcomer, and the controls for a demo.

GET  /                                        the inbox
*    /api/v2/…                                Zendesk
POST /slack/{token}                           Slack
GET  /books.json /deliveries.json /slack.json /night.json /faults.json /healthz
POST /control/faults   {"down": "503", "percent": {"fail": 5}, "upcoming": ["late"], "late_seconds": 60, …}
POST /control/mischief {"copies_max": 3, "shuffled_percent": 10, …}
POST /control/night    {"tickets": 200, "seconds": 30}
"""

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from nightshift.world import inbox
from nightshift.world.api import Call, Cut
from nightshift.world.deliveries import Mischief
from nightshift.world.faults import Faults
from nightshift.world.guard import BodyTooLargeError, body_of, foreign
from nightshift.world.world import World


@dataclass(kw_only=True)
class _Night:
    __pydantic_config__ = ConfigDict(extra="forbid")

    tickets: Annotated[int, Field(gt=0)] = 200
    seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0


class CutConnection(Response):
    """The connection ends in the middle of the answer, as when a gateway gives up."""

    def __init__(self, hold_seconds: float) -> None:
        super().__init__()
        self._hold_seconds = hold_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's
        try:
            async with asyncio.timeout(self._hold_seconds):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})


@dataclass(frozen=True)
class _Endpoints:
    world: World
    slack_token: str

    async def zendesk(self, request: Request) -> Response:
        try:
            body = await body_of(request)
        except BodyTooLargeError:
            return _json({"error": "PayloadTooLarge"}, 413)
        outcome = self.world.api.answer(
            Call(
                method=request.method,
                path=request.url.path,
                query=dict(request.query_params),
                authorization=request.headers.get("authorization", ""),
                body=body,
            )
        )
        if isinstance(outcome, Cut):
            return CutConnection(outcome.hold_seconds)
        return _json(outcome.body, outcome.status, dict(outcome.headers))

    async def slack(self, request: Request) -> Response:
        if request.path_params["token"] != self.slack_token:
            return PlainTextResponse("no_service", 404)
        try:
            wrong = self.world.slack.post(orjson.loads(await body_of(request)), self.world.clock())
        except orjson.JSONDecodeError:
            wrong = "invalid_payload"
        except BodyTooLargeError:
            return PlainTextResponse("msg_too_long", 413)
        return PlainTextResponse(wrong or "ok", 400 if wrong else 200)

    async def control(self, request: Request) -> Response:
        if foreign(request):
            return _json({"error": "a page of another origin may not do this"}, 403)
        try:
            return _control(self.world, request.path_params["what"], await body_of(request) or b"{}")
        except BodyTooLargeError:
            return _json({"error": "the body is too large"}, 413)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)]
            return _json({"error": wrong}, 422)

    async def report(self, request: Request) -> Response:
        return _report(self.world, request.path_params["what"])

    async def health(self, _: Request) -> Response:
        return _json({"ok": True})


def build(world: World, *, slack_token: str = "demo", cases_url: str | None = None) -> Starlette:  # noqa: S107  # a part of a path, no secret
    """The application. It answers; `World.run` sends webhooks and does what is due."""
    ends = _Endpoints(world, slack_token)
    return Starlette(
        routes=[
            Route("/api/v2/{rest:path}", ends.zendesk, methods=["GET", "POST", "PUT", "DELETE"]),
            Route("/slack/{token}", ends.slack, methods=["POST"]),
            Route("/control/{what}", ends.control, methods=["POST"]),
            Route("/{what}.json", ends.report),
            Route("/healthz", ends.health),
            Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
            *inbox.routes(world, cases_url),
        ],
    )


def _report(world: World, what: str) -> Response:
    match what:
        case "books":
            return _json(world.books_json())
        case "night":
            return _json(world.night_json())
        case "faults":
            return _json(asdict(world.api.faults))
        case "slack":
            return _json({"messages": [asdict(message) for message in world.slack.messages]})
        case "deliveries":
            told = ("invocation_id", "event_id", "ticket_id", "kind", "attempts", "status", "done")
            rows = [{name: getattr(one, name) for name in told} for one in world.sender.deliveries.values()]
            dropped = [one._asdict() for one in world.sender.dropped]
            return _json({"counts": dict(world.sender.counts), "deliveries": rows, "dropped": dropped})
        case _:
            return _json({"error": "there is no such report"}, 404)


def _control(world: World, what: str, body: bytes) -> Response:
    """Raises ValidationError. Faults and mischief keep what the body does not name."""
    match what:
        case "faults":
            _change(world.api.faults, body)
            return _json(asdict(world.api.faults))
        case "mischief":
            _change(world.sender.mischief, body)
            return _json(asdict(world.sender.mischief))
        case "night":
            order = TypeAdapter(_Night).validate_json(body)
            started = world.start_night(tickets=order.tickets, seconds=order.seconds)
            return _json(world.night_json(), 202 if started else 409)
        case _:
            return _json({"error": "there is no such control"}, 404)


def _change(target: Faults | Mischief, body: bytes) -> None:
    changed = TypeAdapter(type(target)).validate_json(body)
    for name in TypeAdapter(dict[str, object]).validate_json(body):
        setattr(target, name, getattr(changed, name))


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
