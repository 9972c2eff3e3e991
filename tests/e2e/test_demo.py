import os
import signal

import pytest

from tests.conftest import server_folder
from tests.e2e.conftest import (
    END_SECONDS_MAX,
    STAYS,
    NewState,
    alive,
    demo_in,
    family_of,
    nightshift,
    started,
)
from tests.readme import from_readme
from tests.stacks import Real, Stack


def test_make_plays_it_and_after_ctrl_c_leaves_nothing(stack: Stack) -> None:
    if isinstance(stack, Real):
        pytest.skip("about make and the embedded stack")
    with server_folder() as folder:
        state = folder / "state"
        with started(f'{from_readme("make demo")} ARGS="--tickets 3"', state, until=STAYS) as (process, told):
            family = family_of(process.pid)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            process.wait(END_SECONDS_MAX)

        assert "17 of 17 promises held" in told
        assert len(family) > 6  # make besides
        assert alive(family) == []


def test_ctrl_c_in_the_middle_of_a_night_leaves_nothing_within_ten_seconds(new_state: NewState) -> None:
    with new_state() as state:
        with demo_in(state, "--tickets", "3", until="evening:") as demo:
            family = family_of(demo.process.pid)
            seconds = demo.interrupt()

        assert seconds < END_SECONDS_MAX
        assert demo.process.returncode == 130
        assert len(family) > 5  # four services, the world; Postgres and the broker where these are embedded
        assert alive(family) == []
        assert not (state / "stack.json").exists()


def test_a_demo_refuses_a_folder_that_works_for_somebody() -> None:
    with server_folder() as folder:
        state = folder / "state"
        (state / "postgres" / "data").mkdir(parents=True)

        refused = nightshift(state, "demo", "--exit")

        assert refused.returncode == 1
        assert "name another folder with --state" in refused.stderr
        assert "Traceback" not in refused.stderr
