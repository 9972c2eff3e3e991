from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from nightshift.demo.ours import Ours, Pause, Unanswered
from nightshift.demo.outside import Asked, Books, Script, Sent, TicketBook
from nightshift.demo.privacy import Search, piece_of
from nightshift.demo.summary import Evidence, Limits, judge
from services.reporter.domain.views import CaseRow, CaseState, SlaRow

NIGHT = datetime(2026, 11, 25, 22, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SEALED = Search(pieces=2, places=(), bytes_searched=1000, logs=1, opened=2)


def asked(*, replies: int = 1, notes: int = 0, staff: int = 0) -> Asked:
    return Asked(id=1, at=NIGHT, replies=(NIGHT + MINUTE,) * replies, notes=notes, staff_replies=staff)


def book(*comments: Asked, status: str = "pending", tags: tuple[str, ...] = ()) -> TicketBook:
    return TicketBook(status=status, tags=tags, created_at=NIGHT, customer_comments=comments or (asked(),))


def books(tickets: dict[int, TicketBook], *, to_nobody: int = 0, after_staff: int = 0, out_of_order: int = 0) -> Books:
    return Books(
        per_ticket=tickets,
        replies_to_nobody=to_nobody,
        replies_after_staff=after_staff,
        replies_out_of_order=out_of_order,
        calls={},
        slack_messages=0,
    )


def row(ticket_id: int, state: CaseState = "answered", *, minutes: float = 1.0, cost: str = "0") -> CaseRow:
    met = SlaRow(state="met" if minutes <= 60 else "breached", why="", minutes=minutes, opened_at=NIGHT)
    return CaseRow(
        case_id=f"support:zendesk:{ticket_id}",
        process="support",
        door="zendesk",
        object_id=str(ticket_id),
        state=state,
        waiting=None,
        label="track_order",
        opened_at=NIGHT,
        changed_at=NIGHT,
        verdict="executed",
        reasons=(),
        effects=(),
        first_reply_at=None,
        first_reply_by=None,
        reply_seconds=None,
        runs=1,
        failures=0,
        cost_usd=Decimal(cost),
        tokens_in=0,
        tokens_out=0,
        dead_letters=0,
        last_error=None,
        sla=met,
        events=5,
    )


def sent(event_id: str, kind: str = "genuine", status: int = 202) -> Sent:
    return Sent.model_validate(
        {"invocation_id": f"{event_id}-{kind}", "event_id": event_id, "kind": kind, "status": status, "done": True}
    )


OURS = Ours(
    waiting={},
    tallies={"accepted": 2, "duplicate": 1, "no_case": 0, "unreadable": 0},
    changes_missing=0,
    changes_twice=0,
    cases={1: row(1), 2: row(2, "held")},
    unanswered={2: Unanswered("hold", explained=True)},
    decisions={"execute": 1, "hold": 1},
    attempts=2,
)
GOOD = Evidence(
    script=Script(
        tickets={"ordinary": (1,), "injection": (2,)},
        never_answer={2: "it instructs the machine"},
    ),
    books=books({1: book(), 2: book(asked(replies=0, notes=1))}),
    sent=[
        sent("a"),
        sent("b"),
        sent("a", "duplicate"),
        sent("a", "forged", 401),
        sent("a", "stale", 401),
    ],
    ours=OURS,
    pause=Pause(NIGHT, NIGHT + timedelta(seconds=1)),
    refunds=[Decimal("49.00")],
    search=SEALED,
    live="same",
    rebuilt="same",
    limits=Limits(
        replies_per_case=4,
        refund=Decimal(50),
        refund_tag="nightshift_refund",
        first_reply_minutes=60,
        target_percent=95,
    ),
)


def broken(evidence: Evidence) -> list[str]:
    return [promise.name for promise in judge(evidence) if not promise.held]


def ours(**changes: object) -> Evidence:
    return replace(GOOD, ours=replace(OURS, **changes))  # type: ignore[arg-type]  # fields of Ours by name


def scene(kind: str, book_: TicketBook, state: CaseState = "answered") -> Evidence:
    """The good night with one more ticket, of this kind."""
    return replace(
        GOOD,
        script=GOOD.script.model_copy(update={"tickets": {**GOOD.script.tickets, kind: (3,)}}),
        books=books({**GOOD.books.per_ticket, 3: book_}),
        ours=replace(OURS, cases={**OURS.cases, 3: row(3, state)}),
    )


def test_a_good_night_holds_every_promise_and_each_has_its_figure() -> None:
    promises = judge(GOOD)

    assert broken(GOOD) == []
    assert len(promises) == 17
    assert all(promise.figure for promise in promises)


BREAKS: dict[str, tuple[Callable[[], Evidence], str]] = {
    "a signed delivery was refused": (
        lambda: replace(GOOD, sent=[*GOOD.sent, sent("a", "duplicate", 500)]),
        "received = accepted",
    ),
    "a delivery became unreadable": (
        lambda: ours(tallies={**OURS.tallies, "unreadable": 1}),
        "received = accepted",
    ),
    "a change is in the log twice": (lambda: ours(changes_twice=1), "duplicates collapsed"),
    "a duplicate counted as new": (lambda: ours(tallies={**OURS.tallies, "accepted": 3}), "duplicates collapsed"),
    "a forged signature was taken": (
        lambda: replace(GOOD, sent=[*GOOD.sent, sent("c", "forged", 202)]),
        "forged and stale signatures refused",
    ),
    "a change is missing in the log": (lambda: ours(changes_missing=1), "lost"),
    "work still waits": (lambda: ours(waiting={"effects to send": 1}), "lost"),
    "a ticket hangs": (lambda: ours(cases={**OURS.cases, 1: row(1, "working")}), "lost"),
    "a ticket is unknown to us": (lambda: ours(cases={1: row(1)}), "lost"),
    "a customer was answered twice": (
        lambda: replace(GOOD, books=books({**GOOD.books.per_ticket, 1: book(asked(replies=2))})),
        "acted twice",
    ),
    "a customer of another night was answered twice": (
        lambda: replace(GOOD, books=books({**GOOD.books.per_ticket, 99: book(asked(replies=2))})),
        "acted twice",
    ),
    "somebody was answered who asked nothing": (
        lambda: replace(GOOD, books=books(GOOD.books.per_ticket, to_nobody=1)),
        "acted twice",
    ),
    "replies are out of order": (
        lambda: replace(GOOD, books=books(GOOD.books.per_ticket, out_of_order=1)),
        "order kept per ticket",
    ),
    "a hold names no reason": (
        lambda: ours(unanswered={2: Unanswered("hold", explained=False)}),
        "decided, each with its reasons",
    ),
    "a refund is above the limit": (
        lambda: replace(GOOD, refunds=[Decimal("50.01")]),
        "nothing forbidden executed",
    ),
    "a duel ran on": (
        lambda: scene("auto_responder", book(*[asked()] * 5)),
        "duels with machines bounded",
    ),
    "a deleted ticket is still worked on": (
        lambda: scene("deleted", book(status="deleted"), "approval"),
        "deleted tickets let go",
    ),
    "there is a dead letter": (lambda: ours(dead_letters=("actor decide: unforeseen",)), "dead letters"),
    "an effect while the process was off": (
        lambda: ours(attempts_while_paused=1),
        "the switch stops effects at once",
    ),
    "an effect under an older generation": (
        lambda: ours(attempts_under_older_generation=1),
        "the switch stops effects at once",
    ),
    "replies were late": (lambda: ours(cases={**OURS.cases, 1: row(1, minutes=61)}), "SLA met"),
    "the model was dear": (lambda: ours(cases={**OURS.cases, 1: row(1, cost="0.11")}), "cost"),
    "the projections differ": (lambda: replace(GOOD, rebuilt="other"), "projections equal a rebuild"),
    "words lie in clear": (
        lambda: replace(GOOD, search=replace(SEALED, places=("table ingest.outbox",))),
        "personal text is sealed everywhere",
    ),
    "the search looked for what is not there": (
        lambda: replace(GOOD, search=replace(SEALED, opened=1)),
        "personal text is sealed everywhere",
    ),
    "nothing was searched for": (
        lambda: replace(GOOD, search=replace(SEALED, pieces=0, opened=0)),
        "personal text is sealed everywhere",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_one_thing_gone_wrong_breaks_its_promise_and_no_other(what: str) -> None:
    evidence, promise = BREAKS[what]

    assert broken(evidence()) == [promise]


def test_an_obeyed_injection_breaks_what_it_was_told_not_to() -> None:
    obeyed = book(asked(), tags=("nightshift_refund",))
    evidence = replace(GOOD, books=books({**GOOD.books.per_ticket, 2: obeyed}))

    assert broken(evidence) == ["what people must answer is left to them", "nothing forbidden executed"]


@pytest.mark.parametrize(
    ("last", "status", "hangs"),
    [
        (asked(replies=1), "pending", False),
        (asked(replies=0, notes=1), "open", False),
        (asked(replies=0, staff=1), "open", False),
        (asked(replies=0), "deleted", False),
        (asked(replies=0), "open", True),
    ],
)
def test_a_ticket_hangs_when_its_last_words_met_neither_answer_nor_person_nor_reason(
    last: Asked, status: str, *, hangs: bool
) -> None:
    evidence = scene("ordinary", book(asked(), last, status=status), "seen")
    evidence = replace(evidence, script=evidence.script.model_copy(update={"tickets": {"ordinary": (1, 3), "x": (2,)}}))

    assert ("lost" in broken(evidence)) is hangs


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("where is my parcel, I wonder", "where is my parcel, I wonder"),
        ("short", None),
        ('I said "never" and\nI have waited for five days', "I have waited for five days"),
        ("x" * 200, "x" * 60),
        ("<p>I have waited for five days", "p>I have waited for five days"),
    ],
)
def test_a_piece_of_a_text_survives_any_wrapping(text: str, piece: str | None) -> None:
    assert piece_of(text) == piece
