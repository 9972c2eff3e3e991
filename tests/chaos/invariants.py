"""What holds whatever happened: each invariant names what breaks it, and is empty where nothing does. Pure.

What was done outside is counted in the outside's own books, by who wrote what after what.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from nightshift.demo.outside import Books, Script
from nightshift.demo.summary import unanswered
from tests.chaos.evidence import Evidence

NAMED_MAX = 5
_ALLOWS_PUBLIC = frozenset({"execute", "approved"})

Invariant = Callable[[Evidence], list[str]]


def every_accepted_webhook_is_in_the_log_exactly_once(found: Evidence) -> list[str]:
    """Whatever intake answered 202, under however many delivery ids."""
    return [f"accepted and lost: {event_id}" for event_id in _not_logged(found)] + [
        f"{times} times in the log: {event_id}" for event_id, times in _logged_again(found).items()
    ]


def every_case_ended_or_waits_with_a_reason(found: Evidence) -> list[str]:
    """Answered, handed over, left to a person, skipped by one, gone; or held, with a reason that people can read.

    Of tickets from before the door's start nothing is asked but that they are left alone.
    """
    everybody = Script(tickets={"any": tuple(found.books.per_ticket.keys() - found.older)})
    return unanswered(everybody, found.books, found.ours)


def no_comment_is_answered_twice(found: Evidence) -> list[str]:
    """Counted outside, by what came after a customer's comment and before the next; never by our keys."""
    twice = [
        f"ticket {ticket_id}: comment {asked.id} has {len(asked.replies)} replies"
        for ticket_id, book in found.books.per_ticket.items()
        for asked in book.customer_comments
        if len(asked.replies) > 1
    ]
    nobody = found.books.replies_to_nobody
    return twice + ([f"{nobody} replies before anybody had asked"] if nobody else [])


def no_effect_without_a_decision(found: Evidence) -> list[str]:
    """Each change outside was attempted by us, and each attempt decided; a public one to execute, or by a person."""
    allowed: defaultdict[str, set[str]] = defaultdict(set)
    for planned in found.log.planned:
        for key in planned.effect_keys:
            allowed[key].add(planned.by)
    attempted = {attempt.effect_key for attempt in found.log.attempts}
    broken = [
        f"ticket {write.ticket_id}: change {write.audit_id} was never attempted by us (key {write.effect_key})"
        for write in found.writes
        if write.effect_key not in attempted
    ]
    broken += [
        f"{attempt.case_id}: attempted without a decision (key {attempt.effect_key})"
        for attempt in found.log.attempts
        if not allowed[attempt.effect_key]
    ]
    return broken + [
        f"{attempt.case_id}: public, though decided {'/'.join(sorted(by))} (key {attempt.effect_key})"
        for attempt in found.log.attempts
        if attempt.public and (by := allowed[attempt.effect_key]) and not by & _ALLOWS_PUBLIC
    ]


def what_is_older_than_the_door_is_left_alone(found: Evidence) -> list[str]:
    """Recorded, and nothing is written to it."""
    return [
        f"ticket {write.ticket_id}: change {write.audit_id}" for write in found.writes if write.ticket_id in found.older
    ]


def no_effect_under_an_older_switch(found: Evidence) -> list[str]:
    """None was claimed after the switch was thrown, under what was before."""
    return [
        f"{attempt.case_id}: attempted at {attempt.at.time()} under generation {attempt.generation}, "
        f"when it was {newest} already"
        for attempt in found.log.attempts
        if (newest := max((one.generation for one in found.log.switched if one.at <= attempt.at), default=0))
        > attempt.generation
    ]


def order_is_kept_within_every_case(found: Evidence) -> list[str]:
    """No reply came to lie behind one that was sent later, and none was attempted for what an answered one followed."""
    wrong = found.books.replies_out_of_order
    broken = [f"{wrong} replies outside lie behind one that was sent later"] if wrong else []
    newest: dict[str, str] = {}
    for attempt in sorted((one for one in found.log.attempts if one.public), key=lambda one: one.at):
        if attempt.basis < newest.get(attempt.case_id, ""):
            broken.append(f"{attempt.case_id}: replied to {attempt.basis} after {newest[attempt.case_id]}")
        newest[attempt.case_id] = max(attempt.basis, newest.get(attempt.case_id, ""))
    return broken


def no_limit_is_passed(found: Evidence) -> list[str]:
    """Of replies to one ticket, as process.toml has it."""
    return [
        f"ticket {ticket_id}: {replies} replies (limit {found.replies_per_ticket_max})"
        for ticket_id, replies in _replies(found.books)
        if replies > found.replies_per_ticket_max
    ]


def no_ceiling_on_money_is_passed(found: Evidence) -> list[str]:
    """By what models took and what is reserved for them, together."""
    return [
        f"{one.process}, {one.period}: {one.used} {one.unit} (ceiling {one.ceiling})"
        for one in found.spent
        if one.used > one.ceiling
    ]


def projections_equal_a_rebuild(found: Evidence) -> list[str]:
    """Byte for byte."""
    return [] if found.live == found.rebuilt else [f"live {found.live[:12]}, rebuilt {found.rebuilt[:12]}"]


def nothing_waits_for_ever(found: Evidence) -> list[str]:
    """No work, no event, no webhook and no dead letter is left."""
    waiting = [f"{count} {what}" for what, count in found.ours.waiting.items() if count]
    pending = [f"{found.webhooks_pending} webhooks that were not taken"] if found.webhooks_pending else []
    return waiting + pending + [f"dead letter: {letter}" for letter in found.ours.dead_letters]


INVARIANTS: Sequence[Invariant] = (
    every_accepted_webhook_is_in_the_log_exactly_once,
    every_case_ended_or_waits_with_a_reason,
    no_comment_is_answered_twice,
    no_effect_without_a_decision,
    what_is_older_than_the_door_is_left_alone,
    no_effect_under_an_older_switch,
    order_is_kept_within_every_case,
    no_limit_is_passed,
    no_ceiling_on_money_is_passed,
    projections_equal_a_rebuild,
    nothing_waits_for_ever,
)


def broken(found: Evidence) -> dict[str, list[str]]:
    """The invariants that do not hold, by name, and what breaks each."""
    return {
        invariant.__name__.replace("_", " "): offences for invariant in INVARIANTS if (offences := invariant(found))
    }


def lost(found: Evidence) -> int:
    """Webhooks that were accepted and are not in the log, and customers whose words hang."""
    return len(_not_logged(found)) + len(every_case_ended_or_waits_with_a_reason(found))


def twice(found: Evidence) -> int:
    """Webhooks that are in the log more than once, and customers who were answered more than once."""
    return len(_logged_again(found)) + len(no_comment_is_answered_twice(found))


def told(offences: Mapping[str, Sequence[str]]) -> str:
    """For a person who reads a failed run."""
    return "\n".join(
        f"{name}: {len(found)}\n" + "\n".join(f"    {one}" for one in found[:NAMED_MAX])
        for name, found in offences.items()
    )


def _not_logged(found: Evidence) -> list[str]:
    logged = {change.identity for change in found.log.changes}
    return sorted(found.accepted.keys() - logged)


def _logged_again(found: Evidence) -> dict[str, int]:
    logged = Counter(change.identity for change in found.log.changes)
    return {event_id: times for event_id, times in logged.items() if times > 1}


def _replies(books: Books) -> Iterable[tuple[int, int]]:
    for ticket_id, book in books.per_ticket.items():
        yield ticket_id, sum(len(asked.replies) for asked in book.customer_comments)
