import asyncpg
import pytest

from services.runtime.migrate import UnknownRoleError, migrate
from tests.conftest import MigratedDatabase

_SET = "SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'nightshift_reporter'"


async def test_a_role_gets_the_password_of_its_services_address(migrated: MigratedDatabase) -> None:
    superuser = await asyncpg.connect(migrated.url("postgres"))
    try:
        await migrate(migrated.admin_url, {"nightshift_reporter": "it's"})

        assert await superuser.fetchval(_SET)
    finally:
        await superuser.execute("ALTER ROLE nightshift_reporter PASSWORD NULL")  # roles are shared by all tests
        await superuser.close()


async def test_the_password_of_a_role_that_is_none_of_ours_is_not_changed(migrated: MigratedDatabase) -> None:
    with pytest.raises(UnknownRoleError, match="postgres"):
        await migrate(migrated.admin_url, {"postgres": "x"})
