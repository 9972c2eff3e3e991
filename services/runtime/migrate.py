"""Bring a database to this build's shape: roles, schemas, numbered SQL files, each once and never edited."""

import asyncio
import hashlib
import sys
from pathlib import Path

import asyncpg

from services.runtime.config import MigrationSettings
from services.runtime.postgres import Connection

SERVICES = ("ingest", "classifier", "actor", "reporter")
_HERE = Path(__file__).resolve().parent
_LOCK = 4_711_001


class EditedMigrationError(Exception):
    """A migration that landed was changed afterwards; write a new one instead."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} differs from what this database ran; undo the edit and add a new numbered file")


async def migrate(admin_url: str) -> list[str]:
    """Apply what is missing and return its names. Safe to call from several programs at once."""
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await _make_roles_and_schemas(connection)
        applied = await _apply(connection, "control", None, _HERE / "migrations_control")
        for service in SERVICES:
            applied += await _apply(connection, f"{service}/runtime", service, _HERE / "migrations")
            applied += await _apply(connection, service, service, _HERE.parent / service / "migrations")
        return applied
    finally:
        await connection.close()


async def _make_roles_and_schemas(connection: Connection) -> None:
    """One role and one schema a service; a role reaches no schema but its own and what `control` grants."""
    for service in SERVICES:
        role = f"nightshift_{service}"
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            try:
                await connection.execute(f"CREATE ROLE {role} LOGIN NOINHERIT")
            except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
                continue  # roles belong to the cluster: a migration of another database made it just now
        await connection.execute(f"GRANT {role} TO CURRENT_USER")
    await connection.execute("CREATE SCHEMA IF NOT EXISTS nightshift")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS nightshift.migrations (name text PRIMARY KEY, digest text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    for service in SERVICES:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {service} AUTHORIZATION nightshift_{service}")


async def _apply(connection: Connection, scope: str, service: str | None, folder: Path) -> list[str]:
    """Run the files of one folder that this database has not run, each in a transaction of its own."""
    applied = []
    for file in sorted(folder.glob("*.sql")):
        name = f"{scope}/{file.name}"
        text = file.read_text()
        digest = hashlib.sha256(text.encode()).hexdigest()
        known = await connection.fetchval("SELECT digest FROM nightshift.migrations WHERE name = $1", name)
        if known == digest:
            continue
        if known is not None:
            raise EditedMigrationError(name)
        async with connection.transaction():
            if service is not None:  # the service owns what it uses
                await connection.execute(f"SET LOCAL ROLE nightshift_{service}")
                await connection.execute(f"SET LOCAL search_path = {service}, public, pg_catalog")
            await connection.execute(text)
            if service is not None:
                await connection.execute("RESET ROLE")
            await connection.execute("INSERT INTO nightshift.migrations (name, digest) VALUES ($1, $2)", name, digest)
        applied.append(name)
    return applied


def main() -> None:
    """`python -m services.runtime.migrate`: migrate the database of NIGHTSHIFT_DATABASE_ADMIN_URL."""
    applied = asyncio.run(migrate(MigrationSettings().database_admin_url))
    sys.stdout.write("".join(f"applied {name}\n" for name in applied) or "nothing to apply\n")


if __name__ == "__main__":
    main()
