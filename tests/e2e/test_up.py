"""`nightshift up` as the README leads to it: beside a help desk of one's own, looked at, and one action raised."""

import json
import re
import signal
from pathlib import Path

from nightshift.demo import outside
from nightshift.embedded.child import free_port
from tests.e2e.conftest import END_SECONDS_MAX, NewState, started, typed
from tests.readme import from_readme


async def test_it_runs_beside_a_help_desk_of_ones_own_and_does_nothing_until_an_action_is_raised(
    new_state: NewState, tmp_path: Path
) -> None:
    with new_state() as state:
        known = outside.credentials(tmp_path / "world", None)
        settings = {**known.environment(), "NIGHTSHIFT_SHOP_URL": f"postgresql://reader@127.0.0.1:{free_port()}/shop"}
        port = free_port()
        command = from_readme(".venv/bin/nightshift up --state some/folder").replace("some/folder", str(state))
        async with outside.world(tmp_path, known, webhook_url="", cases_url="", seed=1, mischief=()):
            line = f"{command} {from_readme('--intake-port')} {port}"
            with started(line, state, until="ready\n", **settings) as (process, told):
                looked = typed(
                    f"{from_readme('.venv/bin/nightshift doctor')} {from_readme('--state')} {state}", state, **settings
                )
                before = typed(f"{from_readme('nightshift modes support')} --json", state)
                raised = [
                    typed(from_readme("nightshift mode support handover act"), state),
                    typed(from_readme("nightshift mode support reply draft"), state),
                ]
                after = typed("nightshift modes support --json", state)
                process.send_signal(signal.SIGINT)
                assert process.wait(END_SECONDS_MAX) == 0

    assert f"http://127.0.0.1:{port}/webhooks/support/zendesk" in told
    assert re.search(r"console +http://127\.0\.0\.1:\d+/", told)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert {row["mode"] for row in json.loads(before.stdout)} == {"watch"}
    assert [one.returncode for one in raised] == [0, 0]
    modes = {row["action"]: row["mode"] for row in json.loads(after.stdout)}
    assert {action: mode for action, mode in modes.items() if mode != "watch"} == {"handover": "act", "reply": "draft"}
