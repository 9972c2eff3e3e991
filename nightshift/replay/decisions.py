"""Past decisions through the rules of today, from the recorded proposals, facts and circumstances. Nothing is sent."""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import ValidationError

from contracts import topics
from contracts.base import Contract, Fact
from contracts.decision import Action, Difference, Execute, Hold, Reason, decision_digest, verdict_of
from contracts.envelope import Event, UnknownTypeError, UnreadableError, decode
from contracts.events.decisions import DecidedFrom, DecisionMade
from contracts.events.proposals import ProposalMade
from contracts.failures import LaterError, OutcomeUnknownError, PermanentError
from contracts.sealed import UnsealableError
from nightshift import MendableError
from nightshift.progress import Progress, silent
from nightshift.replay.history import Copy, entry_from, reading, replaying
from services.actor.domain import gate
from services.actor.domain.difference import difference_of
from services.actor.handlers.judge import judge, question_of
from services.actor.handlers.proposal_made import ALREADY
from services.classifier.config import Settings
from services.classifier.domain.prices import PricesInvalidError
from services.classifier.handlers.ask_model import Accepted, Rejected, ask_model
from services.classifier.handlers.read_facts import facts_json
from services.classifier.handlers.shadow import Asked, ask_again
from services.classifier.models import desk_without_database, provider_of
from services.classifier.ports import Cost, Desk, Provider
from services.reporter.domain.log import Entry
from services.runtime import vault
from services.runtime.config import KafkaSettings, MissingSettingError
from services.runtime.postgres import Connection, Database
from services.runtime.process import Process, ProcessInvalidError, load_all
from services.runtime.vault import CaseKeys

RUN = "decisions"
BATCH_MAX = 100
ASKS_AT_ONCE_MAX = 8
ASK_TRIES_MAX = 5
WAIT_SECONDS_MAX = 60.0
NEVER_ASKED = frozenset({gate.STALE.reasons[0].code, ALREADY.code})
"""Settled by the engine, whatever the rules say: something newer came, or another proposal had come before."""

Outcome = Difference | Literal["not by rules", "not replayable"]
DIFFERENT: tuple[Outcome, ...] = ("stricter", "looser", "other actions", "other reasons", "other requests")

BEFORE_FIELDS = "recorded before decisions held what they were made from"
NO_PROPOSAL_THERE = "its proposal is not on the topics"
ERASED = "its text was erased"
UNKNOWN_CASE = "today's build cannot read its case"

Model = tuple[Provider, Desk]
"""Who proposes, and who puts the question together."""

_WANTED = "SELECT headers, body FROM replay.entries WHERE run = $1 AND topic = $2"
_NEXT = """
SELECT d.* FROM replay.entries d WHERE d.run = $1 AND d.topic = $2
AND NOT EXISTS (SELECT FROM replay.judged j WHERE j.decision_id = d.event_id) ORDER BY d.time, d.event_id LIMIT $3
"""
_PROPOSALS = "SELECT * FROM replay.entries WHERE run = $1 AND event_id = ANY($2)"
_COUNT = """
SELECT (SELECT count(*) FROM replay.entries WHERE run = $1 AND topic = $2) AS decisions,
       (SELECT count(*) FROM replay.judged) AS judged
"""
_SPENT = "SELECT coalesce(sum(cost_usd), 0) FROM replay.calls"
_RESERVE = "INSERT INTO replay.calls (cost_usd) VALUES ($1) RETURNING call_id"
_SETTLE = "UPDATE replay.calls SET cost_usd = $2 WHERE call_id = $1"
_KEEP = """
INSERT INTO replay.judged (decision_id, outcome, told, cost_usd)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::numeric[]) ON CONFLICT DO NOTHING
"""
_TOLD = """
SELECT j.told FROM replay.judged j JOIN replay.entries d ON d.run = $1 AND d.event_id = j.decision_id
ORDER BY d.time, d.event_id
"""
_CLEAR = "TRUNCATE replay.judged, replay.calls"


class Verdict(Contract):
    """How a case was decided, without people's text."""

    verdict: str
    reasons: tuple[Reason, ...] = ()
    actions: tuple[Action, ...] = ()
    digest: str | None = None


class Compared(Contract):
    """One decision, as it was and as it would be."""

    decision_id: UUID
    process: str
    case_id: str
    basis: str
    decided_at: datetime
    policy_digest: str
    outcome: Outcome
    why: str = ""
    """Where it is not replayable."""
    before: Verdict
    after: Verdict | None = None
    cost_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which decisions are run again: those made from `since` on and before `until`; none leaves that side open."""

    since: datetime | None = None
    until: datetime | None = None
    process: str | None = None
    """None: every process of the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of it. `finished` is false where the budget ended it."""

    compared: Sequence[Compared]
    policies: Mapping[str, str]
    """By process: the digest of every setting in force today."""
    cost_usd: Decimal
    resumed: bool
    finished: bool
    counts: Mapping[Outcome, int] = field(init=False)

    def __post_init__(self) -> None:
        counts: dict[Outcome, int] = {}
        for one in self.compared:
            counts[one.outcome] = counts.get(one.outcome, 0) + 1
        object.__setattr__(self, "counts", counts)

    @property
    def different(self) -> list[Compared]:
        """Case by case, in the order in which they were decided."""
        return [one for one in self.compared if one.outcome in DIFFERENT]

    @property
    def same(self) -> int:
        return self.counts.get("same", 0)


async def replay_decisions(
    admin_url: str,
    bootstrap: str,
    window: Window,
    *,
    repropose: str | None = None,
    budget_usd: Decimal = Decimal(0),
    models: Mapping[str, Model] | None = None,
    overrides: str | None = None,
    progress: Progress = silent,
) -> Replayed:
    """Read the decisions of the window and their proposals from the topics, and decide again. Raises MendableError.

    `repropose` names a model that proposes anew, from the recorded case and facts and the knowledge of today, for at
    most `budget_usd`; `models`, by process, go before it. `overrides` as in NIGHTSHIFT_PROCESS_OVERRIDES.
    """
    settings = _settings(window.process, overrides)
    processes = load_all(settings)
    asked = _models(processes, repropose, settings) if models is None else models
    policies = {name: process.policy_digest for name, process in processes.items()}
    code = _code_digest(process.folder for process in processes.values())
    options = json.dumps([repropose, policies, code, str(window.since), str(window.until)], sort_keys=True)
    async with replaying(admin_url) as database:
        async with reading(KafkaSettings(kafka_bootstrap=bootstrap)) as history:
            copy = Copy(database, history, RUN)
            resumed = await copy.begin(hashlib.sha256(options.encode()).hexdigest())
            async with database.transaction() as connection:
                if not resumed:
                    await connection.execute(_CLEAR)
            await _copy(copy, window, frozenset(processes), progress)
        money = _Money(database, budget_usd)
        finished = await _Again(database, processes, asked, money).run(progress)
        async with database.transaction() as connection:
            told = [Compared.model_validate_json(row[0]) for row in await connection.fetch(_TOLD, RUN)]
            if finished:
                await connection.execute(_CLEAR)
                await copy.forget(connection)
    return Replayed(compared=told, policies=policies, cost_usd=money.spent_usd, resumed=resumed, finished=finished)


def _code_digest(folders: Iterable[Path]) -> str:
    """Of all that decides: what an older version of it decided is not gone on with."""
    digest = hashlib.sha256()
    for folder in (Path(gate.__file__).parents[1], *folders):
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _settings(process: str | None, overrides: str | None) -> Settings:
    given: dict[str, Any] = {} if process is None else {"processes": process}
    given |= {} if overrides is None else {"process_overrides": overrides}
    return Settings(database_url="", kafka_bootstrap="", **given)


def _models(processes: Mapping[str, Process], name: str | None, settings: Settings) -> dict[str, Model]:
    """Who proposes anew, by process; nobody where nothing is proposed anew."""
    if name is None:
        return {}
    try:
        return {
            process.name: (provider_of(name, process, settings), desk_without_database(process, name, settings))
            for process in processes.values()
        }
    except (ProcessInvalidError, MissingSettingError, PricesInvalidError) as error:
        raise MendableError(str(error)) from error


async def _copy(copy: Copy, window: Window, processes: frozenset[str], progress: Progress) -> None:
    """The decisions first: whatever they were made from lies on the topics since before them."""

    def decided(entry: Entry) -> bool:
        made = _decision(entry)
        return (
            made is not None
            and entry.process in processes
            and (window.since is None or made.data.decided_at >= window.since)
            and (window.until is None or made.data.decided_at < window.until)
        )

    await copy.take([topics.DECISIONS], wanted=decided, progress=progress)
    async with copy.database.connection() as connection:
        rows = await connection.fetch(_WANTED, RUN, topics.DECISIONS)
    wanted = {
        event.data.proposal_id
        for row in rows
        if isinstance((event := decode(json.loads(row["headers"]), row["body"])).data, DecisionMade)
    }
    await copy.take([topics.PROPOSALS], wanted=lambda entry: entry.event_id in wanted, progress=progress)


def _decision(entry: Entry) -> Event[DecisionMade] | None:
    try:
        event: Event[Any] = decode(entry.headers, entry.body)
    except (UnknownTypeError, UnreadableError):
        return None
    return event if isinstance(event.data, DecisionMade) else None


class _BudgetUsedUpError(Exception):
    """No further call fits, whatever those under way take."""


class _Money:
    """Implements ports.Purse for a whole replay: what is spent and set aside together is never above its budget."""

    taken: Cost | None = None
    """Each proposal tells what its own calls took."""

    def __init__(self, database: Database, budget_usd: Decimal) -> None:
        self._database = database
        self._budget_usd = budget_usd
        self._reserved_usd: dict[UUID, Decimal] = {}
        self._changed = asyncio.Condition()
        self.spent_usd = Decimal(0)

    async def begin(self) -> None:
        """Go on from what was spent before; a call that was interrupted counts for the most it can take."""
        async with self._database.connection() as connection:
            self.spent_usd = await connection.fetchval(_SPENT)

    async def reserve(self, worst: Cost, model: str) -> UUID:
        """See Purse: waits for calls under way. Raises _BudgetUsedUpError."""
        del model
        async with self._changed:
            while self.spent_usd + sum(self._reserved_usd.values()) + worst.cost_usd > self._budget_usd:
                if self.spent_usd + worst.cost_usd > self._budget_usd:
                    raise _BudgetUsedUpError
                await self._changed.wait()
            async with self._database.connection() as connection:
                call: UUID = await connection.fetchval(_RESERVE, worst.cost_usd)
            self._reserved_usd[call] = worst.cost_usd
            return call

    async def settle(self, call: UUID, took: Cost, *, request_id: str | None = None) -> None:
        """See Purse."""
        del request_id
        async with self._changed:
            async with self._database.connection() as connection:
                await connection.execute(_SETTLE, call, took.cost_usd)
            del self._reserved_usd[call]
            self.spent_usd += took.cost_usd
            self._changed.notify_all()

    async def lose(self, call: UUID) -> None:
        """See Purse."""
        await self.settle(call, Cost(cost_usd=self._reserved_usd[call]))

    async def look(self) -> None:
        """See Purse: there are no earlier tries."""


class _Again:
    """Decides again, batch by batch; each batch is kept, so that nothing is asked twice."""

    def __init__(
        self,
        database: Database,
        processes: Mapping[str, Process],
        models: Mapping[str, Model],
        money: _Money,
    ) -> None:
        self._database = database
        self._processes = processes
        self._models = models
        self._money = money

    async def run(self, progress: Progress) -> bool:
        """Whether everything was decided again; false where the budget was used up before."""
        await self._money.begin()
        async with self._database.connection() as connection:
            size = await connection.fetchrow(_COUNT, RUN, topics.DECISIONS)
            assert size is not None, "it is a row of counts"
            done, total = size["judged"], size["decisions"]
            while rows := await connection.fetch(_NEXT, RUN, topics.DECISIONS, self._batch()):
                compared, failure = await self._decide(connection, [entry_from(row) for row in rows])
                await connection.execute(
                    _KEEP,
                    [one.decision_id for one in compared],
                    [one.outcome for one in compared],
                    [one.model_dump_json() for one in compared],
                    [one.cost_usd for one in compared],
                )
                done += len(compared)
                progress("deciding again", done, total)
                if failure is not None:
                    raise failure
                if len(compared) < len(rows):
                    return False
        return True

    def _batch(self) -> int:
        return ASKS_AT_ONCE_MAX if self._models else BATCH_MAX

    async def _decide(
        self, connection: Connection, entries: Sequence[Entry]
    ) -> tuple[list[Compared], MendableError | None]:
        """Fewer than asked for where the budget ended, or a model does not answer: what was answered is kept."""
        events = [event for entry in entries if (event := _decision(entry)) is not None]
        proposals: dict[UUID | None, Event[Fact]] = {}
        for row in await connection.fetch(_PROPOSALS, RUN, [event.data.proposal_id for event in events]):
            entry = entry_from(row)
            proposals[entry.event_id] = decode(entry.headers, entry.body)
        keys = await vault.read(connection, [event.case_id for event in events])
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(self._one(e, proposals.get(e.data.proposal_id), keys[e.case_id])) for e in events
            ]
        answers = [task.result() for task in asked]
        failed = [answer for answer in answers if isinstance(answer, MendableError)]
        return [answer for answer in answers if isinstance(answer, Compared)], failed[0] if failed else None

    async def _one(
        self, event: Event[DecisionMade], proposal: Event[Fact] | None, keys: CaseKeys
    ) -> Compared | MendableError | None:
        """None where no money is left for it."""
        made = event.data
        before = Verdict(verdict=made.verdict, reasons=made.reasons, actions=made.actions, digest=made.digest)

        def told(outcome: Outcome, why: str = "", after: Verdict | None = None, cost: Decimal = Decimal(0)) -> Compared:
            return Compared(
                decision_id=event.event_id,
                process=event.process,
                case_id=event.case_id,
                basis=made.basis,
                decided_at=made.decided_at,
                policy_digest=made.policy_digest,
                outcome=outcome,
                why=why,
                before=before,
                after=after,
                cost_usd=cost,
            )

        if made.proposal_id is None or any(reason.code in NEVER_ASKED for reason in made.reasons):
            return told("not by rules")
        if made.decided_from is None or made.digest is None:
            return told("not replayable", BEFORE_FIELDS)
        if proposal is None or not isinstance(proposal.data, ProposalMade):
            return told("not replayable", NO_PROPOSAL_THERE)
        try:
            after, cost = await self._after(event, made.decided_from, proposal.data, keys)
        except UnsealableError:
            return told("not replayable", ERASED)
        except ValidationError:
            return told("not replayable", UNKNOWN_CASE)
        except _BudgetUsedUpError:
            return None
        except MendableError as error:
            return error
        return told(difference_of(before, after), "", after, cost)

    async def _after(
        self, event: Event[DecisionMade], known: DecidedFrom, proposal: ProposalMade, keys: CaseKeys
    ) -> tuple[Verdict, Decimal]:
        """What comes of it today. Raises UnsealableError, ValidationError, MendableError."""
        process = self._processes[event.process]
        facts, output, cost = str(proposal.facts), str(proposal.output), Decimal(0)
        if model := self._models.get(process.name):
            answer, facts = await _propose(process, model, proposal, keys, self._money)
            cost = answer.spent.cost_usd
            if isinstance(answer, Rejected):
                return Verdict(verdict="none", reasons=(Reason(code=answer.code, text=f"{answer.why}."),)), cost
            output = keys.seal(answer.output.model_dump_json())
        judgment = judge(process, question_of(process, event.case_id, event.data, known, facts, output, keys))
        decision = judgment.decision
        after = Verdict(
            verdict=verdict_of(decision),
            reasons=decision.reasons,
            actions=decision.actions if isinstance(decision, Execute | Hold) else (),
            digest=decision_digest(decision, judgment.requests),
        )
        return after, cost


async def _propose(
    process: Process, model: Model, proposal: ProposalMade, keys: CaseKeys, money: _Money
) -> tuple[Accepted | Rejected, str]:
    """A proposal from the case and the facts that the recorded one was made from; and the facts with its passages."""
    provider, desk = model
    ask = await ask_again(process, desk, Asked(proposal.case, proposal.facts), keys)
    facts = keys.seal(facts_json(ask.facts))
    for _ in range(ASK_TRIES_MAX):
        try:
            return await ask_model(provider, ask, money), facts
        except LaterError as error:
            await asyncio.sleep(min(error.seconds, WAIT_SECONDS_MAX))
        except (PermanentError, OutcomeUnknownError) as error:
            raise MendableError(f"{provider.name} does not answer: {error}") from error
    raise MendableError(
        f"{provider.name} does not answer: asked {ASK_TRIES_MAX} times; run it again to go on from here"
    )
