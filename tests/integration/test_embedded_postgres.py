import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from nightshift.embedded.postgres import EmbeddedPostgres, FolderBusyError, PostgresError, servers_in
from nightshift.supervisor import PROJECT
from tests.conftest import MigratedDatabase, server_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder() as made:
        yield made


async def ask(server: EmbeddedPostgres, question: str) -> object:
    connection = await asyncpg.connect(server.admin_url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_a_new_folder_gives_the_database_with_pgvector_and_durable_commits(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg") as server:
        assert await ask(server, "SELECT '[1,2]'::vector::text") == "[1,2]"
        assert await ask(server, "SELECT current_setting('fsync') || current_setting('synchronous_commit')") == "onon"

    assert servers_in(folder / "pg" / "data") == []


async def test_committed_rows_survive_kill_9_of_the_server_and_a_second_start(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg") as server:
        await ask(server, "CREATE TABLE kept AS SELECT 7 AS n")
        server.kill()
        server.restart()
        assert await ask(server, "SELECT n FROM kept") == 7

    with EmbeddedPostgres(folder / "pg") as server:
        assert await ask(server, "SELECT n FROM kept") == 7


def test_the_server_ends_when_its_owner_is_killed_and_the_folder_is_free_again(folder: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from nightshift.embedded.postgres import EmbeddedPostgres
        print(EmbeddedPostgres(Path(sys.argv[1])).start().pid, flush=True)
        sys.stdin.read()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), folder / "pg"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        owner.kill()

    psutil.wait_procs([server], timeout=20)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    with EmbeddedPostgres(folder / "pg") as again:
        assert again.pid is not None


def test_a_folder_in_use_is_refused_with_the_mend(folder: Path) -> None:
    with (
        EmbeddedPostgres(folder / "pg"),
        pytest.raises(FolderBusyError, match="stop it first"),
        EmbeddedPostgres(folder / "pg"),
    ):
        pass


async def test_stale_files_of_a_dead_server_do_not_hinder_a_start(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg") as server:
        words = (server.data / "postmaster.pid").read_text().splitlines()
    words[0] = str(os.getpid())  # alive, and no Postgres
    (server.data / "postmaster.pid").write_text("\n".join(words))
    server.socket_folder.mkdir(mode=0o700, exist_ok=True)
    (server.socket_folder / ".s.PGSQL.5432.lock").write_text("\n".join(words))

    with EmbeddedPostgres(folder / "pg") as server:
        assert await ask(server, "SELECT 1") == 1


async def test_a_path_too_long_for_a_socket_still_works(folder: Path) -> None:
    with EmbeddedPostgres(folder / ("long" * 30) / "pg") as server:
        assert server.socket_folder.stat().st_mode & 0o077 == 0
        assert await ask(server, "SELECT 1") == 1

    assert not server.socket_folder.exists()


def test_a_cluster_that_was_made_half_is_made_anew(folder: Path) -> None:
    half = folder / "pg" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    with EmbeddedPostgres(folder / "pg") as server:
        assert server.pid is not None


async def test_over_tcp_the_password_of_the_folder_is_needed(folder: Path, free_port: int) -> None:
    with EmbeddedPostgres(folder / "pg", tcp_port=free_port) as server:
        password = (server.folder / "password").read_text()
        at = f"postgresql://postgres@127.0.0.1:{free_port}/nightshift"
        connection = await asyncpg.connect(at, password=password)
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(at, password="wrong")


def test_a_setting_that_postgres_refuses_is_shown_with_its_words(folder: Path) -> None:
    with pytest.raises(PostgresError, match="shared_bufers"):
        EmbeddedPostgres(folder / "pg", settings={"shared_bufers": "1MB"}).start()

    assert servers_in(folder / "pg" / "data") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
def test_root_is_told_when_the_other_user_cannot_enter_the_folder(folder: Path) -> None:
    folder.chmod(0o700)

    with pytest.raises(PostgresError, match=r"cannot enter .* --state"):
        EmbeddedPostgres(folder / "pg").start()


async def test_a_migrated_database_lets_each_role_see_its_own_schema_alone(migrated: MigratedDatabase) -> None:
    actor = await asyncpg.connect(migrated.url("nightshift_actor"))
    try:
        assert await actor.fetchval("SELECT count(*) FROM actor.outbox") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await actor.fetchval("SELECT count(*) FROM ingest.outbox")
    finally:
        await actor.close()


async def test_a_test_database_is_empty_and_has_pgvector(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT extname FROM pg_extension WHERE extname = 'vector'") == "vector"
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        await connection.close()


def test_an_interrupt_in_the_terminal_does_not_reach_the_server(folder: Path) -> None:
    ours = signal.getsignal(signal.SIGINT)
    with EmbeddedPostgres(folder / "pg") as server:
        assert server.pid is not None
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert signal.getsignal(signal.SIGINT) is ours, "it was set aside while the server started, and put back"
