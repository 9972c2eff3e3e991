import re
from collections.abc import AsyncIterator

import httpx
import pytest

from nightshift.world.app import build
from nightshift.world.model import AGENT_ID, Ticket
from nightshift.world.world import World
from tests.fakes.world import Clock, world as new_world

HOME = "http://testserver"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with httpx.AsyncClient() as client:
        yield new_world(Clock(), client)


@pytest.fixture
async def page(world: World) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build(world))
    async with httpx.AsyncClient(transport=transport, base_url=HOME, headers={"origin": HOME}) as client:
        yield client


@pytest.fixture
def ticket(world: World) -> Ticket:
    ann = world.zendesk.add_customer("Ann <i>", "ann@example.com")
    return world.zendesk.create(ann.id, "<script>alert(1)</script>", "</div><img src=x onerror=alert(1)>", tags=["<b>"])


async def test_everything_that_people_wrote_is_escaped(world: World, page: httpx.AsyncClient, ticket: Ticket) -> None:
    world.slack.post({"text": "<script>slack</script>"}, world.clock())

    shown = [(await page.get(path)).text for path in ("/", f"/tickets/{ticket.id}")]

    assert all("&lt;script&gt;alert(1)" in text for text in shown)
    assert not any(re.search(r"<script>|<img|<i><b>|Ann <i>", text) for text in shown)


async def test_pages_load_nothing_from_elsewhere(page: httpx.AsyncClient, ticket: Ticket) -> None:
    for path in ("/", f"/tickets/{ticket.id}", "/tickets/999"):
        answer = await page.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not re.findall(r'(?:src|href)="(?!/|#)[^"]', answer.text)
    for asset in ("/static/style.css", "/static/live.js"):
        assert (await page.get(asset)).status_code == 200


async def test_a_ticket_links_to_what_nightshift_says_of_it(world: World, ticket: Ticket) -> None:
    told = httpx.ASGITransport(build(world, cases_url="http://console/cases/support:zendesk:"))
    async with httpx.AsyncClient(transport=told, base_url=HOME) as client:
        shown = (await client.get(f"/tickets/{ticket.id}")).text

    assert f'href="http://console/cases/support:zendesk:{ticket.id}"' in shown


async def test_a_newcomer_writes_as_a_customer_and_answers_as_an_agent(world: World, page: httpx.AsyncClient) -> None:
    opened = await page.post("/new", data={"email": "eve@example.com", "subject": "Order", "body": "Where?"})
    at = opened.headers["location"]
    await page.post(f"{at}/customer", data={"body": "Hello?"})
    await page.post(f"{at}/agent", data={"body": "internal", "as": "internal"})
    await page.post(f"{at}/agent", data={"body": "Here.", "as": "public"})

    (ticket,) = world.zendesk.state.tickets.values()
    assert [(c.body, c.public) for c in ticket.comments] == [
        ("Where?", True),
        ("Hello?", True),
        ("internal", False),
        ("Here.", True),
    ]
    assert (await page.get(at)).text.count("internal note") == 1


@pytest.mark.parametrize(
    ("act", "status"),
    [("solve", "solved"), ("close", "closed"), ("assign", "open"), ("delete", "deleted"), ("spam", "spam")],
)
async def test_a_button_does_what_it_says(
    world: World, page: httpx.AsyncClient, ticket: Ticket, act: str, status: str
) -> None:
    answer = await page.post(f"/tickets/{ticket.id}/act", data={"act": act})

    assert answer.status_code == 303
    assert (ticket.gone or ticket.status) == status
    assert ticket.assignee_id == (AGENT_ID if act == "assign" else None)
    assert world.zendesk.changes > 0


async def test_tickets_are_merged_and_restored(world: World, page: httpx.AsyncClient, ticket: Ticket) -> None:
    other = world.zendesk.create(ticket.requester_id, "again", "again")

    await page.post(f"/tickets/{other.id}/act", data={"act": "merge", "into": str(ticket.id)})
    await page.post(f"/tickets/{ticket.id}/act", data={"act": "delete"})
    await page.post(f"/tickets/{ticket.id}/act", data={"act": "restore"})

    assert other.merged_into == ticket.id
    assert not ticket.gone


async def test_zendesk_is_cut_off_and_brought_back(world: World, page: httpx.AsyncClient) -> None:
    await page.post("/faults", data={"down": "503"})
    down = (await page.get("/")).text
    await page.post("/faults", data={"down": "up"})
    await page.post("/faults", data={"next": "late"})

    assert "Zendesk is down" in down
    assert (world.api.faults.down, world.api.faults.upcoming) == ("", ["late"])


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://evil.example", "host": "evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/new", "/faults", "/control/faults"])
async def test_a_page_of_another_origin_may_press_no_button(world: World, path: str, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build(world)), base_url=HOME) as stranger:
        answer = await stranger.post(
            path, data={"down": "503", "email": "a@b", "subject": "", "body": ""}, headers=headers
        )

    assert answer.status_code == 403
    assert not world.api.faults.down
    assert not world.zendesk.state.tickets


@pytest.mark.parametrize(
    "data", [{}, {"act": "explode"}, {"act": "merge", "into": "x"}, {"act": "merge", "into": "77"}]
)
async def test_a_form_that_makes_no_sense_is_refused(
    page: httpx.AsyncClient, ticket: Ticket, data: dict[str, str]
) -> None:
    assert (await page.post(f"/tickets/{ticket.id}/act", data=data)).status_code == 422


async def test_faults_and_mischief_are_set_by_json_and_unknown_words_refused(
    world: World, page: httpx.AsyncClient
) -> None:
    set_ = await page.post("/control/faults", json={"percent": {"fail": 5}, "late_seconds": 60})
    mischief = await page.post("/control/mischief", json={"copies_max": 3})
    wrong: tuple[object, ...] = ({"x": 1}, {"down": "maybe"}, {"upcoming": ["y"]}, [])
    refused = [(await page.post("/control/faults", json=body)).status_code for body in wrong]

    assert (set_.json()["percent"], mischief.json()["copies_max"]) == ({"fail": 5.0}, 3)
    assert refused == [422] * 4
    assert world.api.faults.late_seconds == 60


async def test_slack_keeps_messages_for_those_who_know_the_path(page: httpx.AsyncClient) -> None:
    told = await page.post("/slack/demo", json={"text": "held"})
    wrong = [(await page.post("/slack/demo", content=body)).status_code for body in (b"{", b"[]", b'{"text": ""}')]
    stranger = await page.post("/slack/other", json={"text": "x"})

    assert (told.text, wrong, stranger.status_code) == ("ok", [400, 400, 400], 404)
    assert [m["text"] for m in (await page.get("/slack.json")).json()["messages"]] == ["held"]


@pytest.mark.parametrize("report", ["books", "night", "faults", "slack", "deliveries"])
async def test_every_report_is_json(page: httpx.AsyncClient, ticket: Ticket, report: str) -> None:
    assert (await page.get(f"/{report}.json")).status_code == 200
    assert ticket.id


async def test_a_night_is_not_started_where_nothing_runs(page: httpx.AsyncClient) -> None:
    assert (await page.post("/control/night", json={"tickets": 5, "seconds": 0})).status_code == 409
