"""What the reporter shows: to nobody without a session, nothing that runs, and the truth."""

import dataclasses
import itertools
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from contracts.base import Fact
from contracts.envelope import Event
from contracts.events import REGISTRY
from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.decisions import ApprovalRequested
from nightshift import orders
from services.reporter.handlers.append import Appender, Projector
from services.reporter.inbound.console import pages
from services.reporter.inbound.console.session import Guard, Sessions
from services.reporter.outbound import queries
from services.reporter.outbound.causes import PostgresCauses
from services.reporter.outbound.event_log import PostgresStore
from services.reporter.outbound.gauges import Gauges
from services.reporter.outbound.kill_switch import KillSwitch
from services.reporter.outbound.queries import Queries
from services.runtime.health import HealthApp
from services.runtime.postgres import Database, connect
from tests.conftest import MigratedDatabase
from tests.fakes.acting import ordered
from tests.unit.reporter.night import (
    ENDINGS,
    POLICY,
    START,
    Story,
    budget_events,
    hour_events,
    key_of,
    night,
    records,
    switch_events,
    tell,
)

TOKEN = "a-token-of-some-length"
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    database: Database
    browser: httpx.AsyncClient
    clock: Clock

    async def take(self, events: Sequence[Event[Fact]]) -> None:
        await Appender(PostgresStore(self.database), Projector({"support": POLICY})).take(records(events))

    async def sign_in(self) -> None:
        assert (await self.browser.get(f"/?token={TOKEN}")).status_code == 303

    async def page(self, path: str) -> str:
        answer = await self.browser.get(path)
        assert answer.status_code == 200, path
        return answer.text


@pytest.fixture
async def site(migrated: MigratedDatabase) -> AsyncIterator[Site]:
    clock = Clock()
    async with connect(migrated.url("nightshift_reporter"), schema="reporter", connections_max=4) as database:
        sessions = Sessions(TOKEN, seconds=3600, clock=clock)
        app = Guard(
            pages.console(Queries(database), KillSwitch(database), tells=False),
            HealthApp(alive={}, ready={}),
            sessions,
        )
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # httpx types the scope as a dict
        async with httpx.AsyncClient(transport=transport, base_url="http://console.test") as browser:
            yield Site(database, browser, clock)


async def keep_keys(migrated: MigratedDatabase, *case_ids: str) -> None:
    async with connect(migrated.admin_url, schema="vault", connections_max=1) as database, database.connection() as c:
        await c.executemany(
            "INSERT INTO vault.case_keys (case_id, key) VALUES ($1, $2)", [(i, key_of(i)) for i in case_ids]
        )


PATHS = ("/", "/cases", "/cases/support:zendesk:1", "/approvals", "/dead-letters", "/static/console.css", "/nowhere")


async def test_nobody_sees_anything_without_a_session(site: Site) -> None:
    cookies = ("", "x", "9999999999.00", f"{2_000_000}.{'0' * 64}")
    for path, cookie in itertools.product(PATHS, cookies):
        answer = await site.browser.get(
            path, headers={"cookie": f"{Sessions(TOKEN, seconds=1, clock=site.clock).cookie_name}={cookie}"}
        )

        assert answer.status_code == 401
        assert "NIGHTSHIFT_CONSOLE_TOKEN" in answer.text


@pytest.mark.parametrize("after", ["0001-01-01T00:00:00+14:00~x", "9999-12-31T23:59:59-14:00~x", "~", "\0~\0"])
async def test_a_page_that_there_is_not_is_the_first_one(site: Site, after: str) -> None:
    await site.take(tell("1", "answered", START))
    await site.sign_in()

    answer = await site.browser.get("/cases", params={"after": after})

    assert (answer.status_code, "support:zendesk:1" in answer.text) == (200, True)


@pytest.mark.parametrize(
    ("origin", "form", "status"),
    [
        ("http://console.test", {"process": "\0", "reason": "\0"}, 404),
        ("http://console.test", {"process": "support", "reason": "a\0b"}, 303),
        ("http://[", {"process": "support", "reason": ""}, 403),
    ],
)
async def test_a_pause_is_carried_out_or_refused_whatever_is_sent_with_it(
    site: Site, origin: str, form: dict[str, str], status: int
) -> None:
    async with site.database.connection() as connection:
        await connection.execute("INSERT INTO control.switches (process, paused) VALUES ('support', false)")
    await site.sign_in()

    answer = await site.browser.post("/pause", data=form, headers={"origin": origin})

    assert answer.status_code == status


async def test_a_wrong_token_opens_nothing(site: Site) -> None:
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "é"):
        answer = await site.browser.get("/", params={"token": token})

        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


async def test_the_link_opens_a_session_and_leads_to_the_clean_address(site: Site) -> None:
    answer = await site.browser.get(f"/cases?state=held&token={TOKEN}")

    assert (answer.status_code, answer.headers["location"]) == (303, "/cases?state=held")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=Strict" in answer.headers["set-cookie"]
    assert TOKEN not in answer.headers["set-cookie"]
    assert (await site.browser.get("/cases?state=held")).status_code == 200


async def test_the_link_leads_to_no_other_site(site: Site) -> None:
    answer = await site.browser.get(f"http://console.test//elsewhere.test/x?token={TOKEN}")

    assert answer.headers["location"] == "/elsewhere.test/x"


async def test_a_session_ends(site: Site) -> None:
    await site.sign_in()
    site.clock.now += 3599
    assert (await site.browser.get("/")).status_code == 200

    site.clock.now += 1
    assert (await site.browser.get("/")).status_code == 401


async def test_health_and_metrics_are_open(site: Site) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await site.browser.get(path)).status_code == 200


@pytest.mark.parametrize("before", [[], switch_events()], ids=["nothing", "a switch"])
async def test_before_any_case_each_page_says_what_will_appear(site: Site, before: list[Event[Fact]]) -> None:
    await site.take(before)
    await site.sign_in()

    assert "Nothing has happened yet" in await site.page("/")
    assert "No cases yet" in await site.page("/cases")
    assert "No case stands there now" in await site.page("/cases?state=held")
    assert "Nothing waits for approval" in await site.page("/approvals")
    assert "No dead letters" in await site.page("/dead-letters")


async def test_the_page_says_that_the_money_for_models_is_gone(site: Site) -> None:
    await site.take(budget_events(datetime.now(UTC)))
    await PostgresCauses(site.database, {}).count()
    await site.sign_in()

    assert "support has no money left for models" in await site.page("/")
    assert "budget for models is used up" in await site.page("/dead-letters")


async def test_an_unknown_case_is_not_found(site: Site) -> None:
    await site.sign_in()

    for path in ("/cases/support:zendesk:404", "/cases/%00", "/nowhere"):
        assert (await site.browser.get(path)).status_code == 404


@dataclass
class _Assets(HTMLParser):
    """What a page would load or run."""

    loads: list[str] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [v or "" for k, v in attrs if k in {"src", "srcset"} or (k == "href" and tag == "link")]
        self.inline += [k for k, _ in attrs if k.startswith("on") or k == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


async def test_pages_load_nothing_from_elsewhere_and_hold_no_inline_script_or_style(site: Site) -> None:
    await site.sign_in()
    await site.take(night(20))

    for path in ("/", "/cases", "/approvals", "/dead-letters", "/cases/support:zendesk:1001", "/nowhere"):
        answer = await site.browser.get(path)
        assets = _Assets()
        assets.feed(answer.text)
        policy = answer.headers["content-security-policy"]

        assert assets.inline == []
        assert {where.split("/")[1] for where in assets.loads} == {"static"}
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for where in set(assets.loads):
            assert (await site.browser.get(where)).status_code == 200


def test_the_stylesheet_names_no_other_place() -> None:
    sheet = (Path(pages.__file__).parent / "static/console.css").read_text()

    assert not re.search(r"url\(|@import|https?:", sheet)


async def test_what_people_wrote_is_shown_as_text(migrated: MigratedDatabase, site: Site) -> None:
    story = Story("1")
    story.opens(HOSTILE)
    story.say(story.events[0].data.model_copy(update={"kind": HOSTILE, "fields": {"status": HOSTILE}}))
    story.decides("hold", HOSTILE)
    await keep_keys(migrated, story.case_id)
    await site.take(story.events)
    await site.sign_in()

    tonight, case = await site.page("/"), await site.page("/cases/support:zendesk:1")

    assert not re.findall("<script>alert|<img src=x", tonight + case)
    assert "&lt;script&gt;alert(1)" in case


async def test_what_happened_at_one_instant_is_told_in_the_order_in_which_it_follows(site: Site) -> None:
    events = tell("1", "answered")
    read = next(event for event in events if event.type == "facts.read.v1")
    at_once = [e if e.type != "proposal.made.v1" else dataclasses.replace(e, time=read.time) for e in events]
    await site.take(at_once)
    await site.sign_in()

    page = await site.page("/cases/support:zendesk:1")

    assert page.index("facts.read.v1") < page.index("proposal.made.v1")


async def test_a_timeline_opens_texts_while_their_key_is_there(migrated: MigratedDatabase, site: Site) -> None:
    events = tell("1", "answered")
    await keep_keys(migrated, events[0].case_id)
    await site.take(events)
    await site.sign_in()
    assert "Hello, this is about number 1" in await site.page("/cases/support:zendesk:1")

    async with connect(migrated.admin_url, schema="vault", connections_max=1) as database, database.connection() as c:
        await c.execute("SELECT vault.erase('support:zendesk:1')")

    page = await site.page("/cases/support:zendesk:1")
    assert "Hello, this is" not in page
    assert "body: erased" in page


async def test_a_timeline_tells_every_event_in_order_and_marks_the_proof(site: Site) -> None:
    events = tell("1", "answered")
    await site.take(events[::-1])

    async with site.database.connection() as connection:
        timeline = await queries.case_timeline(connection, "support:zendesk:1", reveal=False)

    assert [line.event_id for line in timeline.lines] == [event.event_id for event in events]
    assert timeline.row is not None
    assert timeline.row.sla.state == "met"
    assert [run.cost_usd for run in timeline.runs] == [timeline.row.cost_usd], "what each run cost, and all together"
    assert timeline.row.cost_usd > 0
    assert all(line.texts == () for line in timeline.lines)


async def test_status_tells_today_from_the_running_sums(site: Site) -> None:
    today = datetime(2026, 11, 25, 0, 0, 1, tzinfo=UTC)
    await site.take(night(20, today) + night(3, today - timedelta(days=3), first=5000))

    async with site.database.connection() as connection:
        status = await queries.status(connection, at=today + timedelta(hours=20))
        runs = await connection.fetch("SELECT row FROM projections WHERE kind = 'run' AND at >= $1", today)

    latencies = sorted(row[0]["latency_ms"] for row in runs if row[0]["latency_ms"] is not None)
    assert status.runs_today == len(runs)
    assert status.failures_today == 2
    assert status.latency.count == len(latencies)
    assert status.latency.average_ms == pytest.approx(sum(latencies) / len(latencies))
    assert status.latency.p99_ms == pytest.approx(latencies[-1], rel=0.1)
    assert status.decisions_today["executed"] == 13
    assert status.dead_letters_open == 1
    assert status.approvals_open == 2
    assert sum(status.cases.values()) == 23
    assert len(status.errors) == 5, "two of them say that a day's budget was used up"
    assert status.model_validate_json(status.model_dump_json()) == status


async def test_hours_of_intake_that_are_not_complete_are_shown_for_a_week_the_newest_first(site: Site) -> None:
    complete, mended = START, START + timedelta(hours=1)
    await site.take(hour_events(complete, "complete") + hour_events(mended, "missing", "backfilled"))
    await site.take(hour_events(START + timedelta(hours=2), "unknown"))
    week = timedelta(days=queries.DAYS_SHOWN)

    async with site.database.connection() as connection:
        status = await queries.status(connection, at=mended + week)
        later = await queries.status(connection, at=mended + week + timedelta(seconds=1))
        others = await queries.status(connection, at=mended, process="another")

    assert status.intake == {"backfilled": 1, "unknown": 1}
    assert [(row.state, row.missing, row.code) for row in status.intake_marked] == [
        ("unknown", 0, "forbidden"),
        ("backfilled", 1, None),
    ]
    assert later.intake == {"unknown": 1}
    assert others.intake == {}
    assert status.events == 4
    assert status.cases == {}


async def test_the_page_shows_the_hours_and_leads_to_what_was_said_of_them(site: Site) -> None:
    now = datetime.now(UTC)
    await site.take(tell("1", "answered", now - timedelta(hours=3)))
    await site.take(hour_events(now - timedelta(hours=3), "missing", "backfilled"))
    await site.take(hour_events(now - timedelta(hours=2), "unknown"))
    await site.sign_in()

    page = await site.page("/")
    told = await site.page(f"/cases/support:zendesk:intake-{now - timedelta(hours=3):%Y-%m-%dT%H}")

    assert "1 backfilled, 1 unknown hours" in page
    assert "1 of 1000" in page
    assert "our credentials are refused, or a right is missing" in page
    assert "no webhook had told 1 of 1000 updates" in told
    assert "1 of 1000 updates on the provider&#39;s own list came in late" in told


async def test_an_unanswered_case_is_overdue_from_its_due_time_on(site: Site) -> None:
    await site.take(tell("1", "waiting", START))
    due_at = START + timedelta(minutes=60)

    async with site.database.connection() as connection:
        in_time = (await queries.status(connection, at=due_at)).sla
        late = (await queries.status(connection, at=due_at + timedelta(microseconds=1))).sla

    assert (in_time.waiting, in_time.overdue, in_time.percent) == (1, 0, None)
    assert (late.waiting, late.overdue, late.percent) == (0, 1, 0.0)


async def test_dead_letters_and_approvals_tell_the_minutes_left_and_what_waits_behind(site: Site) -> None:
    start = datetime.now(UTC) - timedelta(minutes=10)
    await site.take(tell("1", "dead_letter", start) + tell("2", "redriven", start) + tell("3", "approval", start))

    async with site.database.connection() as connection:
        letters, approvals = await queries.dead_letters(connection), await queries.approvals(connection)

    assert [(row.case_id, row.waits_behind) for row in letters] == [("support:zendesk:1", 1)]
    assert letters[0].minutes_to_breach == pytest.approx(50, abs=1)
    assert [row.case_id for row in approvals] == ["support:zendesk:3"]
    assert approvals[0].minutes_to_breach == pytest.approx(50, abs=1)


async def test_an_order_reaches_a_dead_letter_or_an_approval_however_many_older_ones_wait(
    monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    monkeypatch.setattr(queries, "WAITING_SHOWN", 1)
    endings = (("1", "dead_letter"), ("2", "dead_letter"), ("3", "approval"), ("4", "approval"))
    stories = {name: tell(name, ending, START + timedelta(hours=int(name))) for name, ending in endings}
    await site.take([event for story in stories.values() for event in story])
    (letter,) = [e.data.dead_letter_id for e in stories["2"] if isinstance(e.data, DeadLetterRaised)]
    (approval,) = [e.data.approval_id for e in stories["4"] if isinstance(e.data, ApprovalRequested)]

    async with site.database.connection() as connection:
        found = await orders.dead_letter(connection, str(letter)[:8].upper())
        asked = await orders.approval(connection, f" {approval} ")

    assert (found.dead_letter_id, asked.approval_id) == (letter, approval)


async def test_queries_answer_on_a_bare_connection_of_an_administrator(migrated: MigratedDatabase, site: Site) -> None:
    await site.take(night(5))
    async with connect(migrated.admin_url, schema="public", connections_max=1) as database, database.connection() as c:
        await c.reset_type_codec("jsonb", schema="pg_catalog")

        assert (await queries.status(c)).events == len(night(5))
        assert (await queries.case_timeline(c, "support:zendesk:1001")).lines
        assert len((await queries.cases(c)).cases) == 5


async def test_pages_of_cases_show_each_case_once_the_last_changed_first(site: Site) -> None:
    await site.take(night(2 * queries.CASES_PER_PAGE + 7))
    seen, page = [], None
    async with site.database.connection() as connection:
        while True:
            found = await queries.cases(connection, page=page)
            seen += [(row.changed_at, row.case_id) for row in found.cases]
            if (page := found.next_page) is None:
                break

    assert seen == sorted(seen, reverse=True)
    assert len({case_id for _, case_id in seen}) == 2 * queries.CASES_PER_PAGE + 7


async def test_a_page_mark_that_is_none_starts_at_the_front(site: Site) -> None:
    await site.sign_in()
    await site.take(night(3))

    for mark in ("x", "2026-11-22~a", "~", "%00"):
        assert "support:zendesk:1001" in await site.page(f"/cases?after={mark}")


async def test_a_paused_process_is_told_on_the_first_page(migrated: MigratedDatabase, site: Site) -> None:
    await site.sign_in()
    async with connect(migrated.admin_url, schema="control", connections_max=1) as database, database.connection() as c:
        await c.execute("INSERT INTO control.switches (process, reason) VALUES ('support', 'odd replies')")

    page = await site.page("/")
    assert "support is paused" in page
    assert "odd replies" in page


async def test_a_process_that_is_not_served_is_told_on_the_first_page_until_somebody_admits_its_regime(
    migrated: MigratedDatabase, site: Site
) -> None:
    await site.take(night(5))
    await site.sign_in()
    async with connect(migrated.admin_url, schema="control", connections_max=1) as database, database.connection() as c:
        await c.execute("INSERT INTO control.regimes (process, model, regime) VALUES ('support', 'nearest', 'abc')")
        waiting = await site.page("/")
        await c.execute("UPDATE control.regimes SET admitted_at = now(), admitted_by = 'ana', reason = 'a <typo>'")
        admitted = await site.page("/")

    assert "support is not served" in waiting
    assert "nightshift eval support --write" in waiting
    assert "support is not served" not in admitted
    assert "ana let it" in admitted
    assert "a &lt;typo&gt;" in admitted


async def test_a_candidate_that_is_on_is_told_on_the_first_page(migrated: MigratedDatabase, site: Site) -> None:
    await site.take(night(5))
    await site.sign_in()
    async with connect(migrated.admin_url, schema="control", connections_max=1) as database, database.connection() as c:
        await ordered(c, "support", "shadow", 20, "870a523752f9")
        on = await site.page("/")
        await ordered(c, "support", "off", 0, "870a523752f9")
        off = await site.page("/")

    assert "support has a candidate in shadow on 20 % of its cases" in on
    assert "has a candidate" not in off


async def test_a_process_is_paused_in_the_console(migrated: MigratedDatabase, site: Site) -> None:
    await site.take(night(5))
    await site.sign_in()
    async with connect(migrated.admin_url, schema="control", connections_max=1) as database, database.connection() as c:
        await c.execute("INSERT INTO control.switches (process, paused) VALUES ('support', false)")
        link = re.search(r'href="(/pause[^"]*)"', await site.page("/"))
        assert link is not None
        form = await site.page(link[1])
        names = re.findall(r'name="(\w+)"', form[form.index("<form") :])
        told = dict(zip(names, ("support", "odd replies"), strict=True))
        paused = await site.browser.post("/pause", data=told, headers={"origin": "http://console.test"})
        again = await site.browser.post("/pause", data=told, headers={"origin": "http://console.test"})
        switch = await c.fetchrow("SELECT paused, reason, changed_by, generation FROM control.switches")

    assert (paused.status_code, again.status_code) == (303, 404)
    assert tuple(switch or ()) == (True, "odd replies", "console", 2)
    assert "/pause?" not in await site.page("/")


@pytest.mark.parametrize("origin", [None, "null", "http://console.test:8082", "http://elsewhere.test"])
async def test_no_other_page_pauses_a_process(migrated: MigratedDatabase, site: Site, origin: str | None) -> None:
    await site.sign_in()
    async with connect(migrated.admin_url, schema="control", connections_max=1) as database, database.connection() as c:
        await c.execute("INSERT INTO control.switches (process, paused) VALUES ('support', false)")
        headers = {"origin": origin} if origin is not None else {}
        answer = await site.browser.post("/pause", data={"process": "support", "reason": "x"}, headers=headers)

        assert answer.status_code == 403
        assert await c.fetchval("SELECT paused FROM control.switches") is False


async def test_metrics_tell_what_the_projections_say(site: Site) -> None:
    await site.take(night(20))

    await Gauges(Queries(site.database), {"support": 0.95}).look()

    metrics = (await site.browser.get("/metrics")).text
    assert 'nightshift_cases{state="answered"} 13.0' in metrics
    assert "nightshift_dead_letters_open 1.0" in metrics
    assert 'nightshift_switch_on{process="support"} 0.0' in metrics  # no row means off
    assert 'nightshift_candidate_mode{process="support"} 0.0' in metrics  # as above
    assert 'nightshift_today_runs{process="support"}' in metrics
    assert 'nightshift_intake_hours{process="support",state="unknown"}' in metrics
    assert 'nightshift_first_replies{process="support",state="met"}' in metrics


async def test_a_night_holds_every_event_type(site: Site) -> None:
    await site.take(night(2 * len(ENDINGS)))

    async with site.database.connection() as connection:
        types = {row[0] for row in await connection.fetch("SELECT DISTINCT type FROM event_log")}

    assert types == set(REGISTRY)
