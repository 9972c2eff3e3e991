"""A candidate as the README leads to it: in shadow it is listed and does nothing, on trial it goes back when worse."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nightshift.demo import outside
from nightshift.embedded.child import free_port
from nightshift.reach import database
from services.actor.handlers.candidate import came
from services.reporter.outbound import queries
from services.runtime import candidates
from services.runtime.candidates import Order, place_of
from services.runtime.postgres import Connection
from services.runtime.process import SHIPPED, case_id_of, load
from tests.e2e.conftest import END_SECONDS_MAX, NewState, settings_beside, started, typed
from tests.fakes.other_side import OtherSide
from tests.readme import from_readme
from tests.waiting import until

pytestmark = pytest.mark.alike_on_any_stack

ADMIT = from_readme('nightshift admit support --candidate --reason "the vendor is too slow for evals today"')
QUERIES = load("support").settings.sources["shop"].queries
BOOKS_WITHOUT_ROWS = 'support.sources.shop.connector = "none"\n' + "".join(
    f'support.sources.shop.queries.{name} = "[]"\n' for name in QUERIES
)
CANARY = from_readme('nightshift candidate support --canary 5 --reason "the shadow was right"')


@dataclass(frozen=True)
class Running:
    """A stack whose process has a candidate, beside a help desk and somebody on duty."""

    state: Path
    settings: Mapping[str, str]
    world: outside.World
    duty: OtherSide
    operator: Connection

    async def typed(self, line: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(typed, line, self.state, **self.settings)

    async def ordered(self, line: str) -> str:
        """What it says, for it is done."""
        done = await self.typed(line)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def stands(self) -> Any:
        return json.loads(await self.ordered("nightshift candidate support --json"))

    async def order(self) -> Order:
        """What was ordered last."""
        order = await candidates.order_of(self.operator, "support")
        assert order is not None, "something was"
        return order

    async def played(self) -> set[str]:
        """Wait for the end of the night; the cases of all nights."""

        async def is_over() -> bool:
            return (await self.world.night()).over

        await until(is_over)
        facts = (await self.world.night()).facts
        assert facts is not None
        return {case_id_of("support", "zendesk", str(ticket_id)) for ticket_id in facts.all}


@asynccontextmanager
async def running(new_state: NewState, folder: Path, knowledge: str, *, overrides: str = "") -> AsyncIterator[Running]:
    """A candidate that knows one file of knowledge alone; after the block all ends in time."""
    process_folder = shutil.copytree(SHIPPED / "support", folder / "processes" / "support")
    (its := process_folder / "candidate" / "knowledge").mkdir(parents=True)
    shutil.copy(process_folder / "knowledge" / knowledge, its)
    known, port = outside.credentials(folder / "world", None), free_port()
    webhook_url = f"http://127.0.0.1:{port}/webhooks/support/zendesk"
    async with (
        OtherSide() as duty,
        outside.world(folder, known, webhook_url=webhook_url, cases_url="", seed=1, mischief=()) as world,
    ):
        settings = settings_beside(known, process_folder.parent)
        settings["NIGHTSHIFT_PROCESS_OVERRIDES"] += overrides
        settings["NIGHTSHIFT_TELL_URLS"] = duty.url.replace("http", "json", 1)
        up = f".venv/bin/nightshift up --intake-port {port}"
        with new_state() as state, started(up, state, until="ready\n", **settings) as (process, _):
            async with database(state) as operator:
                yield Running(state, settings, world, duty, operator)
            process.send_signal(signal.SIGINT)
            assert process.wait(END_SECONDS_MAX) == 0


async def test_a_candidate_in_shadow_is_listed_beside_what_was_live(new_state: NewState, tmp_path: Path) -> None:
    async with running(new_state, tmp_path, "contact.md") as beside:  # it knows the answer to hardly anything
        before = await beside.stands()
        in_shadow = from_readme('nightshift candidate support --shadow 20 --reason "a kinder prompt"')
        said = await beside.ordered(in_shadow.replace("20", "100"))
        banner = await beside.ordered("nightshift status")
        await beside.world.begin(tickets=6, seconds=1)
        await until(lambda: queries.shadows_that_differ(beside.operator, "support", before["regime"]))
        case_id = (await beside.stands())["differing"][0]["case_id"]
        listed = await beside.ordered(from_readme("nightshift candidate support"))
        story = await beside.ordered(f"nightshift case {case_id}")
        ended = await beside.ordered(from_readme('nightshift candidate support --off --reason "seen enough"'))
        after = await beside.stands()

    assert (before["mode"], before["shadow"]) == ("off", [])
    assert "is in shadow on 100 % of the cases" in said
    assert "support has a candidate in shadow on 100 % of its cases" in banner
    assert "candidate: hold" in listed
    assert case_id in listed
    assert "In shadow: the candidate's proposal would have been decided otherwise" in story
    assert "is off" in ended
    assert (after["mode"], after["reason"]) == ("off", "seen enough")


async def test_a_candidate_on_trial_that_holds_everything_goes_back_by_itself_and_a_person_is_told(
    new_state: NewState, tmp_path: Path
) -> None:
    overrides = BOOKS_WITHOUT_ROWS + "support.candidate.returns.min_cases = 15\n"
    async with running(new_state, tmp_path, "delete-account.md", overrides=overrides) as beside:
        without = await beside.typed(CANARY)
        admitted = await beside.ordered(ADMIT)
        let = await beside.ordered(CANARY.replace("5", "50"))
        on_trial = await beside.stands()

        async def has_cases() -> bool:
            return (await came(beside.operator, "support", (await beside.order()).generation))[0].cases > 0

        async def is_off() -> bool:
            return (await beside.order()).mode == "off"

        async def proposed() -> list[bool]:
            made = "SELECT candidate FROM actor.proposals WHERE case_id = ANY($1)"
            return [row["candidate"] for row in await beside.operator.fetch(made, its_share)]

        await beside.world.begin(tickets=12, seconds=1)  # too few to go back
        await until(has_cases)
        watched = await beside.ordered(from_readme("nightshift candidate support"))
        await beside.played()
        await beside.world.begin(tickets=80, seconds=4)
        await until(is_off)
        after = await beside.stands()
        await until(lambda: any(b"the candidate was switched off: held" in asked.body for asked in beside.duty.asked))
        story = await beside.ordered(from_readme("nightshift case support"))
        before = await beside.played()
        await beside.world.begin(tickets=20, seconds=1)
        its_share = [case_id for case_id in await beside.played() - before if place_of(case_id) < 50]
        await until(proposed)
        by_candidate = await proposed()

    assert without.returncode != 0
    assert "`nightshift eval support --candidate --model nearest --write`, or" in " ".join(without.stderr.split())
    assert "its candidate may ask nearest without a passed eval" in admitted
    assert "is in canary on 50 % of the cases" in let
    assert (on_trial["mode"], on_trial["percent"]) == ("canary", 50)
    assert re.search(r"candidate +\d+ ", watched)
    assert after["changed_by"] == "nightshift/actor"
    assert re.match(r"held: (\d+) of \1 \(100.0%\), and of the other cases", after["reason"])
    assert "switched the candidate off" in story
    assert not any(by_candidate)


def test_what_cannot_be_ordered_is_refused_with_its_mend(new_state: NewState, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "support", tmp_path / "support")
    settings = {"NIGHTSHIFT_PROCESSES_FOLDER": str(tmp_path)}
    same = tmp_path / "support" / "candidate" / "examples.jsonl"
    with new_state() as state:

        def refused(line: str) -> str:
            done = typed(f"nightshift candidate support {line}", state, **settings)
            assert done.returncode != 0, done.stdout
            return " ".join(done.stderr.split())

        without = refused('--shadow 20 --reason "why not"')
        same.parent.mkdir()
        shutil.copy(tmp_path / "support" / "examples.jsonl", same)
        live = refused('--shadow 20 --reason "why not"')
        no_reason = refused("--shadow 20")
        both = refused('--shadow 20 --off --reason "why not"')
        nobody_left = refused('--canary 100 --reason "why not"')
        percent = refused('--shadow 101 --reason "why not"')
        (same.parent / "prompt.md").write_text("Be kind.")
        misplaced = refused('--shadow 20 --reason "why not"')

    assert "support has no candidate: put a prompt.md" in without
    assert "is what is live already" in live
    assert "say with --reason why" in no_reason
    assert "one of --shadow, --canary and --off" in both
    assert "less than or equal to 99" in nobody_left
    assert "less than or equal to 100" in percent
    assert "prompt.md is no part of a candidate" in misplaced
