"""Why a decision needs a person: one small rule each, and the table of them. A rule answers with a reason, or none."""

# ruff: noqa: D103  # a rule's name and its sentence say what it promises

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from contracts.decision import Reason
from processes.support import case as cases, facts as books, text
from processes.support.seen import Seen

_OF_THEIR_OWN = ("out_of_scope", "contact_human_agent", "delete_account")
"""Intents that have a rule of their own."""

# -- what the customer wrote ------------------------------------------------------------------------------------------


def reopened(seen: Seen) -> Reason | None:
    return _when(
        seen.asked is None,
        "reopened",
        "A solved ticket was opened again without a new message: there is nothing to answer.",
    )


def empty_message(seen: Seen) -> Reason | None:
    empty = seen.asked is not None and not (seen.asked.text or "").strip()
    return _when(empty, "empty_message", "The message holds no text: perhaps only an attachment.")


def message_too_long(seen: Seen) -> Reason | None:
    limit = seen.policy.message_characters_max
    return _when(len(seen.question) > limit, "message_too_long", f"The message is longer than {limit} characters.")


def author_unknown(seen: Seen) -> Reason | None:
    unknown = seen.asked is not None and cases.speaker(seen.case, seen.asked) == "unknown"
    return _when(unknown, "author_unknown", "Nothing tells who wrote the message.")


def not_the_requester(seen: Seen) -> Reason | None:
    author = seen.asked.author_id if seen.asked is not None else None
    other = author is not None and author != cases.party(seen.case)
    return _when(
        other, "not_the_requester", "Somebody else than the requester wrote: their data must not go to a third person."
    )


def auto_responder(seen: Seen) -> Reason | None:
    automatic = text.says(seen.plain_question, seen.policy.phrases.automatic)
    return _when(
        automatic, "auto_responder", "The message looks like an automatic reply: answering it may start a duel."
    )


def instructs_machine(seen: Seen) -> Reason | None:
    instructs = text.says(seen.plain_question, seen.policy.phrases.instructions)
    return _when(instructs, "instructs_machine", "The message tries to give orders to the software.")


def legal_threat(seen: Seen) -> Reason | None:
    legal = text.says(seen.plain_question, seen.policy.phrases.legal)
    return _when(legal, "legal_threat", "The message speaks of lawyers, courts or authorities.")


def account_deletion(seen: Seen) -> Reason | None:
    proposal = seen.proposal
    wanted = (
        proposal.intent == "delete_account"
        or any(action.name == "delete_account" for action in proposal.actions)
        or text.says(seen.plain_question, seen.policy.phrases.deletion)
    )
    return _when(wanted, "account_deletion", "An account may have to be deleted: that cannot be taken back.")


def asks_for_person(seen: Seen) -> Reason | None:
    return _when(
        seen.proposal.intent == "contact_human_agent", "asks_for_person", "The customer asks to speak with a person."
    )


def language_not_answered(seen: Seen) -> Reason | None:
    languages = {seen.proposal.language, seen.question_language or seen.proposal.language}
    return _when(
        not languages <= {*seen.policy.languages},
        "language_not_answered",
        "The customer writes in a language that is not answered.",
    )


def language_doubtful(seen: Seen) -> Reason | None:
    doubtful = seen.question_language is not None and seen.question_language != seen.proposal.language
    return _when(
        doubtful, "language_doubtful", "The suggestion takes the message for another language than it reads like."
    )


def listed_tag(seen: Seen) -> Reason | None:
    listed = sorted({*seen.case.tags} & {*seen.policy.hold_tags})
    return _when(listed, "listed_tag", f"The ticket carries the tag {', '.join(listed)}: a person answers these.")


def channel_unknown(seen: Seen) -> Reason | None:
    return _when(
        seen.case.text("channel") is None, "channel_unknown", "It is not known by which channel the customer wrote."
    )


# -- how often ---------------------------------------------------------------------------------------------------------


def too_many_comments(seen: Seen) -> Reason | None:
    return _when(seen.case.more_comments, "too_many_comments", "The ticket has more comments than can be taken in.")


def third_message(seen: Seen) -> Reason | None:
    """Counts every public message of the customer's side in this ticket, answered or not."""
    written, limit = len(cases.messages(seen.case)), seen.policy.messages_per_ticket_hold_at
    return _when(written >= limit, "third_message", f"This is the customer's message number {written} in this ticket.")


def repeat_contact(seen: Seen) -> Reason | None:
    """Counts the earlier tickets in the shop's books that were opened in the last days, today included."""
    days, limit = seen.policy.recent_tickets_days, seen.policy.recent_tickets_max
    tickets = seen.facts["tickets"].rows if "tickets" in seen.facts else ()
    ages = [(seen.now.date() - date.fromisoformat(str(row["opened_on"])[:10])).days for row in tickets]
    recent = sum(0 <= age <= days for age in ages)
    return _when(
        recent > limit, "repeat_contact", f"The customer opened {recent} other tickets in the last {days} days."
    )


def other_open_tickets(seen: Seen) -> Reason | None:
    others = seen.circumstances.other_open_cases_of_party
    many = others > seen.policy.other_open_tickets_max
    tickets = "ticket" if others == 1 else "tickets"
    return _when(many, "other_open_tickets", f"The same customer has {others} other open {tickets}.")


def intent_surge(seen: Seen) -> Reason | None:
    policy, now = seen.policy, seen.circumstances
    surge = (
        now.hours_of_history >= policy.surge_history_hours_min
        and now.label_count_last_hour >= policy.surge_count_min
        and now.label_count_last_hour >= policy.surge_factor * now.label_usual_per_hour
    )
    sentence = f"{now.label_count_last_hour} tickets of this kind in an hour, {policy.surge_factor:g} times the usual."
    return _when(surge, "intent_surge", sentence)


def effects_per_hour(seen: Seen) -> Reason | None:
    done, limit = seen.circumstances.effects_of_case_last_hour, seen.policy.effects_per_case_hour_hold_at
    return _when(done >= limit, "effects_per_hour", f"This ticket was changed {done} times within an hour already.")


# -- what was read -----------------------------------------------------------------------------------------------------


def requester_unknown(seen: Seen) -> Reason | None:
    return _when(cases.party(seen.case) is None, "requester_unknown", "It is not known whose ticket this is.")


def fact_unread(seen: Seen) -> Reason | None:
    wanted = {*books.names(seen.case, seen.named_orders)} - {*seen.facts}
    missing = sorted(wanted.union(name for name, answer in seen.facts.items() if not answer.ok))
    return _when(missing, "fact_unread", f"Could not be read: {', '.join(missing)}.")


def order_not_found(seen: Seen) -> Reason | None:
    missing = {*seen.named_orders}.difference(books.orders(seen.facts) if seen.named_orders else ())
    return _when(missing, "order_not_found", "The message names an order that this customer does not have.")


# -- what was suggested ------------------------------------------------------------------------------------------------


def low_confidence(seen: Seen) -> Reason | None:
    has, needs = seen.proposal.confidence, seen.policy.confidence_min
    return _when(has < needs, "low_confidence", f"The suggestion has a confidence of {has:.0%}; {needs:.0%} is needed.")


def out_of_scope(seen: Seen) -> Reason | None:
    return _when(
        seen.proposal.intent == "out_of_scope", "out_of_scope", "The message is about nothing that is known here."
    )


def intent_left_to_people(seen: Seen) -> Reason | None:
    intent = seen.proposal.intent
    left = intent not in (*seen.policy.intents, *_OF_THEIR_OWN)
    return _when(left, "intent_left_to_people", f"Messages about {intent.replace('_', ' ')} are answered by people.")


def escalation(seen: Seen) -> Reason | None:
    suggested = any(action.name == "escalate" for action in seen.proposal.actions)
    return _when(suggested, "escalation", "The suggestion itself asks for a person.")


def angry_and_urgent(seen: Seen) -> Reason | None:
    policy, proposal = seen.policy, seen.proposal
    both = proposal.urgency in policy.urgencies_held_when_negative and proposal.sentiment in policy.held_sentiments
    return _when(both, "angry_and_urgent", "The customer is upset and the matter is urgent.")


def no_reply(seen: Seen) -> Reason | None:
    return _when(not seen.wants_reply, "no_reply", "No reply was suggested.")


def reply_too_long(seen: Seen) -> Reason | None:
    limit = seen.policy.reply_characters_max
    return _when(len(seen.proposal.reply) > limit, "reply_too_long", f"The reply is longer than {limit} characters.")


def placeholder(seen: Seen) -> Reason | None:
    return _when(
        text.has_placeholder(seen.proposal.reply), "placeholder", "The reply has a blank that was not filled in."
    )


def cites_nothing(seen: Seen) -> Reason | None:
    nothing = seen.wants_reply and not seen.passages
    return _when(nothing, "cites_nothing", "The reply rests on no passage of the knowledge.")


def invented_link(seen: Seen) -> Reason | None:
    named = text.links(seen.proposal.reply)
    invented = named and named - text.links(seen.evidence)
    return _when(invented, "invented_link", "The reply holds an address that no cited passage and no fact contains.")


def invented_amount(seen: Seen) -> Reason | None:
    named = text.amounts(seen.proposal.reply)
    invented = named and named - seen.known_amounts
    return _when(invented, "invented_amount", "The reply names an amount that no cited passage and no fact contains.")


def invented_number(seen: Seen) -> Reason | None:
    named = text.long_numbers(seen.proposal.reply)
    invented = named and named - text.long_numbers(seen.evidence)
    return _when(invented, "invented_number", "The reply holds a number that no cited passage and no fact contains.")


def reply_language(seen: Seen) -> Reason | None:
    written = text.language(seen.proposal.reply)
    other = written is not None and written != seen.proposal.language
    return _when(other, "reply_language", "The reply is in another language than the customer's.")


@dataclass(frozen=True, slots=True)
class Rule:
    """An objection, and whether the draft must not go out as it is even when a person approves the rest."""

    check: Callable[[Seen], Reason | None]
    spoils_reply: bool = False


OBJECTIONS = (
    Rule(reopened, spoils_reply=True),
    Rule(empty_message, spoils_reply=True),
    Rule(message_too_long),
    Rule(author_unknown),
    Rule(not_the_requester),
    Rule(auto_responder, spoils_reply=True),
    Rule(instructs_machine, spoils_reply=True),
    Rule(legal_threat),
    Rule(account_deletion),
    Rule(asks_for_person),
    Rule(language_not_answered),
    Rule(language_doubtful),
    Rule(listed_tag),
    Rule(channel_unknown),
    Rule(too_many_comments),
    Rule(third_message),
    Rule(repeat_contact),
    Rule(other_open_tickets),
    Rule(intent_surge),
    Rule(effects_per_hour),
    Rule(requester_unknown),
    Rule(fact_unread),
    Rule(order_not_found),
    Rule(low_confidence),
    Rule(out_of_scope, spoils_reply=True),
    Rule(intent_left_to_people),
    Rule(escalation),
    Rule(angry_and_urgent),
    Rule(no_reply),
    Rule(reply_too_long, spoils_reply=True),
    Rule(placeholder, spoils_reply=True),
    Rule(cites_nothing),
    Rule(invented_link, spoils_reply=True),
    Rule(invented_amount, spoils_reply=True),
    Rule(invented_number, spoils_reply=True),
    Rule(reply_language, spoils_reply=True),
)
"""In the order in which a person reads the reasons: the message, how often, what was read, what was suggested."""


def _when(objects: object, code: str, sentence: str) -> Reason | None:
    return Reason(code=code, text=sentence) if objects else None
