"""Bring a database to this build's shape: roles, schemas, numbered SQL files, each once and never edited."""

import asyncio
import contextlib
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import asyncpg

from services.runtime.config import MigrationSettings
from services.runtime.postgres import Connection

SERVICES = ("ingest", "classifier", "actor", "reporter")
ROLES = frozenset(f"nightshift_{service}" for service in SERVICES)
_HERE = Path(__file__).resolve().parent
_LOCK = 4_711_001
_MONTHS = "SELECT control.make_months(whole) FROM control.months WHERE owner = current_user GROUP BY whole"
_LOGIN_BY = "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)"


class EditedMigrationError(Exception):
    """A migration that landed was changed afterwards; write a new one instead."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} differs from what this database ran; undo the edit and add a new numbered file")


class UnknownRoleError(Exception):
    """A service's address names a role that is none of ours: its password is not ours to set."""

    def __init__(self, role: str) -> None:
        super().__init__(f"there is no service with the role {role!r}; the roles are {', '.join(sorted(ROLES))}")


async def migrate(admin_url: str, passwords: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """Apply what is missing and return its names. Safe to call from several programs at once.

    `passwords` are by role of a service; roles that are not named keep theirs. Raises UnknownRoleError.
    """
    if unknown := sorted(passwords.keys() - ROLES):
        raise UnknownRoleError(unknown[0])
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await _make_roles_and_schemas(connection)
        for role, password in passwords.items():
            await connection.execute(await connection.fetchval(_LOGIN_BY, role, password))
        applied = []
        for scope, (service, folder) in folders().items():
            applied += await _apply(connection, scope, service, folder)
        with contextlib.suppress(asyncpg.LockNotAvailableError):  # somebody reads for long: services make them later
            await _make_months(connection)
        return applied
    finally:
        await connection.close()


def folders() -> dict[str, tuple[str | None, Path]]:
    """By scope, in order: whose files they are, and where. What comes after expects what the service did to its own."""
    found: dict[str, tuple[str | None, Path]] = {"control": (None, _HERE / "migrations_control")}
    for service in SERVICES:
        found[f"{service}/runtime"] = (service, _HERE / "migrations")
        found[service] = (service, _HERE.parent / service / "migrations")
        found[f"{service}/after"] = (service, _HERE / "migrations_after")
    return found


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


async def _make_months(connection: Connection) -> None:
    """The coming months of every table that is kept by month, each made by the table's owner."""
    await connection.execute(_MONTHS)
    for service in SERVICES:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE nightshift_{service}")
            await connection.execute(_MONTHS)


def main() -> None:
    """`python -m services.runtime.migrate`: migrate the database of NIGHTSHIFT_DATABASE_ADMIN_URL."""
    settings = MigrationSettings()
    applied = asyncio.run(migrate(settings.database_admin_url, settings.passwords))
    sys.stdout.write("".join(f"applied {name}\n" for name in applied) or "nothing to apply\n")


if __name__ == "__main__":
    main()
