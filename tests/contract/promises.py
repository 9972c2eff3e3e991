"""Promises that all of a kind keep: connectors, models. A test class inherits them and brings the fixtures."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.protocol import Lists, LooksUp, Reads, Sends, Update
from contracts.decision import Request
from contracts.failures import LaterError, OutcomeUnknownError, PermanentError
from services.classifier.ports import Ask, Provider
from tests.fakes.other_side import Answer, Cut, OtherSide, Silence

NO_PATIENCE_SECONDS = 0.4
PATIENCE_SECONDS = 5.0

INJECTIONS = [
    json.loads(line)["text"]
    for line in (Path(__file__).parents[1] / "data" / "injections.jsonl").read_text(encoding="utf-8").splitlines()
]
"""Hostile texts."""

Destination = Callable[[str, float], Sends]
"""Makes a destination from an address and a time limit in seconds."""


@dataclass(frozen=True)
class Job:
    """Something to send, and how the other side says yes to it."""

    request: Request
    stamp: str | None
    yes: Answer


class SendsPromises:
    """Of destinations over HTTP. Brings `destination` and `job`."""

    @pytest.fixture
    async def other_side(self) -> AsyncIterator[OtherSide]:
        async with OtherSide() as server:
            yield server

    async def test_a_definite_yes_is_acknowledged(
        self, destination: Destination, job: Job, other_side: OtherSide
    ) -> None:
        other_side.answers = [job.yes]

        done = await destination(other_side.url, PATIENCE_SECONDS).send(job.request, effect_key="k1", stamp=job.stamp)

        assert done.reference
        assert done.at.tzinfo is not None
        assert len(other_side.asked) == 1

    @pytest.mark.parametrize(
        ("answer", "seconds"),
        [
            (Answer(429, headers={"retry-after": "17"}), 17.0),
            (Answer(503, headers={"retry-after": "3"}), 3.0),
            (
                Answer(
                    429,
                    headers={"date": "Wed, 25 Nov 2026 06:31:24 GMT", "retry-after": "Wed, 25 Nov 2026 06:32:00 GMT"},
                ),
                36.0,
            ),
        ],
    )
    async def test_a_named_time_is_waited_for(
        self, destination: Destination, job: Job, other_side: OtherSide, answer: Answer, seconds: float
    ) -> None:
        other_side.answers = [answer]

        with pytest.raises(LaterError) as later:
            await destination(other_side.url, PATIENCE_SECONDS).send(job.request, effect_key="k1", stamp=job.stamp)

        assert later.value.seconds == seconds

    @pytest.mark.parametrize("broken", [Answer(500), Answer(502), Answer(503), Cut()])
    async def test_what_may_have_arrived_is_unknown(
        self, destination: Destination, job: Job, other_side: OtherSide, broken: Answer | Cut
    ) -> None:
        other_side.answers = [broken]

        with pytest.raises(OutcomeUnknownError):
            await destination(other_side.url, PATIENCE_SECONDS).send(job.request, effect_key="k1", stamp=job.stamp)

    async def test_silence_is_unknown_and_has_a_limit(
        self, destination: Destination, job: Job, other_side: OtherSide
    ) -> None:
        other_side.answers = [Silence()]

        with pytest.raises(OutcomeUnknownError) as unknown:
            await destination(other_side.url, NO_PATIENCE_SECONDS).send(job.request, effect_key="k1", stamp=job.stamp)

        assert unknown.value.code == "timeout"

    async def test_what_never_left_is_tried_later(self, destination: Destination, job: Job, free_port: int) -> None:
        with pytest.raises(LaterError) as later:
            await destination(f"http://127.0.0.1:{free_port}", PATIENCE_SECONDS).send(
                job.request, effect_key="k1", stamp=job.stamp
            )

        assert later.value.code == "unreachable"

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "rejected"),
            (404, "gone"),
            (410, "gone"),
            (422, "unprocessable"),
            (302, "rejected"),
        ],
    )
    async def test_a_definite_no_is_for_ever(
        self, destination: Destination, job: Job, other_side: OtherSide, status: int, code: str
    ) -> None:
        other_side.answers = [Answer(status, b"people's words", {"location": other_side.url})]

        with pytest.raises(PermanentError) as refused:
            await destination(other_side.url, PATIENCE_SECONDS).send(job.request, effect_key="k1", stamp=job.stamp)

        assert refused.value.code == code
        assert "people's words" not in str(refused.value)
        looks = 1 if status == 422 else 0  # why a write is invalid may be looked up
        assert len(other_side.asked) <= 1 + looks, "a redirect was followed"

    @pytest.mark.parametrize("status", [401, 403])
    async def test_refused_credentials_are_no_fault_of_the_request_and_wait(
        self, destination: Destination, job: Job, other_side: OtherSide, status: int
    ) -> None:
        other_side.answers = [Answer(status)]

        with pytest.raises(LaterError) as refused:
            await destination(other_side.url, PATIENCE_SECONDS).send(job.request, effect_key="k1", stamp=job.stamp)

        assert (refused.value.code, refused.value.seconds) == ("forbidden", 60.0)

    async def test_a_failure_never_tells_the_address(
        self, destination: Destination, job: Job, other_side: OtherSide
    ) -> None:
        for answer in (Answer(403), Answer(429), Answer(500), Cut()):
            other_side.answers = [answer]
            with pytest.raises(Exception, match=r"answered|cut") as failed:
                await destination(f"{other_side.url}/SECRET", PATIENCE_SECONDS).send(
                    job.request, effect_key="k1", stamp=job.stamp
                )
            assert "SECRET" not in f"{failed.value!r} {failed.value.__cause__!r}"


class LooksUpPromises:
    """Brings `source`: its query `order` (parameter `id`) knows order A-1 of total 19.90 alone; `many` has 150 rows."""

    async def test_a_row_is_found_by_its_parameter(self, source: LooksUp) -> None:
        rows = await source.look_up("order", {"id": "A-1"})

        assert [(row["id"], row["total"]) for row in rows] == [("A-1", "19.90")]

    async def test_rows_are_json(self, source: LooksUp) -> None:
        rows = await source.look_up("order", {"id": "A-1"})

        assert orjson.loads(orjson.dumps(rows)) == rows

    async def test_no_more_than_a_hundred_rows_come_back(self, source: LooksUp) -> None:
        rows = await source.look_up("many", {})

        assert len(rows) == 100

    @pytest.mark.parametrize(
        "hostile", ["' OR 1=1 --", "A-1'; DROP TABLE orders; --", "B?id=A-1", "B&id=A-1", "é\U0001f600"]
    )
    async def test_a_hostile_parameter_stays_a_value(self, source: LooksUp, hostile: str) -> None:
        assert await source.look_up("order", {"id": hostile}) == []
        assert len(await source.look_up("order", {"id": "A-1"})) == 1

    async def test_an_unknown_query_is_refused_for_ever(self, source: LooksUp) -> None:
        with pytest.raises(PermanentError) as refused:
            await source.look_up("invoices", {})

        assert refused.value.code == "unknown_query"


@dataclass(frozen=True)
class Account:
    """What is listed, and read, and how an object of it is commented: every call is a second later."""

    lists: Lists
    reads: Reads
    begins_at: datetime
    comment: Callable[[str], None]


class ListsPromises:
    """Of providers with a list of updates. Brings `account`."""

    async def test_every_update_is_on_the_list_in_order_of_time_over_all_its_pages(self, account: Account) -> None:
        for number in range(600):
            account.comment(str(number % 7 + 1))

        updates = await _listed(account, account.begins_at)

        assert [update.object_id for update in updates] == [str(number % 7 + 1) for number in range(600)]
        assert [update.at for update in updates] == sorted(update.at for update in updates)

    async def test_a_list_begins_where_it_is_asked_to(self, account: Account) -> None:
        for _ in range(10):
            account.comment("1")
        every = await _listed(account, account.begins_at)

        assert await _listed(account, every[4].at) == every[4:]
        assert await _listed(account, every[9].at + timedelta(seconds=1)) == []

    async def test_what_the_list_names_is_what_a_read_tells(self, account: Account) -> None:
        for number in (1, 2, 1, 3, 1):
            account.comment(str(number))

        for update in await _listed(account, account.begins_at):
            told = [c for c in await account.reads.read(update.object_id) if c.update_id == update.update_id]
            assert {change.occurred_at for change in told} == {update.at}
            for part in update.parts:
                alike = [c for c in told if c.kind in part.kinds]
                assert [c.fields["comment_id"] for c in alike] == [part.comment_id or "description"]


async def _listed(account: Account, since: datetime) -> list[Update]:
    found: dict[str, Update] = {}
    cursor = None
    while True:
        page = await account.lists.list_updates(since, cursor)
        found |= {update.update_id: update for update in page.updates}
        if page.end:
            return list(found.values())
        cursor = page.cursor


Asking = Callable[[str], Awaitable[Ask]]
"""Makes a question of a customer's text."""
Sent = Callable[[], Sequence[Sequence[dict[str, Any]]]]
"""Each conversation that was sent so far, without its instructions."""


class ProposesPromises:
    """Of models. Brings `provider` and `asking`."""

    async def test_an_answer_parses_by_the_schema_that_was_asked_for(self, provider: Provider, asking: Asking) -> None:
        ask = await asking("Where is my order 100200300?")
        answer = await provider.propose(ask)

        assert 0 <= ask.output.model_validate_json(answer.text).confidence <= 1

    async def test_an_answer_says_which_model_made_it_and_no_more_than_the_worst_that_was_told(
        self, provider: Provider, asking: Asking
    ) -> None:
        ask = await asking("Where is my order 100200300?")
        worst = provider.worst_case(ask)
        answer = await provider.propose(ask)

        assert answer.model.startswith(provider.name)
        assert answer.latency_ms >= 0
        if worst is None:
            assert (answer.tokens_in, answer.tokens_out, answer.cost_usd) == (0, 0, Decimal(0))
        else:
            assert 0 < answer.tokens_in <= worst.tokens_in
            assert 0 < answer.tokens_out <= worst.tokens_out
            assert 0 <= answer.cost_usd <= worst.cost_usd

    async def test_the_same_question_gets_the_same_answer(self, provider: Provider, asking: Asking) -> None:
        first, second = [await provider.propose(await asking("hello")) for _ in range(2)]

        assert replace(first, latency_ms=0) == replace(second, latency_ms=0)

    async def test_the_retry_is_answered_too(self, provider: Provider, asking: Asking) -> None:
        ask = replace(await asking("hello"), previous=("no JSON", "output: json_invalid"))

        ask.output.model_validate_json((await provider.propose(ask)).text)

    @pytest.mark.parametrize("body", ["", " ", "\u200b", "?", "1234567890", "a" * 60_000, "<p>\ud800</p>"])
    async def test_odd_texts_are_answered(self, provider: Provider, asking: Asking, body: str) -> None:
        ask = await asking(body)
        if body == "<p>\ud800</p>":
            ask = replace(ask, question=replace(ask.question, text=body))

        ask.output.model_validate_json((await provider.propose(ask)).text)

    @pytest.mark.parametrize("body", INJECTIONS)
    async def test_a_hostile_text_is_answered_in_the_same_schema_and_changes_no_instructions(
        self, provider: Provider, asking: Asking, body: str
    ) -> None:
        calm, hostile = await asking("hello"), await asking(body)

        hostile.output.model_validate_json((await provider.propose(hostile)).text)
        assert hostile.instructions == calm.instructions


class SendsFencedPromises:
    """Of models that are sent words. Brings `provider`, `asking` and `sent`."""

    @pytest.mark.parametrize("body", INJECTIONS)
    async def test_a_hostile_text_stays_inside_the_fence(
        self, provider: Provider, asking: Asking, sent: Sent, body: str
    ) -> None:
        await provider.propose(await asking(body))

        [[message]] = sent()
        before, data, after = message["content"].split("\n", 2)
        assert (before, after[:7]) == ("<data>", "</data>")
        assert json.loads(data).keys() == {"case", "facts", "passages"}
