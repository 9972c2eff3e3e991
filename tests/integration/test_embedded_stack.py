import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from nightshift.embedded.broker import speaks_kafka
from nightshift.stack import Stack, StackError, as_role, prepare_database, running
from nightshift.supervisor import PROJECT
from tests.conftest import server_folder

QUICK = {"fsync": "off"}


@pytest.fixture
def state() -> Iterator[Path]:
    with server_folder() as folder:
        yield folder / "state"


def stack_in(state: Path, **settings: str) -> Stack:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    return Stack(state, environment=environment | settings, services=(), postgres_settings=QUICK)


def nightshift(state: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    return subprocess.run(
        [sys.executable, "-m", "nightshift", *words, "--state", state],
        cwd=PROJECT,
        env=environment | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_a_stack_is_found_by_other_shells_while_it_runs_and_leaves_no_process(state: Path) -> None:
    async with stack_in(state) as stack:
        told = running(state)
        assert told is not None
        assert told["admin_url"] == stack.admin_url
        assert speaks_kafka("127.0.0.1", told["ports"]["broker"])
        pids = [told["pids"]["postgres"], told["pids"]["broker"]]
        assert all(psutil.pid_exists(pid) for pid in pids)

    assert running(state) is None
    assert not (state / "stack.json").exists()
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_second_stack_on_the_same_folder_is_refused_with_the_first_one_s_pid(state: Path) -> None:
    async with stack_in(state):
        with pytest.raises(StackError, match=str(os.getpid())):
            async with stack_in(state):
                pass


async def test_the_next_start_keeps_the_data_the_ports_and_the_console_s_token(state: Path) -> None:
    async with stack_in(state) as first:
        connection = await asyncpg.connect(first.admin_url)
        await connection.execute("UPDATE control.switches SET paused = true, reason = 'kept'")
        await connection.close()
        bootstrap = first.bootstrap
        token = (state / "console-token").read_text()

    async with stack_in(state) as second:
        connection = await asyncpg.connect(second.admin_url)
        assert await connection.fetchval("SELECT reason FROM control.switches WHERE paused") == "kept"
        await connection.close()
        assert second.bootstrap == bootstrap
        assert (state / "console-token").read_text() == token
        assert (state / "console-token").stat().st_mode & 0o777 == 0o600


async def test_a_database_and_a_broker_of_the_user_are_used_and_none_is_started(
    state: Path, database_url: str, broker: str
) -> None:
    settings = {"NIGHTSHIFT_DATABASE_URL": database_url, "NIGHTSHIFT_KAFKA_BOOTSTRAP": broker}
    async with stack_in(state, **settings) as stack:
        assert (stack.postgres, stack.broker) == (None, None)
        assert stack.bootstrap == broker
        connection = await asyncpg.connect(stack.database_url("actor"))
        assert await connection.fetchval("SELECT current_user") == "nightshift_actor"
        await connection.close()
        assert database_url not in (state / "stack.json").read_text()


@pytest.mark.parametrize(
    ("turn_off", "found"),
    [
        ("UPDATE control.switches SET paused = true WHERE process = 'support'", True),
        ("DELETE FROM control.switches WHERE process = 'support'", None),
    ],
)
async def test_preparing_a_database_twice_leaves_a_switch_that_a_person_turned_off(
    database_url: str, turn_off: str, *, found: bool | None
) -> None:
    await prepare_database(database_url, ["support"])
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT paused FROM control.switches WHERE process = 'support'") is False
    await connection.execute(turn_off)

    await prepare_database(database_url, ["support"])

    assert await connection.fetchval("SELECT paused FROM control.switches WHERE process = 'support'") is found
    await connection.close()


async def test_a_database_that_does_not_answer_is_said_without_its_password(free_port: int) -> None:
    with pytest.raises(StackError, match=r"127\.0\.0\.1") as caught:
        await prepare_database(f"postgresql://me:secret@127.0.0.1:{free_port}/nightshift")

    assert "secret" not in str(caught.value)


def test_a_role_is_added_to_an_address_with_or_without_other_settings() -> None:
    assert as_role("postgresql://h/db", "r") == "postgresql://h/db?role=r"
    assert as_role("postgresql://h/db?sslmode=require", "r") == "postgresql://h/db?sslmode=require&role=r"


async def test_a_process_whose_settings_cannot_be_read_can_be_paused(state: Path, tmp_path: Path) -> None:
    (tmp_path / "support").mkdir()
    (tmp_path / "support" / "process.toml").write_text("[[[ no toml")

    async with stack_in(state):
        paused = nightshift(state, "pause", "support", NIGHTSHIFT_PROCESSES_FOLDER=str(tmp_path))

    assert paused.returncode == 0, paused.stderr


async def test_the_shell_pauses_resumes_and_sets_modes_of_a_running_stack(state: Path) -> None:
    async with stack_in(state) as stack:
        connection = await asyncpg.connect(stack.admin_url)
        switch = "SELECT paused, reason, generation FROM control.switches WHERE process = 'support'"
        ((_, _, before),) = await connection.fetch(switch)

        done = nightshift(state, "pause", "support", "--reason", "a bad night")
        assert done.returncode == 0, done.stderr
        assert [tuple(row) for row in await connection.fetch(switch)] == [(True, "a bad night", before + 1)]

        nightshift(state, "resume", "support")
        assert [tuple(row) for row in await connection.fetch(switch)] == [(False, "", before + 2)]

        actions = json.loads(nightshift(state, "modes", "support", "--json").stdout)
        nightshift(state, "mode", "support", actions[0]["action"], "draft")
        rows = await connection.fetch("SELECT action, mode FROM control.modes")
        assert [tuple(row) for row in rows] == [(actions[0]["action"], "draft")]
        await connection.close()


async def test_the_shell_pauses_a_process_also_while_the_stack_is_down(state: Path) -> None:
    async with stack_in(state):
        pass

    assert nightshift(state, "pause", "support").returncode == 0

    async with stack_in(state) as stack:
        connection = await asyncpg.connect(stack.admin_url)
        assert await connection.fetchval("SELECT paused FROM control.switches WHERE process = 'support'") is True
        await connection.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pause", "support"), "nightshift up"),
        (("pause", "nobody"), "there is no process 'nobody'"),
        (("mode", "support", "fly", "act"), "it has: "),
    ],
)
def test_an_error_is_one_line_with_the_mend(state: Path, words: tuple[str, ...], says: str) -> None:
    done = nightshift(state, *words)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


async def test_the_doctor_finds_a_healthy_stack_healthy_and_a_paused_process_paused(state: Path) -> None:
    async with stack_in(state):
        nightshift(state, "pause", "support", "--reason", "holiday")
        done = nightshift(state, "doctor", "--json")

    findings = json.loads(done.stdout)
    assert [f for f in findings if f["level"] == "problem"] == []
    assert done.returncode == 0
    assert any(f["level"] == "warning" and "holiday" in f["text"] and "resume" in f["mend"] for f in findings)


def test_the_doctor_ends_with_1_on_a_problem_and_says_the_mend(state: Path) -> None:
    state.mkdir(mode=0o711)
    (state / "console-token").touch(mode=0o644)

    done = nightshift(state, "doctor")

    assert done.returncode == 1
    assert f"chmod 600 {state}/console-token" in done.stdout
