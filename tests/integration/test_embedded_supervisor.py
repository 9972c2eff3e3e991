import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from nightshift.embedded.child import free_port
from nightshift.supervisor import PROJECT, Service, ServiceError, supervise


def small(name: str, manner: str = "") -> Service:
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
    return Service(
        name=name,
        module="tests.fakes.small_service",
        environment={**environment, "NIGHTSHIFT_HTTP_PORT": str(port), "SMALL_SERVICE": manner},
        ready_url=f"http://127.0.0.1:{port}/readyz",
    )


async def test_services_run_log_to_their_files_and_end_with_the_block(tmp_path: Path) -> None:
    async with supervise([small("one"), small("two")], logs=tmp_path) as supervisor:
        await supervisor.ready()
        pids = [supervisor.pid("one"), supervisor.pid("two")]
        assert supervisor.log_of("one").read_text() == '{"event": "ready"}\n'

    assert [pid for pid in pids if pid is None or psutil.pid_exists(pid)] == []


async def test_a_killed_service_is_started_again(tmp_path: Path) -> None:
    starts = asyncio.Queue[None]()
    async with supervise([small("one")], logs=tmp_path, changed=lambda: starts.put_nowait(None)) as supervisor:
        await supervisor.ready()
        await starts.get()
        first = supervisor.pid("one")

        supervisor.kill("one")
        await starts.get()

        await supervisor.ready()
        assert supervisor.pid("one") != first
        assert supervisor.restarts("one") == 1


async def test_a_service_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    async with supervise([small("one", "stubborn")], logs=tmp_path, grace_seconds=0.2) as supervisor:
        await supervisor.ready()
        pid = supervisor.pid("one")

    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_service_that_cannot_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"service one .* a setting is missing"):
        async with supervise([small("one", "broken")], logs=tmp_path) as supervisor:
            await supervisor.ready()


async def test_an_error_in_the_block_stops_the_services_and_comes_out_as_it_is(tmp_path: Path) -> None:
    pid = None
    with pytest.raises(LookupError, match="the block's own"):
        async with supervise([small("one")], logs=tmp_path) as supervisor:
            await supervisor.ready()
            pid = supervisor.pid("one")
            raise LookupError("the block's own")

    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_services_die_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        from pathlib import Path
        from nightshift.supervisor import supervise
        from tests.integration.test_embedded_supervisor import small

        async def main():
            async with supervise([small("one", "stubborn")], logs=Path(sys.argv[1])) as supervisor:
                await supervisor.ready()
                print(supervisor.pid("one"), flush=True)
                await asyncio.Event().wait()

        asyncio.run(main())
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path], cwd=PROJECT, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        service = psutil.Process(int(owner.stdout.readline()))
        owner.kill()

    psutil.wait_procs([service], timeout=10)
    assert not service.is_running() or service.status() == psutil.STATUS_ZOMBIE
