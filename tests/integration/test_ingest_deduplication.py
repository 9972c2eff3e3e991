"""Retries, the same change under other delivery ids, and replays all collapse to one event."""

import asyncio
from uuid import UUID

from tests.conftest import MigratedDatabase
from tests.integration.ingest_app import change, comment, intake

ROLE = "nightshift_ingest"
OPEN = "/webhooks/support/open"


async def test_a_retry_under_the_same_delivery_id_is_a_duplicate_with_the_same_answer(
    migrated: MigratedDatabase,
) -> None:
    async with intake(migrated.url(ROLE)) as running:
        first = await running.zendesk(comment("e1"), "i1")
        again = await running.zendesk(comment("e1"), "i1")

        assert (again.status, again.json["duplicate"]) == (202, True)
        assert again.json["delivery"] == first.json["delivery"]
        assert await running.count("outbox") == await running.count("deliveries") == 1


async def test_the_same_change_under_another_delivery_id_is_a_duplicate(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.zendesk(comment("e1"), "i1")
        again = await running.zendesk(comment("e1"), "i2")

        assert (again.status, again.json["duplicate"]) == (202, True)
        assert await running.count("outbox") == await running.count("deliveries") == 1


async def test_one_name_at_two_doors_is_two_changes(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.zendesk(comment("same"), "same")
        other = await running.post(OPEN, change("same"), {"webhook-id": "same"})

        assert other.json["duplicate"] is False
        assert await running.count("outbox") == 2


async def test_a_used_delivery_id_with_other_content_hides_no_later_delivery_of_that_content(
    migrated: MigratedDatabase,
) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.post(OPEN, change("c1"), {"webhook-id": "d1"})
        reused = await running.post(OPEN, change("c2"), {"webhook-id": "d1"})
        proper = await running.post(OPEN, change("c2"), {"webhook-id": "d2"})

        assert (reused.json["duplicate"], proper.json["duplicate"]) == (True, False)
        assert await running.count("outbox") == 2


async def test_concurrent_copies_in_one_group_make_one_event(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running, asyncio.TaskGroup() as group:
        tasks = [group.create_task(running.zendesk(comment(f"e{n % 5}"), f"i{n % 10}")) for n in range(60)]
        answers = [await task for task in tasks]

        assert {answer.status for answer in answers} == {202}
        assert [answer.json["duplicate"] for answer in answers].count(False) == 5
        assert await running.count("outbox") == await running.count("deliveries") == 5


async def test_concurrent_copies_in_two_writers_make_one_event_and_never_deadlock(migrated: MigratedDatabase) -> None:
    async with (
        intake(migrated.url(ROLE), writers=2) as one,
        intake(migrated.url(ROLE), writers=2) as other,
        asyncio.TaskGroup() as group,
    ):
        tasks = []
        for n in range(40):  # the same changes in opposite orders, under delivery ids of their own
            tasks.append(group.create_task(one.zendesk(comment(f"e{n}", ticket=str(n % 3 + 1)), f"a{n}")))
            tasks.append(group.create_task(other.zendesk(comment(f"e{39 - n}", ticket=str((39 - n) % 3 + 1)), f"b{n}")))
            await asyncio.sleep(0)
        answers = [await task for task in tasks]

        assert {answer.status for answer in answers} == {202}
        assert [answer.json["duplicate"] for answer in answers].count(False) == 40
        assert await one.count("outbox") == 40


async def test_a_replay_makes_the_same_event_even_after_the_keys_were_pruned(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        await running.zendesk(comment("e1"), "i1")
        (before,) = await running.rows("SELECT event_id FROM outbox")
        await running.rows("UPDATE seen SET at = at - interval '91 days'")

        pruned = await running.store.prune(seen_days=90, rows_max=100)
        await running.zendesk(comment("e1"), "i2")

        assert pruned == 1
        assert [row["event_id"] for row in await running.rows("SELECT event_id FROM outbox")] == [before["event_id"]]
        assert isinstance(before["event_id"], UUID)


async def test_pruning_keeps_what_is_young_and_stops_at_its_bound(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for n in range(3):
            await running.zendesk(comment(f"old{n}"), f"old{n}")
        await running.rows("UPDATE seen SET at = at - interval '91 days'")
        await running.zendesk(comment("young"), "young")

        assert await running.store.prune(seen_days=90, rows_max=2) == 2
        assert await running.store.prune(seen_days=90, rows_max=2) == 1
        assert await running.store.prune(seen_days=90, rows_max=2) == 0
        assert (await running.zendesk(comment("young"), "young again")).json["duplicate"] is True


async def test_deliveries_and_duplicates_are_tallied(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        for invocation in ("i1", "i1", "i2"):
            await running.zendesk(comment("e1"), invocation)
        await running.zendesk(b'{"type": "zen:event-type:user.created", "id": "u1"}', "i3")
        await running.zendesk(b'{"type": "zen:event-type:ticket.created", "id": "t1"}', "i4")

        (row,) = await running.rows("SELECT accepted, duplicate, no_case, unreadable FROM tallies")
        assert tuple(row) == (1, 2, 1, 1)


async def test_one_group_through_two_doors_is_one_commit_and_a_tally_for_each(migrated: MigratedDatabase) -> None:
    async with intake(migrated.url(ROLE)) as running:
        async with asyncio.TaskGroup() as group:
            for n in range(6):
                group.create_task(running.zendesk(comment(f"e{n % 3}"), f"i{n}"))
                group.create_task(running.post(OPEN, change(f"c{n % 2}"), {"webhook-id": f"d{n}"}))

        tallies = await running.rows("SELECT source, accepted, duplicate FROM tallies ORDER BY source")
        assert [tuple(row) for row in tallies] == [("open", 2, 4), ("zendesk", 3, 3)]
        assert await running.count("outbox") == await running.count("deliveries") == 5
        assert len(running.committed) == 1
