"""What one decision looks at, each part worked out once and only when a rule asks."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import cached_property

from contracts.decision import Action, Circumstances, FactAnswer, Facts, Reason
from processes.support import case as cases, facts as books, refunds, text
from processes.support.policy import Policy
from processes.support.steps.answer.output import Proposal
from processes.support.ticket import Case, Comment


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Case, facts and proposal before the rules. The case is revealed; the proposal is untrusted."""

    case: Case
    facts: Facts
    proposal: Proposal
    policy: Policy
    now: datetime
    circumstances: Circumstances

    @cached_property
    def asked(self) -> Comment | None:
        """The message that is answered; none for a reopening."""
        return cases.asked(self.case)

    @cached_property
    def question(self) -> str:
        """Everything unanswered, as it was written."""
        return books.question(self.case)

    @cached_property
    def named_orders(self) -> tuple[str, ...]:
        return text.order_numbers(self.question)

    @cached_property
    def plain_question(self) -> str:
        return text.plain(self.question)

    @cached_property
    def question_language(self) -> str | None:
        return text.language(self.question)

    @cached_property
    def wants_reply(self) -> bool:
        return bool(self.proposal.reply.strip()) and any(a.name == "reply" for a in self.proposal.actions)

    @cached_property
    def passages(self) -> tuple[str, ...]:
        """The text of every cited passage. A citation of something that the model was not shown counts for nothing."""
        rows = self.facts.get(books.KNOWLEDGE, FactAnswer(name=books.KNOWLEDGE, ok=True)).rows
        cited = [row for row in rows if row.get("id") in self.proposal.citations]
        return tuple("\n".join(str(v) for k, v in row.items() if k != "id") for row in cited)

    @cached_property
    def evidence(self) -> str:
        """Every word that a reply may take its links and numbers from."""
        return "\n".join((*self.passages, *map(str, self._fact_values)))

    @cached_property
    def known_amounts(self) -> frozenset[Decimal]:
        """Amounts of the passages, numbers of the facts, and refunds that the books allow."""
        numbers = {n for value in self._fact_values if (n := _number(value)) is not None}
        asked_for = {Decimal(str(action.params["amount"])) for action in self.refunds[1]}
        return text.amounts("\n".join(self.passages)) | numbers | asked_for

    @cached_property
    def refunds(self) -> tuple[tuple[Reason, ...], tuple[Action, ...]]:
        """Why a person must see the refunds, and which of them may be carried."""
        reasons, carried = refunds.check(self.proposal, self.facts, self.policy.refunds)
        return tuple(reasons), tuple(carried)

    @cached_property
    def _fact_values(self) -> tuple[object, ...]:
        answers = (answer for name, answer in self.facts.items() if name != books.KNOWLEDGE)
        return tuple(value for answer in answers for row in answer.rows for value in row.values() if value is not None)


def _number(value: object) -> Decimal | None:
    try:
        return None if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        return None
