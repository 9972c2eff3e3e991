"""The inbox: a newcomer writes as a customer, answers as an agent, breaks Zendesk, and watches what happens."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from itertools import islice
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from nightshift.world.deliveries import Mischief
from nightshift.world.faults import Down, Fault
from nightshift.world.guard import BodyTooLargeError, foreign, form_of
from nightshift.world.model import AGENT_ID, GROUPS, OUR_USER_ID, Comment, Ticket
from nightshift.world.shop import customers_of
from nightshift.world.update import RefusedError
from nightshift.world.world import World

ROWS_MAX = 200
TEXT_MAX = 65_000
_SHOP_CUSTOMERS_SHOWN = 12
_CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
)
_DOWN: Mapping[str, Down] = {"up": "", "503": "503", "cut": "cut"}
_NEXT: tuple[tuple[Fault, str], ...] = (
    ("effect_then_500", "do the next write, but answer 500"),
    ("effect_then_cut", "do the next write, but cut the connection"),
    ("no_effect", "say yes to the next write, but do nothing"),
    ("late", "do the next write a minute late"),
    ("rate_limited", "answer the next write 429"),
)

Form = Mapping[str, str]
Act = Callable[[World, Form, Request], str]
"""Does what a form asks and names the page to show next."""


def routes(world: World, cases_url: str | None) -> list[BaseRoute]:
    """The pages and the forms' targets. A ticket's page links to `cases_url` with its id behind."""

    def page(render: Callable[[World, Request], str]) -> Callable[[Request], Awaitable[Response]]:
        @wraps(render)
        async def shown(request: Request) -> Response:
            try:
                return _html(render(world, request))
            except RefusedError:
                return _html(_PAGES.get_template("missing.html").render(world=_bar(world)), 404)

        return shown

    def form(act: Act) -> Callable[[Request], Awaitable[Response]]:
        @wraps(act)
        async def done(request: Request) -> Response:
            if foreign(request):
                return PlainTextResponse("A page of another origin may not do this.", 403)
            try:
                return RedirectResponse(act(world, await form_of(request), request), 303)
            except BodyTooLargeError:
                return PlainTextResponse("That is too long.", 413)
            except (RefusedError, KeyError, ValueError) as error:
                why = error.body["description"] if isinstance(error, RefusedError) else "the form is not complete"
                return PlainTextResponse(f"Zendesk refuses: {why}. Go back and try again.", 422)

        return done

    return [
        Route("/", page(_list)),
        Route("/tickets/{id:int}", page(partial(_ticket, cases_url))),
        Route("/new", form(_new), methods=["POST"]),
        Route("/faults", form(_faults), methods=["POST"]),
        Route("/tickets/{id:int}/customer", form(_customer), methods=["POST"]),
        Route("/tickets/{id:int}/agent", form(_agent), methods=["POST"]),
        Route("/tickets/{id:int}/act", form(_act), methods=["POST"]),
    ]


def _html(content: str, status: int = 200) -> Response:
    headers = {
        "content-security-policy": _CSP,
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
    }
    return HTMLResponse(content, status, headers)


def _bar(world: World) -> Mapping[str, object]:
    faults = world.api.faults
    return {
        "down": faults.down,
        "upcoming": [words for fault, words in _NEXT if fault in faults.upcoming],
        "progress": world.progress,
        "pending": len(world.sender.pending),
    }


def _list(world: World, request: Request) -> str:
    state = world.zendesk.state
    wanted = request.query_params.get("show", "all")
    tickets = (ticket for ticket in reversed(state.tickets.values()) if _shown(ticket, wanted))
    rows = [_row(world, ticket) for ticket in islice(tickets, ROWS_MAX)]
    customers = customers_of(_SHOP_CUSTOMERS_SHOWN, world.seed)
    return _PAGES.get_template("inbox.html").render(
        world=_bar(world),
        rows=rows,
        total=len(state.tickets),
        wanted=wanted,
        customers=customers,
        messages=list(reversed(world.slack.messages))[:20],
        next_faults=_NEXT,
        mischief=world.sender.mischief,
    )


def _shown(ticket: Ticket, wanted: str) -> bool:
    last = ticket.comments[-1].author_id
    match wanted:
        case "waiting":
            return not ticket.gone and last not in {OUR_USER_ID, AGENT_ID}
        case "nightshift":
            return any(comment.author_id == OUR_USER_ID for comment in ticket.comments)
        case _:
            return True


def _row(world: World, ticket: Ticket) -> Mapping[str, object]:
    last = ticket.comments[-1]
    return {
        "id": ticket.id,
        "subject": ticket.subject or "(no subject)",
        "status": ticket.gone or ticket.status,
        "requester": world.zendesk.state.users[ticket.requester_id].name,
        "last": _who(world, last.author_id, public=last.public),
        "said": last.body[:140],
        "tags": ticket.tags,
        "updated": ticket.updated_at,
        "comments": len(ticket.comments),
    }


def _ticket(cases_url: str | None, world: World, request: Request) -> str:
    state = world.zendesk.state
    ticket = state.tickets.get(request.path_params["id"])
    if ticket is None:
        raise RefusedError(404, "RecordNotFound", "Not found")
    return _PAGES.get_template("ticket.html").render(
        world=_bar(world),
        ticket=ticket,
        status=ticket.gone or ticket.status,
        requester=state.users[ticket.requester_id],
        assignee=state.users.get(ticket.assignee_id or 0),
        group=GROUPS.get(ticket.group_id or 0, ticket.group_id),
        comments=[_said(world, comment) for comment in ticket.comments],
        case_url=cases_url and f"{cases_url}{ticket.id}",
        alive=not ticket.gone and ticket.status != "closed",
    )


def _said(world: World, comment: Comment) -> Mapping[str, object]:
    return {
        "id": comment.id,
        "who": _who(world, comment.author_id, public=comment.public),
        "name": world.zendesk.state.users[comment.author_id].name,
        "public": comment.public,
        "body": comment.body if len(comment.body) <= 4000 else comment.body[:4000] + " …",  # noqa: PLR2004  # a screen
        "length": len(comment.body),
        "at": comment.created_at,
        "attachments": comment.attachments,
    }


def _who(world: World, author_id: int, *, public: bool) -> str:
    """`customer`, `agent`, `nightshift`, or the note of one of the latter two."""
    if author_id == OUR_USER_ID:
        return "nightshift" if public else "nightshift-note"
    if world.zendesk.state.users[author_id].is_staff:
        return "agent" if public else "agent-note"
    return "customer"


def _new(world: World, form: Form, _: Request) -> str:
    email = form["email"].strip()
    shop = {customer.email: customer for customer in customers_of(_SHOP_CUSTOMERS_SHOWN, world.seed)}
    if "@" not in email or len(email) > 200:  # noqa: PLR2004  # longer than any address
        raise ValueError(email)
    known = shop.get(email)
    user = world.zendesk.add_customer(
        known.name if known else email.partition("@")[0], email, user_id=known.id if known else None
    )
    ticket = world.zendesk.create(user.id, form["subject"][:500], _body(form), channel="email")
    return f"/tickets/{ticket.id}"


def _customer(world: World, form: Form, request: Request) -> str:
    ticket = world.zendesk.ticket(request.path_params["id"])
    ticket = world.zendesk.comment(ticket.id, ticket.requester_id, _body(form))
    return f"/tickets/{ticket.id}"


def _agent(world: World, form: Form, request: Request) -> str:
    world.zendesk.comment(request.path_params["id"], AGENT_ID, _body(form), public=form.get("as") == "public")
    return f"/tickets/{request.path_params['id']}"


def _body(form: Form) -> str:
    return form["body"].replace("\r\n", "\n")[:TEXT_MAX]


def _act(world: World, form: Form, request: Request) -> str:
    ticket_id: int = request.path_params["id"]
    zendesk = world.zendesk
    match form["act"]:
        case "solve":
            zendesk.update(ticket_id, {"status": "solved"}, actor_id=AGENT_ID, channel="web")
        case "close":
            zendesk.update(ticket_id, {"status": "closed"}, actor_id=AGENT_ID, channel="web")
        case "assign":
            zendesk.update(ticket_id, {"assignee_id": AGENT_ID}, actor_id=AGENT_ID, channel="web")
        case "release":
            zendesk.update(ticket_id, {"assignee_id": None}, actor_id=AGENT_ID, channel="web")
        case "delete":
            zendesk.remove(ticket_id)
        case "spam":
            zendesk.remove(ticket_id, spam=True)
        case "restore":
            zendesk.restore(ticket_id)
        case "merge":
            zendesk.merge(ticket_id, int(form["into"]))
            return f"/tickets/{int(form['into'])}"
        case other:
            raise ValueError(other)
    return f"/tickets/{ticket_id}"


def _faults(world: World, form: Form, _: Request) -> str:
    faults = world.api.faults
    if "down" in form:
        faults.down = _DOWN[form["down"]]
    if "next" in form:
        faults.upcoming += [fault for fault, _words in _NEXT if fault == form["next"]]
    if "mischief" in form:
        rough = Mischief(copies_max=3, shuffled_percent=10, forged_percent=2, stale_percent=2)
        world.sender.mischief = rough if form["mischief"] == "on" else Mischief()
    if "night" in form:
        world.start_night(tickets=20, seconds=20)
    return "/"
