"""Many cases: each webhook three times, all shuffled, and some of them two hours late."""

from datetime import timedelta

from nightshift.world.deliveries import Mischief
from tests.chaos.conftest import Chaos
from tests.chaos.system import Plan

CASES_PER_SECOND = 30
LATE = timedelta(hours=2)
TOLERANT = "support.doors.zendesk.tolerance_seconds = 10800\n"
"""The night is two hours ago, and so are its signatures; those that are stale are older by far."""


async def test_many_cases_thrice_shuffled_and_with_stragglers_of_two_hours_lose_nothing(chaos: Chaos) -> None:
    tickets = chaos.size(full=10_000, short=300)
    mischief = Mischief(
        copies_min=3, copies_max=3, shuffled_percent=100, forged_percent=2, stale_percent=2, straggling_percent=2
    )
    async with chaos.system(Plan(mischief=mischief, overrides=TOLERANT, settle_seconds_max=300)) as system:
        system.clock.ahead = -LATE
        await system.play(tickets, tickets / CASES_PER_SECOND)
        system.clock.ahead = timedelta()
        stragglers = system.world.sender.let_stragglers_go()
        await system.judge()

    chaos.figures.notes["deliveries two hours late"] = stragglers
    assert stragglers > 0
    assert chaos.figures.cases >= tickets
