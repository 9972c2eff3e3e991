"""Candidates for evals.jsonl out of the log: what customers really wrote where a person put the proposal right.

The log says that a person did, and never what would have been right: an approval that was denied, or an answer that
staff wrote themselves, names no field. So a candidate shows both, and a person fills in what is expected.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import cast

from pydantic import ValidationError

from contracts.base import Contract
from contracts.events.cases import CaseChanged
from contracts.events.decisions import ApprovalResolved
from contracts.events.proposals import ProposalMade
from contracts.knowledge import Question
from contracts.sealed import UnsealableError
from nightshift.evals.examples import CANDIDATE, FILL_IN, Eval
from nightshift.progress import Progress, silent
from services.reporter.domain.log import History, history_of, read
from services.reporter.domain.sla import replies_of
from services.reporter.outbound.event_log import read_entries
from services.runtime import vault
from services.runtime.postgres import Connection
from services.runtime.process import Process
from services.runtime.vault import CaseKeys

CASES_MAX = 10_000
"""So many cases are looked through, the last changed first."""
CASES_AT_ONCE = 100

_CASES = """
SELECT case_id FROM reporter.projections WHERE kind = 'case' AND process = $1 ORDER BY at DESC, case_id DESC LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Correction:
    """A proposal that a person put right."""

    made: ProposalMade
    why: str
    answer: str | None = None
    """What staff answered the customer, sealed; none where they did not."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Lines for a file of their own."""

    lines: Sequence[str]
    cases: int
    """Looked through."""
    unreadable: int
    """Left out: the customer's key was erased, or an older version of the process wrote it."""


def corrections_of(history: History) -> list[Correction]:
    """One for each question of which a person said no to what was proposed, or which staff answered publicly."""
    made = {event.data.basis: event.data for event in history.of(ProposalMade)}
    denied = {e.data.basis: e.data for e in history.of(ApprovalResolved) if e.data.answer == "denied"}
    changes = {event.event_id: event.data for event in history.of(CaseChanged)}
    replies = [(reply.at, changes[reply.event_id]) for reply in replies_of(history) if reply.by == "staff"]
    found = []
    for basis, following in pairwise([*sorted(made), ""]):
        since, until = _moment(basis), _moment(following) if following else None
        answer = next((c for at, c in replies if since < at and (until is None or at < until)), None)
        no = denied.get(basis)
        if no is None and answer is None:
            continue
        said = [] if no is None else [f"{no.by} said no{': ' + no.reason if no.reason else ''}"]
        said += [] if answer is None else ["staff answered"]
        body = None if answer is None else answer.texts.get("body")
        found.append(Correction(made[basis], "; ".join(said), body))
    return found


async def candidates(
    connection: Connection, process: Process, known: Sequence[Eval], progress: Progress = silent
) -> Candidates:
    """What `known` does not hold yet. The connection has the operator's rights: texts are opened."""
    case_ids = [row["case_id"] for row in await connection.fetch(_CASES, process.name, CASES_MAX)]
    lines = {one.id: "" for one in known}
    unreadable = 0
    for start in range(0, len(case_ids), CASES_AT_ONCE):
        some = case_ids[start : start + CASES_AT_ONCE]
        entries, keys = await read_entries(connection, some), await vault.read(connection, some)
        for case_id, told in entries.items():
            for correction in corrections_of(history_of(map(read, told))):
                try:
                    key, line = _line(process, case_id, correction, keys[case_id])
                except (UnsealableError, ValidationError):
                    unreadable += 1
                else:
                    lines.setdefault(key, line)
        progress("cases", start + len(some), len(case_ids))
    return Candidates([line for line in lines.values() if line], len(case_ids), unreadable)


def _line(process: Process, case_id: str, correction: Correction, keys: CaseKeys) -> tuple[str, str]:
    """The eval's id, and the line."""
    made = correction.made
    case = process.case.reveal(process.case.Case.model_validate(made.case), keys.unseal)
    step = process.step_module(process.settings.steps[-1].name, "question")
    asked = cast("Callable[[Contract], Question]", step.question)
    output = process.Proposal.model_validate_json(keys.unseal(made.output)).model_dump(mode="json")
    fields = [*process.settings.evals.floors] or [*output]
    one = Eval(text=asked(case).text, expected=dict.fromkeys(fields, FILL_IN), source=case_id)
    told = {
        "why": correction.why,
        "proposed": {name: output[name] for name in fields},
        "answered": None if correction.answer is None else keys.unseal(correction.answer),
    }
    return one.id, json.dumps({**one.model_dump(mode="json"), CANDIDATE: told}, ensure_ascii=False)


def _moment(basis: str) -> datetime:
    return datetime.fromisoformat(basis.split("|", maxsplit=1)[0])
