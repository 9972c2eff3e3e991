"""The first choice fails and the fallback answers at once; the events say who, and why the other did not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal

from contracts.events.dead_letters import DeadLetterRaised
from contracts.events.proposals import ProposalFailed, ProposalMade
from services.classifier.outbound.patient import FAILURES_MAX, PatientProvider
from tests.conftest import MigratedDatabase
from tests.fakes.acting import tiny
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.ollama import FakeOllama
from tests.fakes.proposing import GOOD, Bench, bench

CLAUDE, OLLAMA = "claude:claude-haiku-4-5", "ollama:m:1b"


@dataclass
class Desk:
    """A classifier that asks `claude`, and then `ollama`."""

    bench: Bench
    claude: FakeAnthropic
    ollama: FakeOllama

    async def ask(self, ticket: str) -> None:
        await self.bench.hear(self.bench.outside.says(ticket))
        await self.bench.worker.step()

    async def made(self) -> list[ProposalMade]:
        return [e.data for e in await self.bench.said(ProposalMade) if isinstance(e.data, ProposalMade)]

    async def failed(self) -> list[ProposalFailed]:
        return [e.data for e in await self.bench.said(ProposalFailed) if isinstance(e.data, ProposalFailed)]


@asynccontextmanager
async def desk(migrated: MigratedDatabase, claude: FakeAnthropic, ollama: FakeOllama) -> AsyncIterator[Desk]:
    async with bench(migrated, tiny()) as made:
        made.provider = PatientProvider(claude.claude())
        made.fallback = [PatientProvider(ollama.ollama())]
        made.worker = made.new_worker()
        yield Desk(made, claude, ollama)


async def test_the_fallback_answers_at_once_under_its_own_name_and_the_event_says_who_failed(
    migrated: MigratedDatabase,
) -> None:
    async with desk(migrated, FakeAnthropic(GOOD), FakeOllama(GOOD)) as found:
        await found.ask("1")
        found.claude.status = 529
        await found.ask("2")

        by_claude, by_ollama = await found.made()
        assert (by_claude.made_from.model, by_claude.failed) == (CLAUDE, ())
        assert by_ollama.made_from.model == OLLAMA
        assert [(one.model, one.code) for one in by_ollama.failed] == [(CLAUDE, "model_overloaded")]


async def test_what_the_first_choice_took_counts_and_each_call_stands_in_the_ledger_under_its_model(
    migrated: MigratedDatabase,
) -> None:
    async with desk(migrated, FakeAnthropic("I would rather not say."), FakeOllama(GOOD)) as found:
        await found.ask("1")

        [made] = await found.made()
        calls = await found.bench.admin.fetch("SELECT model, cost_usd FROM classifier.model_calls ORDER BY reserved_at")
        assert [(call["model"], call["cost_usd"] > 0) for call in calls] == [
            (CLAUDE, True),
            (CLAUDE, True),
            (OLLAMA, False),
        ]
        assert made.cost_usd == sum((call["cost_usd"] for call in calls), start=Decimal(0))
        assert made.attempts == 3
        assert made.tokens_in > 2 * 1400, "those of the machine of ours too"


async def test_a_first_choice_that_is_left_alone_is_not_asked_before_the_fallback(migrated: MigratedDatabase) -> None:
    async with desk(migrated, FakeAnthropic(GOOD, status=529), FakeOllama(GOOD)) as found:
        for ticket in range(FAILURES_MAX):
            await found.ask(str(ticket))
        asked = len(found.claude.sent)
        await found.ask("last")

        *_, last = await found.made()
        assert (asked, len(found.claude.sent)) == (FAILURES_MAX, FAILURES_MAX)
        assert [one.code for one in last.failed] == ["model_left_alone"]


async def test_where_neither_can_answer_the_work_waits_and_uses_up_no_attempt(migrated: MigratedDatabase) -> None:
    async with desk(migrated, FakeAnthropic(GOOD, status=529), FakeOllama(GOOD, status=503)) as found:
        for _ in range(3):  # more than attempts_max would be dead by then
            await found.ask("1")
            await found.bench.hurry()
        waiting = await found.made(), await found.failed()
        found.ollama.status = 200
        await found.bench.hurry()
        await found.bench.worker.step()

        assert waiting == ([], [])
        assert [one.made_from.model for one in await found.made()] == [OLLAMA]


async def test_after_the_last_model_a_person_has_the_case_and_learns_which_failed_how(
    migrated: MigratedDatabase,
) -> None:
    async with desk(migrated, FakeAnthropic(GOOD, status=401), FakeOllama("no JSON")) as found:
        await found.ask("1")

        [failed] = await found.failed()
        [dead] = [e.data for e in await found.bench.said(DeadLetterRaised)]
        assert isinstance(dead, DeadLetterRaised)
        assert (failed.code, dead.code) == ("output_invalid", "output_invalid")
        assert [(one.model, one.code) for one in failed.failed] == [
            (CLAUDE, "model_key_rejected"),
            (OLLAMA, "output_invalid"),
        ]
        assert f"asked in turn: {CLAUDE} model_key_rejected, {OLLAMA} output_invalid" in dead.message


async def test_when_even_waiting_is_over_the_event_names_the_models_that_were_away(migrated: MigratedDatabase) -> None:
    async with desk(migrated, FakeAnthropic(GOOD, status=529), FakeOllama(GOOD, status=503)) as found:
        found.bench.outside.tick(-25 * 3600)  # max_age_hours is 24
        await found.ask("1")

        [failed] = await found.failed()
        assert [one.model for one in failed.failed] == [CLAUDE, OLLAMA]
