"""`python -m services.runtime.migrated actor`: wait until the database is as new as this build of that service."""

import asyncio
import hashlib
import sys
from pathlib import Path

import asyncpg

from services.runtime.config import required_setting
from services.runtime.migrate import SERVICES, folders
from services.runtime.postgres import UNAVAILABLE

LOOK_SECONDS = 1.0
_KNOWN = "SELECT name, digest FROM nightshift.migrations"
_NOT_YET = (
    *UNAVAILABLE,
    asyncpg.InvalidAuthorizationSpecificationError,  # the migration makes the role, and sets its password
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.InsufficientPrivilegeError,
)


def expected(service: str) -> dict[str, str]:
    """The digest of each migration that this build of `service` needs, by name."""
    files = {
        f"{scope}/{file.name}": file
        for scope, (of, folder) in folders().items()
        if of in (None, service)
        for file in folder.glob("*.sql")
    }
    return {name: _digest(file) for name, file in files.items()}


async def missing(url: str, service: str) -> list[str]:
    """The migrations that the database has not run yet. Raises what asyncpg raises."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        known = {row["name"]: row["digest"] for row in await connection.fetch(_KNOWN)}
    finally:
        await connection.close()
    return sorted(name for name, digest in expected(service).items() if known.get(name) != digest)


async def wait(url: str, service: str) -> None:
    """Return when nothing is missing. What a newer build added does no harm."""
    said = ""
    while True:
        try:
            lacking = await missing(url, service)
        except _NOT_YET as error:
            says = f"the database cannot be asked yet: {type(error).__name__}"
        else:
            if not lacking:
                return
            says = f"waiting for {len(lacking)} migrations, the first is {lacking[0]}"
        if says != said:
            sys.stdout.write(says + "\n")
            sys.stdout.flush()
            said = says
        await asyncio.sleep(LOOK_SECONDS)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_text().encode()).hexdigest()


def main() -> None:
    """Wait for the service named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in SERVICES:  # noqa: PLR2004  # the program and the service
        sys.exit(f"usage: python -m services.runtime.migrated {'|'.join(SERVICES)}")
    asyncio.run(wait(required_setting("NIGHTSHIFT_DATABASE_URL"), sys.argv[1]))


if __name__ == "__main__":
    main()
