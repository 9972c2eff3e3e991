"""One decision, without any table: what is settled before, the rules over the revealed case, what they would send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from pydantic import TypeAdapter, ValidationError

from contracts.base import Contract
from contracts.decision import (
    Action,
    Circumstances,
    Decision,
    Execute,
    FactAnswer,
    Facts,
    Hold,
    Ignore,
    Mode,
    Reason,
    Request,
)
from contracts.events.decisions import DecidedFrom, DecisionMade
from contracts.proposed import Proposed
from services.actor.domain import effect, gate
from services.runtime.cases import StoredCase
from services.runtime.process import Process
from services.runtime.vault import CaseKeys

_FACTS = TypeAdapter(dict[str, FactAnswer])

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything a decision is made from."""

    stored: StoredCase
    basis: str
    facts: str
    """Sealed."""
    output: str
    """Sealed."""
    keys: CaseKeys
    circumstances: Circumstances
    modes: Mapping[str, Mode]
    already_decided: bool
    held: bool
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """A decision and the requests that it would send: an Execute sends them, a Hold asks a person first."""

    decision: Decision
    requests: tuple[Request, ...] = ()
    actions: tuple[Action, ...] = ()
    """Those whose mode is not `watch`."""


def question_of(
    process: Process, case_id: str, made: DecisionMade, known: DecidedFrom, facts: str, output: str, keys: CaseKeys
) -> Question:
    """What a recorded decision was made from, put together again. Raises ValidationError for another build's case."""
    door, object_id = case_id.split(":", 2)[1:]
    case = process.case.Case.model_validate(known.case)
    return Question(
        stored=StoredCase(case_id, process.name, door, object_id, case),
        basis=made.basis,
        facts=facts,
        output=output,
        keys=keys,
        circumstances=made.circumstances,
        modes={action: known.modes.get(action, "watch") for action in process.settings.actions},
        already_decided=False,  # such a decision is never recorded
        held=known.held,
        now=made.decided_at,
    )


def judge(process: Process, question: Question) -> Judgment:
    """Decide. Raises UnsealableError where the text was erased; whatever else goes wrong is a Hold."""
    settled = gate.before_rules(_situation(process, question))
    if isinstance(settled, Ignore):
        return Judgment(decision=settled)
    case = process.case.reveal(question.stored.case, question.keys.unseal)
    try:
        proposal = process.Proposal.model_validate_json(question.keys.unseal(question.output))
        facts = _FACTS.validate_json(question.keys.unseal(question.facts))
    except ValidationError:
        return Judgment(decision=settled or _hold("unknown_proposal", "The proposal has an unknown form."))
    decision = settled or _by_rules(process, question, case, facts, proposal)
    return _with_requests(process, question.modes, case, facts, proposal, decision)


def _situation(process: Process, question: Question) -> gate.Situation:
    case, door = question.stored.case, question.stored.door
    return gate.Situation(
        basis=question.basis,
        newest_basis=process.case.basis(case),
        awaits_answer=process.case.awaits_answer(case),
        already_decided=question.already_decided,
        opened_at=process.case.opened_at(case),
        asked_at=process.case.asked_at(case),
        start_at=process.starts_at(door),
        max_age=process.max_age(door),
        now=question.now,
        held=question.held,
    )


def _by_rules(process: Process, question: Question, case: Contract, facts: Facts, proposal: Proposed) -> Decision:
    try:
        decision = process.rules.decide(case, facts, proposal, process.policy, question.now, question.circumstances)
    except Exception as error:  # noqa: BLE001  # rules that raise must never execute; the message may quote people
        log.error("rules raised; the case is held", process=process.name, error=type(error).__name__)  # noqa: TRY400  # as above
        return _hold("rules_failed", "The rules could not decide.")
    if isinstance(decision, Execute | Hold):
        strange = [action.name for action in decision.actions if action.name not in process.settings.actions]
        if strange:
            log.error("rules named an action that process.toml lacks", process=process.name, actions=strange)
            return _hold("unknown_action", "The rules named an action that this process does not have.")
    return decision


def _with_requests(
    process: Process,
    modes: Mapping[str, Mode],
    case: Contract,
    facts: Facts,
    proposal: Proposed,
    decision: Decision,
) -> Judgment:
    """Render what an Execute sends and what an approval would send. Nothing where every action only watches."""
    if not isinstance(decision, Execute | Hold):
        return Judgment(decision=decision)
    acting = tuple(action for action in decision.actions if modes[action.name] != "watch")
    if not acting:
        return Judgment(decision=decision)
    try:
        requests = tuple(process.effects.requests(case, facts, proposal, decision, modes, process.policy))
    except Exception as error:  # noqa: BLE001  # as in _by_rules
        log.error("effects raised; the case is held", process=process.name, error=type(error).__name__)  # noqa: TRY400  # as above
        return Judgment(decision=_hold("effects_failed", "The answer could not be put into requests."))
    if (reason := _unsendable(process, requests)) is not None:
        return Judgment(decision=_hold(reason, "The answer cannot be sent as it is."))
    return Judgment(decision=decision, requests=requests, actions=acting)


def _unsendable(process: Process, requests: Sequence[Request]) -> str | None:
    if any(request.connector not in process.settings.destinations for request in requests):
        return "unknown_destination"
    if len({request.kind for request in requests}) < len(requests):
        return "two_of_a_kind"
    if any(request.kind == effect.HANDOVER for request in requests):
        return "handover_by_rules"
    return None


def _hold(code: str, text: str) -> Hold:
    return Hold(reasons=(Reason(code=code, text=text),))
