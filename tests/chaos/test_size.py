"""Many cases: every webhook up to three times, all shuffled, and some of them two hours late."""

from datetime import timedelta

from nightshift.world.deliveries import Mischief
from tests.chaos.conftest import Chaos
from tests.chaos.system import Plan

CASES_PER_SECOND = 30
LATE = timedelta(hours=2)
MISCHIEF = Mischief(copies_max=3, shuffled_percent=100, forged_percent=2, stale_percent=2, straggling_percent=1)


async def test_many_cases_shuffled_and_replayed_with_stragglers_of_two_hours_lose_nothing(chaos: Chaos) -> None:
    tickets = chaos.size(full=10_000, short=400)
    async with chaos.system(Plan(mischief=MISCHIEF, settle_seconds_max=600.0)) as system:
        await system.play(tickets, tickets / CASES_PER_SECOND)
        system.clock.ahead = LATE
        stragglers = system.world.sender.let_stragglers_go()
        await system.judge()

    chaos.figures.notes["deliveries two hours late"] = stragglers
    assert stragglers > 0
    assert chaos.figures.cases >= tickets
