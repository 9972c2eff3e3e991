"""A model that is down, slow, talks rubbish, has no end, or refuses: the case waits, or a person has it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest

from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.proposals import ProposalFailed, ProposalMade
from tests.conftest import MigratedDatabase
from tests.fakes.acting import tiny
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.proposing import GOOD, Bench, bench

MESSAGE = {"content-type": "application/json"}


@dataclass
class Desk:
    """A classifier that asks `claude`, which a fake answers."""

    bench: Bench
    model: FakeAnthropic

    async def ask(self) -> None:
        await self.bench.hear(self.bench.outside.says("1"))
        await self.bench.worker.step()

    async def wait_seconds(self) -> float:
        """Until the work is taken up again."""
        seconds: float = await self.bench.admin.fetchval(
            "SELECT extract(epoch FROM available_at - clock_timestamp())::float8 FROM classifier.tasks"
        )
        return seconds

    async def said(self) -> list[str]:
        """Proposals, failures and dead letters so far, with their codes."""
        made = [e.data for e in await self.bench.said(ProposalMade)]
        failed = [e.data for e in await self.bench.said(ProposalFailed)]
        dead = [e.data for e in await self.bench.said(DeadLetterRaised)]
        return (
            ["proposed" for _ in made]
            + [f"failed {data.code}" for data in failed if isinstance(data, ProposalFailed)]
            + [f"dead {data.code}" for data in dead if isinstance(data, DeadLetterRaised)]
        )


@asynccontextmanager
async def desk(migrated: MigratedDatabase, model: FakeAnthropic) -> AsyncIterator[Desk]:
    async with bench(migrated, tiny()) as made:
        made.provider = model.claude()
        made.worker = made.new_worker()
        yield Desk(made, model)


@pytest.mark.parametrize(
    ("model", "seconds"),
    [
        pytest.param(FakeAnthropic(GOOD, status=529), 15, id="overloaded"),
        pytest.param(FakeAnthropic(GOOD, status=429, headers={"retry-after": "40"}), 40, id="rate limited"),
        pytest.param(FakeAnthropic(GOOD, status=500), 5, id="failing"),
        pytest.param(FakeAnthropic(GOOD, fails=httpx2.ConnectError), 5, id="down"),
        pytest.param(FakeAnthropic(GOOD, fails=httpx2.ReadTimeout), 5, id="slow"),
        pytest.param(FakeAnthropic(GOOD, body=b"<html>sorry</html>", headers=MESSAGE), 5, id="rubbish"),
        pytest.param(FakeAnthropic(GOOD, body=b" " * 2_000_000, headers={"content-encoding": "gzip"}), 5, id="packed"),
    ],
)
async def test_a_model_that_cannot_answer_now_is_waited_for_however_often_and_then_proposes_once(
    migrated: MigratedDatabase, model: FakeAnthropic, seconds: float
) -> None:
    async with desk(migrated, model) as found:
        await found.ask()
        for _ in range(5):  # more than attempts_max
            assert seconds - 2 < await found.wait_seconds() <= seconds
            await found.bench.hurry()
            await found.bench.worker.step()
        assert await found.said() == []

        model.status, model.fails, model.body, model.headers = 200, None, None, {}
        await found.bench.hurry()
        await found.bench.worker.step()

        assert await found.said() == ["proposed"]


@pytest.mark.parametrize(
    ("model", "code", "calls"),
    [
        pytest.param(FakeAnthropic("I would rather not say."), "output_invalid", 2, id="garbage"),
        pytest.param(FakeAnthropic('{"colour": "blue"}'), "output_invalid", 2, id="another schema"),
        pytest.param(FakeAnthropic('{"confidence": "high", "answer": 7}'), "output_invalid", 2, id="wrong types"),
        pytest.param(FakeAnthropic("[" * 100_000), "output_invalid", 2, id="nested too deep"),
        pytest.param(FakeAnthropic(""), "output_invalid", 2, id="nothing"),
        pytest.param(FakeAnthropic('{"conf', stop_reason="max_tokens"), "output_invalid", 2, id="cut at its limit"),
        pytest.param(FakeAnthropic(GOOD, stop_reason="refusal"), "model_refused", 1, id="refusing"),
    ],
)
async def test_a_model_whose_answer_is_no_answer_is_asked_twice_at_most_and_then_a_person_has_the_case(
    migrated: MigratedDatabase, model: FakeAnthropic, code: str, calls: int
) -> None:
    async with desk(migrated, model) as found:
        await found.ask()
        await found.bench.hurry()
        await found.bench.worker.step()

        assert await found.said() == [f"failed {code}", f"dead {code}"]
        assert len(model.sent) == calls
        [failed] = [e.data for e in await found.bench.said(ProposalFailed)]
        assert isinstance(failed, ProposalFailed)
        assert failed.cost_usd > 0, "what came to nothing cost something too"


async def test_a_model_that_stays_away_past_the_age_of_an_answer_leaves_the_case_to_a_person(
    migrated: MigratedDatabase,
) -> None:
    model = FakeAnthropic(GOOD, status=529)
    async with desk(migrated, model) as found:
        found.bench.outside.tick(-24 * 3600 + 120)  # max_age_hours is 24
        await found.ask()
        young = await found.said()
        found.bench.outside.tick(-240)
        await found.bench.hear(found.bench.outside.says("2"))
        await found.bench.worker.step()
        await found.bench.hurry()
        await found.bench.worker.step()

        assert young == []
        assert await found.said() == ["failed model_overloaded"]
        [failed] = await found.bench.said(ProposalFailed)
        assert failed.case_id.endswith(":2")


async def test_a_model_that_is_back_answers_what_is_old_and_the_rules_judge_its_age(migrated: MigratedDatabase) -> None:
    async with desk(migrated, FakeAnthropic(GOOD)) as found:
        found.bench.outside.tick(-25 * 3600)
        await found.ask()

        assert await found.said() == ["proposed"]
