"""What one decision looks at, each text read once for all the rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation

from contracts.decision import Action, Circumstances, Facts, Reason
from processes.support import case as cases, facts as books, refunds, text
from processes.support.policy import Policy
from processes.support.steps.answer.output import Proposal
from processes.support.ticket import Case, Comment


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Case, facts and proposal before the rules. The case is revealed; the proposal is untrusted."""

    case: Case
    facts: Facts
    proposal: Proposal
    policy: Policy
    now: datetime
    circumstances: Circumstances

    asked: Comment | None
    """The message that is answered; none for a reopening."""
    question: str
    """Everything unanswered, as it was written."""
    plain_question: str
    question_language: str | None
    named_orders: tuple[str, ...]
    wants_reply: bool
    passages: tuple[str, ...]
    """The text of every cited passage. A citation of something that the model was not shown counts for nothing."""
    refund_reasons: tuple[Reason, ...]
    """Why a person must see the refunds."""
    refunds: tuple[Action, ...]
    """Those that may be carried."""

    @property
    def evidence(self) -> str:
        """Every word that a reply may take its links and numbers from."""
        return "\n".join((*self.passages, *map(str, self._fact_values)))

    @property
    def known_amounts(self) -> frozenset[Decimal]:
        """Amounts of the passages, numbers of the facts, and refunds that the books allow."""
        numbers = {n for value in self._fact_values if (n := _number(value)) is not None}
        asked_for = {Decimal(str(action.params["amount"])) for action in self.refunds}
        return text.amounts("\n".join(self.passages)) | numbers | asked_for

    @property
    def _fact_values(self) -> tuple[object, ...]:
        answers = (answer for name, answer in self.facts.items() if name != books.KNOWLEDGE)
        return tuple(value for answer in answers for row in answer.rows for value in row.values() if value is not None)


def look(
    case: Case, facts: Facts, proposal: Proposal, policy: Policy, now: datetime, circumstances: Circumstances
) -> Seen:
    """Read what every rule needs."""
    question = books.question(case)
    reasons, carried = refunds.check(proposal, facts, policy.refunds)
    shown = facts[books.KNOWLEDGE].rows if books.KNOWLEDGE in facts else ()
    return Seen(
        case=case,
        facts=facts,
        proposal=proposal,
        policy=policy,
        now=now,
        circumstances=circumstances,
        asked=cases.asked(case),
        question=question,
        plain_question=text.plain(question),
        question_language=text.language(question),
        named_orders=text.order_numbers(question),
        wants_reply=bool(proposal.reply.strip()) and any(action.name == "reply" for action in proposal.actions),
        passages=tuple(_words(row) for row in shown if row.get("id") in proposal.citations),
        refund_reasons=tuple(reasons),
        refunds=tuple(carried),
    )


def _words(row: Mapping[str, object]) -> str:
    return "\n".join(str(value) for name, value in row.items() if name != "id")


def _number(value: object) -> Decimal | None:
    try:
        return None if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        return None
