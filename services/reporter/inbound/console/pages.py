"""The console's pages. They pause a process, which must be quick; what else people order goes by the command line."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import get_args
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from services.reporter.domain.sentences import CODES, ORDERED, said_of
from services.reporter.domain.views import CaseState
from services.reporter.ports import Reads, Stops
from services.runtime.postgres import UNAVAILABLE

_HERE = Path(__file__).resolve().parent
REFRESH_SECONDS = 5
CASES_TONIGHT = 15
REASON_MAX = 200
FORM_BYTES_MAX = 4096
STATES = get_args(CaseState)

STATE_WORDS: Mapping[str, str] = {
    "seen": "seen",
    "working": "working",
    "acting": "sending",
    "approval": "needs approval",
    "held": "held",
    "refused": "refused",
    "ignored": "ignored",
    "answered": "answered",
    "done": "done",
    "skipped": "skipped",
    "dead_letter": "dead letter",
    "gone": "gone",
    "not_applicable": "not owed",
}
TONES: Mapping[str, str] = {
    **dict.fromkeys(("answered", "done", "met", "observed", "executed", "running", "complete"), "good"),
    **dict.fromkeys(("dead_letter", "breached", "dead", "failed", "person", "overdue", "paused", "missing"), "bad"),
    **dict.fromkeys(("approval", "held", "refused", "retry", "unknown", "backfilled", "skipped"), "warn"),
}


def console(reads: Reads, stops: Stops, *, tells: bool) -> FastAPI:
    """The pages, without any guard: `session.Guard` stands before them. `tells`: somebody is told of causes."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    page = _renderer()
    _let_pause(app, page, stops)

    @app.get("/")
    async def tonight() -> Response:
        status, cases = await reads.status(), await reads.cases(state=None, page=None)
        causes = await reads.causes()
        untold = next((cause for cause in causes if cause.failed), None)
        budgets = [cause for cause in causes if cause.kind == "budget"]
        return page(
            "tonight.html",
            tab="tonight",
            status=status,
            cases=cases.cases[:CASES_TONIGHT],
            untold=untold,
            budgets=budgets,
        )

    @app.get("/cases")
    async def cases(state: str | None = None, after: str | None = None) -> Response:
        wanted = state if state in STATES else None
        found = await reads.cases(state=wanted, page=after)
        return page("cases.html", tab="cases", page=found, state=wanted, states=STATES, first=after is None)

    @app.get("/cases/{case_id:path}")
    async def case(case_id: str) -> Response:
        timeline = await reads.timeline(case_id.replace("\0", ""))
        if not timeline.lines:
            raise HTTPException(404)
        return page("case.html", tab="cases", case_id=case_id, timeline=timeline)

    @app.get("/dead-letters")
    async def dead_letters() -> Response:
        rows, causes = await reads.dead_letters(), await reads.causes()
        return page("dead_letters.html", tab="dead-letters", rows=rows, causes=causes, tells=tells)

    @app.get("/approvals")
    async def approvals() -> Response:
        return page("approvals.html", tab="approvals", rows=await reads.approvals())

    @app.exception_handler(404)
    async def not_found(_: Request, __: Exception) -> Response:
        return page(
            "message.html",
            404,
            tab="",
            title="Nothing is recorded here",
            text="No event speaks of this address. A new case appears within seconds of its first webhook.",
        )

    async def away(_: Request, __: Exception) -> Response:
        text = "Postgres does not answer. Nothing is lost: this page tries again by itself."
        return page("message.html", 503, tab="", title="The reporter cannot read its tables now", text=text)

    for error in UNAVAILABLE:
        app.add_exception_handler(error, away)
    return app


def _let_pause(app: FastAPI, page: "_Renderer", stops: Stops) -> None:
    @app.get("/pause")
    async def ask(process: str) -> Response:
        return page("pause.html", tab="tonight", process=process, reason_max=REASON_MAX)

    @app.post("/pause")
    async def pause(request: Request) -> Response:
        if not _from_here(request):
            raise HTTPException(403)
        told = parse_qs((await request.body())[:FORM_BYTES_MAX].decode("utf-8", "replace"))
        process, reason = (told.get(name, [""])[0].replace("\0", "") for name in ("process", "reason"))
        if not await stops.pause(process, reason[:REASON_MAX]):
            title = "No such process runs"
            return page("message.html", 404, tab="", title=title, text="It is paused already, or there is none.")
        return Response(status_code=303, headers={"location": "/"})


def _from_here(request: Request) -> bool:
    """Whether a page of ours sent it: a cookie alone would come from any port of this host as well."""
    try:
        return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host", "?")
    except ValueError:  # it is no address at all
        return False


class _Renderer:
    def __init__(self, templates: Environment) -> None:
        self._templates = templates

    def __call__(self, template: str, status_code: int = 200, **values: object) -> Response:
        text = self._templates.get_template(template).render(**values)
        return HTMLResponse(text, status_code, {"retry-after": "5"} if status_code == 503 else None)  # noqa: PLR2004  # Service Unavailable


def _renderer() -> _Renderer:
    """Templates that escape whatever they are given: customers' words are text, never markup."""
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(refresh_seconds=REFRESH_SECONDS)
    templates.filters.update(
        case_url=lambda case_id: "/cases/" + quote(case_id, safe=":"),
        query=lambda values: urlencode({name: value for name, value in values.items() if value}),
        moment=_moment,
        clock=lambda at: f"{at:%H:%M:%S}",
        span=_span,
        money=_money,
        ms=lambda value: "–" if value is None else _span(value / 1000),  # noqa: RUF001  # a dash for "none"
        said=lambda code: CODES.get(code, ""),
        ordered=lambda state: ORDERED.get(state, ""),
        told=said_of,
        word=lambda state: STATE_WORDS.get(state, state.replace("_", " ")),
        tone=lambda state: TONES.get(state, "calm"),
    )
    return _Renderer(templates)


def _moment(at: datetime | None) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"  # noqa: RUF001  # as above


def _money(amount: Decimal | None) -> str:
    """Dollars: cents, and four digits below a cent."""
    if amount is None:
        return "–"  # noqa: RUF001  # as above
    return f"${amount:.4f}" if 0 < amount < Decimal("0.1") else f"${amount:.2f}"


def _span(seconds: float | None) -> str:
    """A length of time in its two largest units that say something."""
    if seconds is None:
        return "–"  # noqa: RUF001  # as above
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004  # below ten a tenth matters
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {below}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"
