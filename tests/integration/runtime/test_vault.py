import asyncio

import pytest

from contracts.sealed import UnsealableError
from services.runtime import vault
from services.runtime.postgres import connect
from tests.conftest import MigratedDatabase
from tests.integration.runtime.conftest import execute


async def test_two_intakes_of_a_new_case_agree_on_its_key(migrated: MigratedDatabase) -> None:
    async with connect(migrated.url("nightshift_ingest"), schema="ingest") as ingest:

        async def make(key: bytes) -> vault.CaseKeys:
            async with ingest.transaction() as connection:
                return (await vault.make(connection, {"case": key}))["case"]

        async with asyncio.TaskGroup() as group:
            made = [group.create_task(make(bytes([n]) * 32)) for n in range(8)]

    assert len({task.result().versions[1] for task in made}) == 1


async def test_erasing_a_case_makes_its_text_unreadable_and_a_new_text_gets_a_new_key(
    migrated: MigratedDatabase,
) -> None:
    async with connect(migrated.url("nightshift_ingest"), schema="ingest") as ingest, ingest.connection() as connection:
        before = (await vault.make(connection, {"case": b"1" * 32}))["case"].seal("where is my order")
        await execute(migrated, "SELECT vault.erase('case')")
        erased = (await vault.read(connection, ["case"]))["case"]
        after = (await vault.make(connection, {"case": b"2" * 32}))["case"]

    with pytest.raises(UnsealableError):
        erased.unseal(before)
    with pytest.raises(UnsealableError):
        after.unseal(before)
    assert after.unseal(after.seal("again")) == "again"


async def test_a_key_opens_no_other_case_s_text() -> None:
    one, other = vault.CaseKeys("one", {1: b"k" * 32}), vault.CaseKeys("other", {1: b"k" * 32})

    with pytest.raises(UnsealableError):
        other.unseal(one.seal("mine"))


async def test_keys_do_not_show_in_a_representation() -> None:
    assert "kkkk" not in repr(vault.CaseKeys("one", {1: b"k" * 32}))
