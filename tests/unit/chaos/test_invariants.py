"""Each invariant holds for a good night, and names what breaks it in a doctored one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from nightshift.demo.ours import Ours, Unanswered
from nightshift.demo.outside import Asked, Books, TicketBook
from services.reporter.domain.views import CaseRow, CaseState, SlaRow
from tests.chaos.evidence import Attempt, Changed, Evidence, Log, Planned, Spent, Switched, Write
from tests.chaos.invariants import INVARIANTS, broken

NIGHT = datetime(2026, 11, 25, 22, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FIRST, NEXT = "2026-11-25T22:00:00Z|description", "2026-11-25T22:01:00Z|17"
ANSWERED, HELD = 1, 2


def case_of(ticket_id: int) -> str:
    return f"support:zendesk:{ticket_id}"


def row(ticket_id: int, state: CaseState) -> CaseRow:
    return CaseRow(
        case_id=case_of(ticket_id),
        process="support",
        door="zendesk",
        object_id=str(ticket_id),
        state=state,
        waiting=None,
        label=None,
        opened_at=NIGHT,
        changed_at=NIGHT,
        verdict=None,
        reasons=(),
        effects=(),
        first_reply_at=None,
        first_reply_by=None,
        reply_seconds=None,
        runs=1,
        failures=0,
        cost_usd=Decimal(0),
        tokens_in=0,
        tokens_out=0,
        dead_letters=0,
        last_error=None,
        sla=SlaRow(state="waiting", why=""),
        events=5,
    )


def book(*, replies: int) -> TicketBook:
    asked = Asked(id=17, at=NIGHT, replies=(NIGHT + SECOND,) * replies)
    return TicketBook(status="open", created_at=NIGHT, customer_comments=(asked,))


def books(*, replies: int = 1, to_nobody: int = 0, out_of_order: int = 0) -> Books:
    return Books(
        per_ticket={ANSWERED: book(replies=replies), HELD: book(replies=0)},
        replies_to_nobody=to_nobody,
        replies_after_staff=0,
        replies_out_of_order=out_of_order,
        calls={},
        slack_messages=0,
    )


REPLY = Attempt(case_of(ANSWERED), "reply-key", FIRST, public=True, generation=3, at=NIGHT + 5 * SECOND)
NOTE = Attempt(case_of(HELD), "note-key", FIRST, public=False, generation=3, at=NIGHT + 6 * SECOND)
LOG = Log(
    changes=[Changed(case_of(ANSWERED), "event-1"), Changed(case_of(HELD), "event-2")],
    planned=[Planned("execute", ("reply-key",)), Planned("hold", ("note-key",))],
    attempts=[REPLY, NOTE],
    switched=[Switched(2, NIGHT + SECOND), Switched(3, NIGHT + 2 * SECOND)],
)
OURS = Ours(
    waiting={},
    tallies={},
    changes_missing=0,
    changes_twice=0,
    cases={ANSWERED: row(ANSWERED, "answered"), HELD: row(HELD, "held")},
    unanswered={HELD: Unanswered("hold", explained=True)},
)
GOOD = Evidence(
    accepted=Counter({"event-1": 3, "event-2": 1}),
    webhooks_pending=0,
    books=books(),
    writes=[Write(ANSWERED, 51, "reply-key", public=True), Write(HELD, 52, "note-key", public=False)],
    log=LOG,
    ours=OURS,
    older=frozenset(),
    replies_per_ticket_max=4,
    live="same",
    rebuilt="same",
    spent=[Spent("support", "day", "usd", Decimal(20), Decimal(20))],
)


def log(**changes: object) -> Evidence:
    return replace(GOOD, log=replace(LOG, **changes))  # type: ignore[arg-type]  # fields of Log by name


def ours(**changes: object) -> Evidence:
    return replace(GOOD, ours=replace(OURS, **changes))  # type: ignore[arg-type]  # fields of Ours by name


DOCTORED: dict[str, tuple[Callable[[], Evidence], str, str]] = {
    "an accepted webhook is not in the log": (
        lambda: log(changes=LOG.changes[1:]),
        "every accepted webhook is in the log exactly once",
        "event-1",
    ),
    "a webhook is in the log twice": (
        lambda: log(changes=[*LOG.changes, LOG.changes[0]]),
        "every accepted webhook is in the log exactly once",
        "event-1",
    ),
    "a case is not known to us": (
        lambda: ours(cases={HELD: OURS.cases[HELD]}),
        "every case ended or waits with a reason",
        "ticket 1",
    ),
    "a case is still being worked on": (
        lambda: ours(cases={**OURS.cases, ANSWERED: row(ANSWERED, "working")}),
        "every case ended or waits with a reason",
        "ticket 1",
    ),
    "a case is held without a reason": (
        lambda: ours(unanswered={HELD: Unanswered("hold", explained=False)}),
        "every case ended or waits with a reason",
        "ticket 2",
    ),
    "a comment is answered twice": (
        lambda: replace(GOOD, books=books(replies=2)),
        "no comment is answered twice",
        "ticket 1: comment 17 has 2 replies",
    ),
    "somebody is answered who asked nothing": (
        lambda: replace(GOOD, books=books(to_nobody=1)),
        "no comment is answered twice",
        "1 replies",
    ),
    "a change outside was never attempted": (
        lambda: replace(GOOD, writes=[*GOOD.writes, Write(HELD, 53, "another-key", public=False)]),
        "no effect without a decision",
        "ticket 2: change 53",
    ),
    "a change outside carries no key": (
        lambda: replace(GOOD, writes=[*GOOD.writes, Write(HELD, 53, None, public=False)]),
        "no effect without a decision",
        "ticket 2: change 53",
    ),
    "an attempt has no decision": (
        lambda: log(planned=LOG.planned[:1]),
        "no effect without a decision",
        "support:zendesk:2: attempted without a decision",
    ),
    "a held reply went out": (
        lambda: log(planned=[Planned("hold", ("reply-key",)), LOG.planned[1]]),
        "no effect without a decision",
        "support:zendesk:1: public, though decided hold",
    ),
    "a ticket from before the start is written to": (
        lambda: replace(GOOD, older=frozenset({HELD})),
        "what is older than the door is left alone",
        "ticket 2: change 52",
    ),
    "an effect was claimed under what the switch was before": (
        lambda: log(attempts=[replace(REPLY, generation=1), NOTE]),
        "no effect under an older switch",
        "support:zendesk:1",
    ),
    "replies outside changed places": (
        lambda: replace(GOOD, books=books(out_of_order=1)),
        "order is kept within every case",
        "1 replies",
    ),
    "an older comment was replied to after a newer one": (
        lambda: log(attempts=[replace(REPLY, basis=NEXT), replace(REPLY, at=REPLY.at + SECOND), NOTE]),
        "order is kept within every case",
        "support:zendesk:1",
    ),
    "two machines talk on and on": (
        lambda: replace(GOOD, replies_per_ticket_max=0),
        "no limit is passed",
        "ticket 1: 1 replies (limit 0)",
    ),
    "a model took more than a day may cost": (
        lambda: replace(GOOD, spent=[Spent("support", "day", "usd", Decimal("20.01"), Decimal(20))]),
        "no ceiling on money is passed",
        "support, day: 20.01 usd (ceiling 20)",
    ),
    "a projection went wrong": (
        lambda: replace(GOOD, rebuilt="another"),
        "projections equal a rebuild",
        "live same, rebuilt another",
    ),
    "work is left": (lambda: ours(waiting={"decisions to make": 2}), "nothing waits for ever", "2 decisions to make"),
    "a webhook was never taken": (
        lambda: replace(GOOD, webhooks_pending=4),
        "nothing waits for ever",
        "4 webhooks",
    ),
    "a dead letter is open": (
        lambda: ours(dead_letters=("actor decide: poison",)),
        "nothing waits for ever",
        "actor decide: poison",
    ),
}


def test_a_good_night_breaks_no_invariant() -> None:
    assert broken(GOOD) == {}


@pytest.mark.parametrize("what", DOCTORED)
def test_a_doctored_night_breaks_the_invariant_and_names_the_case(what: str) -> None:
    evidence, invariant, named = DOCTORED[what]

    found = broken(evidence())

    assert list(found) == [invariant]
    assert any(named in offence for offence in found[invariant])


def test_every_invariant_is_broken_by_some_doctored_night() -> None:
    names = {invariant.__name__.replace("_", " ") for invariant in INVARIANTS}

    assert names == {invariant for _, invariant, _ in DOCTORED.values()}


def test_a_change_by_a_person_s_approval_may_be_public() -> None:
    approved = log(
        planned=[*LOG.planned, Planned("approved", ("note-key",))], attempts=[REPLY, replace(NOTE, public=True)]
    )

    assert broken(approved) == {}


def test_an_effect_claimed_just_before_the_switch_was_thrown_is_none_under_an_older_one() -> None:
    before = log(attempts=[replace(REPLY, generation=2, at=NIGHT + 1.5 * SECOND), NOTE])

    assert broken(before) == {}


def test_a_case_whose_work_a_person_skipped_has_ended() -> None:
    skipped = ours(cases={**OURS.cases, HELD: row(HELD, "skipped")}, unanswered={})

    assert broken(skipped) == {}
