"""One ticket is the same case, and has the same basis, by its webhooks and by a read of its audits."""

from collections.abc import Callable
from datetime import timedelta
from urllib.parse import parse_qsl

import httpx
import orjson
import pytest

from connectors.protocol import PlainChange
from connectors.zendesk import Zendesk, webhooks
from contracts.base import Json
from contracts.events.cases import CaseChanged
from nightshift.world.api import Api, Call, Cut
from nightshift.world.model import AGENT_ID, OUR_USER_ID
from nightshift.world.zendesk import Zendesk as World
from processes.support import case as cases
from processes.support.case import Case
from tests.unit.support.tickets import START, fold_all, sealed


class Account:
    """A simulated Zendesk with one ticket, its webhooks as they were sent, and a connector to read it."""

    def __init__(self) -> None:
        self.now = START
        self.events: list[Json] = []
        self.world = World(lambda: self.now)
        self.world.listeners.append(lambda _, events: self.events.extend(events))
        self.customer = self.world.add_customer("Ada", "ada@example.com").id
        self.ticket = self.world.create(self.customer, "Late", "where is my order", channel="email", tags=["b", "a"]).id
        self._api = Api(zendesk=self.world, token="a-token")

    def later(self) -> None:
        self.now += timedelta(seconds=5)

    def by_webhooks(self) -> list[CaseChanged]:
        found = [webhooks.changes_in(e, b"", self.now, our_user_id=str(OUR_USER_ID)) for e in self.events]
        return [self._change(change) for changes in found for change in changes]

    async def by_reading(self) -> list[CaseChanged]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self._answer)) as client:
            zendesk = Zendesk(
                base_url="https://shop.example",
                email=self._api.email,
                token="a-token",
                our_user_id=str(OUR_USER_ID),
                client=client,
            )
            return [self._change(change) for change in await zendesk.read(str(self.ticket))]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        call = Call(
            method=request.method,
            path=request.url.path,
            query=dict(parse_qsl(request.url.query.decode())),
            authorization=request.headers["authorization"],
            body=request.content,
        )
        answer = self._api.answer(call)
        assert not isinstance(answer, Cut)
        return httpx.Response(answer.status, content=orjson.dumps(answer.body), headers=dict(answer.headers))

    def _change(self, change: PlainChange) -> CaseChanged:
        return CaseChanged(
            door="zendesk",
            object_id=change.object_id,
            kind=change.kind,
            identity=change.identity,
            version=change.version,
            position=change.position,
            update_id=change.update_id,
            author=change.author,
            hint=change.hint,
            fields=dict(change.fields),
            texts={name: sealed(text) for name, text in change.texts.items()},
            occurred_at=change.occurred_at,
            received_at=self.now,
        )


def _answered(account: Account) -> None:
    account.later()
    answer: Json = {"comment": {"body": "On its way.", "public": True}, "status": "solved", "additional_tags": ["x"]}
    account.world.update(account.ticket, answer, actor_id=OUR_USER_ID)


def _reopened_by_two_messages(account: Account) -> None:
    _answered(account)
    account.later()
    account.world.comment(account.ticket, account.customer, "thanks, and what does shipping cost?")
    account.world.comment(account.ticket, account.customer, "in the same second")


def _reopened_silently(account: Account) -> None:
    _answered(account)
    account.later()
    account.world.update(account.ticket, {"status": "open"}, actor_id=AGENT_ID)


def _taken_by_a_person(account: Account) -> None:
    account.later()
    account.world.update(account.ticket, {"assignee_id": AGENT_ID, "priority": "high"}, actor_id=AGENT_ID)
    account.world.update(account.ticket, {"comment": {"body": "I look", "public": True}}, actor_id=AGENT_ID)


def _known(case: Case) -> dict[str, object]:
    fields = ("status", "priority", "channel", "assignee_id", "brand_id", "tags", "gone", "updated_at")
    asked = (cases.basis, cases.awaits_answer, cases.asked_at, cases.opened_at, cases.replied, cases.party)
    return {
        **{name: case.value(name) for name in fields},
        **{ask.__name__: ask(case) for ask in asked},
        "comments": [comment.key for comment in case.comments],
    }


@pytest.mark.parametrize(
    "story", [lambda _: None, _answered, _reopened_by_two_messages, _reopened_silently, _taken_by_a_person]
)
async def test_webhooks_and_audits_tell_the_same_case(story: Callable[[Account], None]) -> None:
    account = Account()
    story(account)

    hooks, read = account.by_webhooks(), await account.by_reading()

    by_webhooks, by_reading = fold_all(hooks), fold_all(reversed(read))
    assert _known(by_webhooks) == _known(by_reading)
    assert _known(fold_all([*read, *hooks])) == _known(by_reading)
    assert not cases.needs_reading(by_reading)
