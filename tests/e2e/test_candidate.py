"""A candidate put into shadow as the README leads to it: what it would have done is listed, and it did nothing."""

import asyncio
import json
import re
import shutil
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from nightshift.demo import outside
from nightshift.embedded.child import free_port
from services.runtime.candidates import place_of
from services.runtime.process import SHIPPED, case_id_of, load
from tests.e2e.conftest import END_SECONDS_MAX, NewState, RunningDemo, settings_beside, started, typed
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


async def test_a_candidate_in_shadow_is_listed_beside_what_was_live(new_state: NewState, tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED / "support", tmp_path / "processes" / "support")
    (knowledge := folder / "candidate" / "knowledge").mkdir(parents=True)
    shutil.copy(folder / "knowledge" / "contact.md", knowledge)  # it knows the answer to hardly anything
    known = outside.credentials(tmp_path / "world", None)
    settings = settings_beside(known, folder.parent)
    port = free_port()
    webhook_url = f"http://127.0.0.1:{port}/webhooks/support/zendesk"
    with new_state() as state:

        def ordered(line: str) -> str:
            done = typed(line, state, **settings)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        def stands() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(ordered("nightshift candidate support --json"))
            return told

        async with outside.world(tmp_path, known, webhook_url=webhook_url, cases_url="", seed=1, mischief=()) as world:
            up = f".venv/bin/nightshift up --intake-port {port}"
            with started(up, state, until="ready\n", **settings) as (process, _):
                before = stands()
                said = ordered(
                    from_readme('nightshift candidate support --shadow 20 --reason "a kinder prompt"').replace(
                        "20", "100"
                    )
                )
                banner = ordered("nightshift status")
                await world.begin(tickets=6, seconds=1)
                await until(lambda: stands()["differing"])
                case_id = stands()["differing"][0]["case_id"]
                listed = ordered(from_readme("nightshift candidate support"))
                story = ordered(f"nightshift case {case_id}")
                without = typed(CANARY, state, **settings)
                admitted = ordered(ADMIT)
                let = ordered(CANARY.replace("5", "99"))
                await world.begin(tickets=6, seconds=1)
                await until(lambda: stands()["canary"][0]["cases"] >= 3)
                on_trial = stands()
                watched = ordered(from_readme("nightshift candidate support"))
                ended = ordered(from_readme('nightshift candidate support --off --reason "seen enough"'))
                after = stands()
                process.send_signal(signal.SIGINT)
                assert process.wait(END_SECONDS_MAX) == 0

    assert (before["mode"], before["shadow"]) == ("off", [])
    assert "is in shadow on 100 % of the cases" in said
    assert "support has a candidate in shadow on 100 % of its cases" in banner
    assert "candidate: hold" in listed
    assert case_id in listed
    assert "In shadow: the candidate's proposal would have been decided otherwise" in story
    assert without.returncode != 0
    assert "`nightshift eval support --candidate --model nearest --write`, or" in " ".join(without.stderr.split())
    assert "its candidate may ask nearest without a passed eval" in admitted
    assert "is in canary on 99 % of the cases" in let
    assert (on_trial["mode"], on_trial["percent"]) == ("canary", 99)
    assert re.search(r"candidate +\d+ ", watched)
    assert "is off" in ended
    assert (after["mode"], after["reason"]) == ("off", "seen enough")


async def test_a_candidate_that_holds_everything_goes_back_by_itself_and_a_person_is_told(
    new_state: NewState, tmp_path: Path
) -> None:
    folder = shutil.copytree(SHIPPED / "support", tmp_path / "processes" / "support")
    (knowledge := folder / "candidate" / "knowledge").mkdir(parents=True)
    shutil.copy(folder / "knowledge" / "delete-account.md", knowledge)  # with this alone every case is held
    known = outside.credentials(tmp_path / "world", None)
    port = free_port()
    webhook_url = f"http://127.0.0.1:{port}/webhooks/support/zendesk"
    settings = settings_beside(known, folder.parent)
    settings["NIGHTSHIFT_PROCESS_OVERRIDES"] += BOOKS_WITHOUT_ROWS + "support.candidate.returns.min_cases = 15\n"
    async with AsyncExitStack() as beside:
        state = beside.enter_context(new_state())
        duty = await beside.enter_async_context(OtherSide())
        settings["NIGHTSHIFT_TELL_URLS"] = duty.url.replace("http", "json", 1)

        async def ordered(line: str) -> str:
            done = await asyncio.to_thread(typed, line, state, **settings)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        async def stands() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(await ordered("nightshift candidate support --json"))
            return told

        async def is_off() -> bool:
            return bool((await stands())["mode"] == "off")

        async def proposed() -> list[bool]:
            rows = await operator.fetch("SELECT candidate FROM actor.proposals WHERE case_id = ANY($1)", its_share)
            return [row["candidate"] for row in rows]

        async def is_over() -> bool:
            return (await world.night()).over

        async def played() -> set[str]:
            await until(is_over)
            facts = (await world.night()).facts
            assert facts is not None
            return {case_id_of("support", "zendesk", str(ticket_id)) for ticket_id in facts.all}

        world = await beside.enter_async_context(
            outside.world(tmp_path, known, webhook_url=webhook_url, cases_url="", seed=1, mischief=())
        )
        up = f".venv/bin/nightshift up --intake-port {port}"
        process, said = beside.enter_context(started(up, state, until="ready\n", **settings))
        await ordered(ADMIT)
        await ordered(CANARY.replace("5", "50"))
        await world.begin(tickets=80, seconds=4)
        await until(is_off)
        after = await stands()
        await until(lambda: any(b"the candidate is worse" in asked.body for asked in duty.asked))
        story = await ordered(from_readme("nightshift case support"))
        before = await played()
        await world.begin(tickets=20, seconds=1)
        its_share = [case_id for case_id in await played() - before if place_of(case_id) < 50]
        operator = await asyncpg.connect(RunningDemo(state, said, process).admin_url)
        await until(proposed)
        by_candidate = await proposed()
        await operator.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(END_SECONDS_MAX) == 0

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
