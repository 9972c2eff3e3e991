import base64
import json
from random import Random
from typing import Any

import pytest

from nightshift.world.api import Answer, Api, Call, Cut
from nightshift.world.books import books
from nightshift.world.faults import Fault
from nightshift.world.model import Ticket
from nightshift.world.zendesk import Zendesk
from tests.fakes.world import EMAIL, TOKEN, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(clock: Clock) -> Api:
    return Api(zendesk=Zendesk(clock), token=TOKEN)


@pytest.fixture
def ticket(api: Api) -> Ticket:
    ann = api.zendesk.add_customer("Ann", "ann@example.com")
    return api.zendesk.create(ann.id, "Order", "Where is it?")


def ask(api: Api, method: str, path: str, body: object = None, **query: str) -> Answer:
    outcome = strike(api, method, path, body, **query)
    assert isinstance(outcome, Answer)
    return outcome


def strike(api: Api, method: str, path: str, body: object = None, **query: str) -> Answer | Cut:
    """Like `ask`, where the connection may be cut."""
    given = base64.b64encode(f"{EMAIL}/token:{TOKEN}".encode()).decode()
    content = b"" if body is None else json.dumps(body).encode()
    path = f"/api/v2/{path}"
    return api.answer(Call(method=method, path=path, query=query, authorization=f"Basic {given}", body=content))


def put(api: Api, ticket: Ticket, text: str = "reply") -> Answer:
    return ask(api, "PUT", f"tickets/{ticket.id}.json", reply(text))


def reply(text: str) -> object:
    return {"ticket": {"comment": {"body": text}}}


def body_of(answer: Answer) -> Any:
    return answer.body


@pytest.mark.parametrize("given", ["", "Basic", "Basic eA==", "Bearer token"])
def test_nobody_gets_in_without_the_token(api: Api, given: str) -> None:
    answer = api.answer(Call(method="GET", path="/api/v2/users/me.json", authorization=given))

    assert isinstance(answer, Answer)
    assert answer.status == 401


def test_every_answer_tells_the_limit_and_the_date(api: Api) -> None:
    answer = ask(api, "GET", "users/me.json")

    assert isinstance(answer, Answer)
    assert answer.headers["x-rate-limit-remaining"] == str(api.requests_per_minute - 1)
    assert answer.headers["date"] == "Wed, 25 Nov 2026 06:00:00 GMT"


def test_more_calls_than_the_limit_are_refused_until_the_next_minute(api: Api, clock: Clock) -> None:
    api.requests_per_minute = 2
    statuses = [ask(api, "GET", "users/me.json").status for _ in range(3)]
    clock.tick(60)

    assert statuses == [200, 200, 429]
    assert ask(api, "GET", "users/me.json").status == 200


def test_a_user_may_update_a_ticket_thirty_times_in_ten_minutes(api: Api, ticket: Ticket, clock: Clock) -> None:
    statuses = [put(api, ticket).status for _ in range(31)]
    clock.tick(601)

    assert statuses == [200] * 30 + [429]
    assert put(api, ticket).status == 200


@pytest.mark.parametrize(
    ("fault", "outcome", "replies"),
    [
        ("fail", 500, 0),
        ("rate_limited", 429, 0),
        ("no_effect", 200, 0),
        ("effect_then_500", 500, 1),
        ("effect_then_cut", "cut", 1),
        ("late", "cut", 0),
    ],
)
def test_a_fault_strikes_one_call_as_it_says(
    api: Api, ticket: Ticket, fault: Fault, outcome: int | str, replies: int
) -> None:
    api.faults.upcoming = [fault]

    struck = strike(api, "PUT", f"tickets/{ticket.id}.json", reply("reply"))
    found = books(api.zendesk.state)["replies"]
    after = put(api, ticket)

    assert ("cut" if isinstance(struck, Cut) else struck.status) == outcome
    assert found == replies
    assert after.status == 200


def test_chances_strike_their_share_of_calls(api: Api, ticket: Ticket) -> None:
    api.random = Random(7)
    api.faults.percent = {"fail": 20}

    failed = sum(ask(api, "GET", f"tickets/{ticket.id}.json").status == 500 for _ in range(500))

    assert 70 <= failed <= 130


@pytest.mark.parametrize("path", ["tickets/99.json", "tickets/99/audits.json", "nothing.json"])
def test_what_is_not_there_is_not_found(api: Api, path: str) -> None:
    assert ask(api, "GET", path).status == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
def test_a_body_that_is_no_update_is_answered_and_changes_nothing(api: Api, ticket: Ticket, body: bytes) -> None:
    given = base64.b64encode(f"{EMAIL}/token:{TOKEN}".encode()).decode()
    path = f"/api/v2/tickets/{ticket.id}.json"

    answer = api.answer(Call(method="PUT", path=path, authorization=f"Basic {given}", body=body))

    assert isinstance(answer, Answer)
    assert len(ticket.comments) == 1


def test_pages_of_audits_follow_their_cursor(api: Api, ticket: Ticket) -> None:
    for number in range(4):
        api.zendesk.comment(ticket.id, ticket.requester_id, str(number))
    path = f"tickets/{ticket.id}/audits.json"

    first = ask(api, "GET", path, **{"page[size]": "3", "include": "users"})
    after = body_of(first)["meta"]["after_cursor"]
    second = ask(api, "GET", path, **{"page[size]": "3", "page[after]": after})

    assert [a["id"] for page in (first, second) for a in body_of(page)["audits"]] == [a.id for a in ticket.audits]
    assert (body_of(first)["meta"]["has_more"], body_of(second)["meta"]["has_more"]) == (True, False)
    assert [user["role"] for user in body_of(first)["users"]] == ["end-user"]


def test_ticket_events_tell_every_audit_since(api: Api, ticket: Ticket, clock: Clock) -> None:
    clock.tick(10)
    api.zendesk.comment(ticket.id, ticket.requester_id, "more")
    clock.tick(61)
    start = str(int(ticket.created_at.timestamp()) + 1)

    answer = ask(api, "GET", "incremental/ticket_events.json", start_time=start)

    assert [event["id"] for event in body_of(answer)["ticket_events"]] == [ticket.audits[1].id]


def test_pages_of_ticket_events_end_with_a_whole_second(api: Api, ticket: Ticket, clock: Clock) -> None:
    for _ in range(3):
        api.zendesk.comment(ticket.id, ticket.requester_id, "in the same second")
    clock.tick(61)
    start = str(int(ticket.created_at.timestamp()))

    first = body_of(ask(api, "GET", "incremental/ticket_events.json", start_time=start, per_page="2"))

    assert (first["count"], first["end_of_stream"], first["end_time"]) == (4, True, int(start))


def test_a_changed_field_is_a_name_of_its_own_in_ticket_events(api: Api, ticket: Ticket, clock: Clock) -> None:
    change = {"ticket": {"status": "pending", "custom_fields": [{"id": 7, "value": "x"}], "comment": {"body": "Look"}}}
    ask(api, "PUT", f"tickets/{ticket.id}.json", change)
    clock.tick(61)
    path, start = "incremental/ticket_events.json", str(int(ticket.created_at.timestamp()))

    bare = body_of(ask(api, "GET", path, start_time=start))["ticket_events"][1]["child_events"]
    whole = body_of(ask(api, "GET", path, start_time=start, include="comment_events"))["ticket_events"][1]

    told = [{name: value for name, value in child.items() if name != "id"} for child in bare]
    assert told == [
        {"event_type": "Comment", "comment_present": True, "comment_public": True},
        {"event_type": "Change", "status": "pending", "previous_value": "new"},
        {"event_type": "Change", "custom_ticket_fields": {"7": "x"}, "previous_value": None},
    ]
    assert whole["child_events"][0]["body"] == "Look"


@pytest.mark.parametrize("status", [403, 429, 503])
def test_the_list_alone_may_be_refused(api: Api, ticket: Ticket, clock: Clock, status: int) -> None:
    clock.tick(61)
    api.faults.list_refused = status

    answer = ask(api, "GET", "incremental/ticket_events.json", start_time="0")

    assert (answer.status, answer.headers["retry-after"]) == (status, "1")
    assert ask(api, "GET", f"tickets/{ticket.id}.json").status == 200


def test_the_list_has_a_limit_of_its_own(api: Api, clock: Clock) -> None:
    statuses = [ask(api, "GET", "incremental/ticket_events.json", start_time="0").status for _ in range(11)]
    clock.tick(60)

    assert statuses == [*[200] * 10, 429]
    assert ask(api, "GET", "incremental/ticket_events.json", start_time="0").status == 200


def test_the_list_of_a_minute_that_is_not_over_is_refused(api: Api) -> None:
    start = str(int(api.zendesk.now().timestamp()) - 59)

    assert ask(api, "GET", "incremental/ticket_events.json", start_time=start).status == 422
