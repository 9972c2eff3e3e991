"""A prompt changed as the README leads to it: not served without a passed eval, or a person who lets it."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nightshift.demo import outside
from nightshift.embedded.child import free_port
from nightshift.reach import database
from services.reporter.domain.views import Status
from services.reporter.outbound import queries
from services.runtime.process import SHIPPED
from tests.e2e.conftest import END_SECONDS_MAX, NewState, settings_beside, started, typed
from tests.readme import from_readme
from tests.waiting import until

pytestmark = pytest.mark.alike_on_any_stack


async def test_a_changed_prompt_waits_for_a_person_or_for_its_record_and_loses_nothing(
    new_state: NewState, tmp_path: Path
) -> None:
    folder = shutil.copytree(SHIPPED / "support", tmp_path / "processes" / "support")
    with (folder / "steps" / "answer" / "prompt.md").open("a") as prompt:
        prompt.write("\nBe kind.\n")
    known = outside.credentials(tmp_path / "world", None)
    settings = settings_beside(known, folder.parent)
    port = free_port()
    webhook_url = f"http://127.0.0.1:{port}/webhooks/support/zendesk"
    with new_state() as state:

        def status() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(typed("nightshift status --json", state, **settings).stdout)
            return told

        async def until_it_shows(what: Callable[[Status], object]) -> None:
            async def shows() -> object:
                return what(await queries.status(operator))

            async with database(state) as operator:
                await until(shows)

        def up() -> Any:
            return started(f".venv/bin/nightshift up --intake-port {port}", state, until="ready\n", **settings)

        async with outside.world(tmp_path, known, webhook_url=webhook_url, cases_url="", seed=1, mischief=()) as world:
            with up() as (process, _):
                await until_it_shows(lambda stands: stands.regimes)
                await world.begin(tickets=2, seconds=1)
                await until_it_shows(lambda stands: stands.cases)
                waiting = status()
                said = typed(from_readme("nightshift status"), state, **settings).stdout
                examined = typed(from_readme(".venv/bin/nightshift doctor"), state, **settings)
                admit = from_readme('nightshift admit support --reason "only a typing error was mended"')
                admitted = typed(admit, state, **settings)
                await until_it_shows(lambda stands: stands.decisions)
                served = status()
                await until(lambda: "typing error" in typed(from_readme("nightshift case support"), state).stdout)
                process.send_signal(signal.SIGINT)
                assert process.wait(END_SECONDS_MAX) == 0
            looked = typed(from_readme("nightshift eval support"), state, **settings)
            evaluated = typed(from_readme("nightshift eval support --write"), state, **settings)
            with up():
                await until_it_shows(lambda stands: not stands.regimes)

    assert [(row["model"], row["admitted_by"]) for row in waiting["regimes"]] == [("nearest", None)]
    assert waiting["decisions"] == {}
    assert "support is not served" in said
    assert "support is not served: nearest has no passed eval on record" in examined.stdout
    assert admitted.returncode == 0, admitted.stdout + admitted.stderr
    assert [row["reason"] for row in served["regimes"]] == ["only a typing error was mended"]
    assert "not on record yet" in looked.stdout
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
