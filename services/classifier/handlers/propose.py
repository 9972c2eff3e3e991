"""Propose an answer for the newest basis of a case: complete it, read facts, ask the model, say what came of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from connectors.protocol import LooksUp, Reads
from contracts.base import Contract, Fact
from contracts.decision import Facts
from contracts.envelope import Event, follow_up_id
from contracts.events.proposals import FactsRead, ModelFailed, ProposalFailed, ProposalMade
from contracts.failures import LaterError
from services.classifier.handlers.ask_model import Accepted, PausedError, Rejected
from services.classifier.handlers.ask_models import (
    SAID_NOTHING,
    WHY,
    NobodyAnsweredError,
    ask_models,
    passed_over_total,
)
from services.classifier.handlers.complete import completed, loaded
from services.classifier.handlers.read_facts import facts_json, read_facts, without_values
from services.classifier.handlers.regimes import Canary, Regime
from services.classifier.ports import Ask, Budget, Cost, MoneyReservedError, Purse
from services.runtime import cases, switches, telemetry
from services.runtime.cases import Change, StoredCase, merging
from services.runtime.failures import Again, Never, tell
from services.runtime.postgres import Connection, Database
from services.runtime.process import Process
from services.runtime.tasks import Claim, Done, Outcome
from services.runtime.vault import CaseKeys

SOURCE = "nightshift/classifier"
CLAIM_TO_CALL_SECONDS = 2.0
"""What was claimed longer ago than this when a model would be asked sees first whether the process was paused since."""

_SETTLE_BASIS = """
UPDATE tasks t SET basis = r.basis FROM unnest($1::text[], $2::text[]) r(case_id, basis)
WHERE t.case_id = r.case_id AND t.kind = 'propose' AND t.basis < r.basis
"""

_ASK_AGAIN = """
UPDATE tasks t SET state = CASE WHEN r.waits THEN 'open' ELSE t.state END,
       basis = CASE WHEN r.waits THEN t.basis ELSE '' END, available_at = clock_timestamp()
FROM unnest($1::text[], $2::boolean[]) r(case_id, waits) WHERE t.case_id = r.case_id AND t.kind = 'propose'
"""

log = structlog.get_logger()

Beside = Callable[[Connection, Sequence[Event[Fact]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Read:
    """A case that was completed by reading it outside: kept with the result."""

    stored: StoredCase
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposing:
    """The work of kind `propose` for one process."""

    database: Database
    process: Process
    live: Regime
    doors: Mapping[str, Reads]
    sources: Mapping[str, LooksUp]
    asks_at_once: asyncio.Semaphore
    budget: Budget
    clock: Callable[[], float] = time.monotonic
    """Seconds that only rise."""
    canary: Canary | None = None
    """Asked instead, where a case is its own."""
    beside: Beside | None = None
    """Told of what was said, in the transaction that says it."""

    async def perform(self, claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        """Propose for each claim; one that fails leaves the others alone."""
        claimed_at = self.clock()
        held = await loaded(self.database, self.process, claims)
        its_own: frozenset[str] = frozenset()
        if self.canary is not None:
            async with self.database.connection() as connection:
                its_own = await self.canary.takes(connection, [claim.case_id for claim in claims])
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._one(claimed_at, *one, by=self._by(one[0], its_own))) for one in held]
        return [task.result() for task in asked]

    async def store(self, connection: Connection, finished: Sequence[tuple[Claim, Done]]) -> None:
        """Keep what was read outside, so that nobody reads or asks again for it.

        Where nobody waited for an answer, the same basis is asked for again as soon as somebody does (a ticket that
        comes back): at once, where that was told while this was under way.
        """
        if self.beside is not None:
            await self.beside(connection, [event for _, done in finished for event in done.events])
        idle = [claim.case_id for claim, done in finished if not done.events]
        read = {claim.case_id: done.result for claim, done in finished if isinstance(done.result, Read)}
        if not idle and not read:
            return
        processes: Mapping[str, Process] = {self.process.name: self.process}
        await cases.lock(connection, [*idle, *read])
        if read:
            changes = {
                case_id: Change(r.stored.process, r.stored.door, r.stored.object_id, [merging(r.stored.case)])
                for case_id, r in read.items()
            }
            await cases.update(connection, processes, changes)
            asked = [case_id for case_id in read if case_id not in idle]
            await connection.execute(_SETTLE_BASIS, asked, [read[case_id].basis for case_id in asked])
        now = await cases.read(connection, processes, idle)
        waits = [self._waits(now[case_id]) for case_id in idle]
        await connection.execute(_ASK_AGAIN, idle, waits)

    def _waits(self, stored: StoredCase) -> bool:
        return self.process.case.basis(stored.case) is not None and self.process.case.awaits_answer(stored.case)

    def _by(self, claim: Claim, its_own: Collection[str]) -> Regime:
        return self.canary.regime if self.canary is not None and claim.case_id in its_own else self.live

    async def _one(
        self, claimed_at: float, claim: Claim, stored: StoredCase, keys: CaseKeys, now: datetime, *, by: Regime
    ) -> Outcome | Exception:
        try:
            async with self.asks_at_once:
                with telemetry.span("propose", claim.traceparent) as traceparent:
                    run = _Run(claim, claimed_at, keys, now, traceparent)
                    try:
                        return await self._propose(run, stored, by)
                    except MoneyReservedError:
                        raise
                    except LaterError as error:
                        if (failed := await self._waited_out(run, stored, error, by)) is None:
                            raise
                        return Done((failed,))
        except Exception as error:  # noqa: BLE001  # failures.tell sorts it: never, later, or again
            return error

    async def _waited_out(self, run: "_Run", stored: StoredCase, error: LaterError, by: Regime) -> Event[Fact] | None:
        """A person is told when even an outage is no excuse: nobody would answer unattended what is so old."""
        basis = self.process.case.basis(stored.case)
        if basis is None or run.now - self.process.case.asked_at(stored.case) <= self.process.max_age(stored.door):
            return None
        purse = self.budget.purse(run.claim)
        await purse.look()
        taken = purse.taken or Cost()
        failed = ProposalFailed(
            basis=basis,
            code=error.code,
            attempts=run.claim.attempts,
            tokens_in=taken.tokens_in,
            tokens_out=taken.tokens_out,
            cost_usd=taken.cost_usd,
            failed=error.failed if isinstance(error, NobodyAnsweredError) else (),
            regime=by.digest_of(0),
            candidate=by.is_candidate,
        )
        return run.event(failed)

    async def _propose(self, run: "_Run", stored: StoredCase, by: Regime) -> Outcome:
        module = self.process.case
        read = None
        if module.needs_reading(stored.case):
            stored = await completed(stored, self.process, self.doors, keys=run.keys, now=run.now)
            read = Read(stored, module.basis(stored.case) or run.claim.basis)
        basis = module.basis(stored.case)
        if basis is None or not module.awaits_answer(stored.case):
            return Done((), read)  # answered, gone, or nothing was asked after all
        case = module.reveal(stored.case, run.keys.unseal)
        facts = await read_facts(self.process.facts.queries(case), self.sources)
        told = run.event(FactsRead(basis=basis, facts=without_values(facts), answers=run.keys.seal(facts_json(facts))))
        purse = self.budget.purse(run.claim, run.tell_what_calls_took({run.claim.basis, basis}))
        asked = await self._ask(run, purse, case, facts, by)
        match asked.answer:
            case Rejected(code, why, spent):
                failed = ProposalFailed(
                    basis=basis,
                    code=code,
                    attempts=spent.attempts,
                    tokens_in=spent.tokens_in,
                    tokens_out=spent.tokens_out,
                    cost_usd=spent.cost_usd,
                    failed=asked.in_vain,
                    regime=by.digest_of(0),
                    candidate=by.is_candidate,
                )
                return Never(code, why, (told, run.event(failed)))
            case Accepted(output, model, spent):
                made = ProposalMade(
                    basis=basis,
                    case=stored.case.model_dump(mode="json"),
                    facts=run.keys.seal(facts_json(asked.ask.facts)),
                    output=run.keys.seal(output.model_dump_json()),
                    label=output.label,
                    confidence=output.confidence,
                    made_from=asked.by.desk.made_from(model, asked.ask),
                    tokens_in=spent.tokens_in,
                    tokens_out=spent.tokens_out,
                    cost_usd=spent.cost_usd,
                    latency_ms=spent.latency_ms,
                    attempts=spent.attempts,
                    failed=asked.in_vain,
                    regime=asked.regime,
                    candidate=by.is_candidate,
                )
                return Done((told, run.event(made)), read)

    async def _ask(self, run: "_Run", purse: Purse, case: Contract, facts: Facts, by: Regime) -> "_Asked":
        """Ask; where a candidate says nothing at all, now or ever, the live regime at once: no customer waits for it.

        Nor for a fault that only its turn met. Raises what ask_models raises.
        """
        in_vain: tuple[ModelFailed, ...] = ()
        if by.is_candidate:
            try:
                asked = await self._ask_by(by, run, purse, case, facts)
            except NobodyAnsweredError as error:
                in_vain = error.failed
            except Exception as error:
                if not isinstance(failure := tell(error), Again):
                    raise
                log.error("a candidate's turn failed", process=run.claim.process, error=failure.message)  # noqa: TRY400  # the message may quote people
                in_vain = (ModelFailed(model=by.models[0].name, code=failure.code),)
            else:
                if not isinstance(asked.answer, Rejected) or WHY.get(asked.answer.code) not in SAID_NOTHING:
                    return asked
                in_vain = asked.in_vain
            passed_over_total.labels(in_vain[-1].model, WHY.get(in_vain[-1].code, "unavailable")).inc()
        asked = await self._ask_by(self.live, run, purse, case, facts)
        return replace(asked, in_vain=(*in_vain, *asked.in_vain))

    async def _ask_by(self, by: Regime, run: "_Run", purse: Purse, case: Contract, facts: Facts) -> "_Asked":
        ask = await by.desk.ask(case, facts)
        falls_back_on = self.process.settings.model.falls_back_on
        may_call = partial(still_runs, self.database, self.clock, run.claimed_at, run.claim)
        answer, in_vain = await ask_models(by.models, falls_back_on, ask, purse, may_call=may_call)
        return _Asked(by, ask, answer, in_vain, by.digest_of(len(in_vain) if isinstance(answer, Accepted) else 0))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What came of a question, and by whom."""

    by: Regime
    ask: Ask
    answer: Accepted | Rejected
    in_vain: tuple[ModelFailed, ...]
    regime: str | None


async def still_runs(database: Database, clock: Callable[[], float], claimed_at: float, claim: Claim) -> None:
    """Raises PausedError where the process was paused since the claim: it is claimed anew when it goes on."""
    if clock() - claimed_at <= CLAIM_TO_CALL_SECONDS:
        return
    async with database.connection() as connection:
        generation = await switches.running_generation(connection, claim.process)
    if generation != claim.generation:
        raise PausedError("paused", "the process was paused since this was claimed", seconds=0.0)


@dataclass(frozen=True, slots=True)
class _Run:
    """One claim's work: what its events have in common."""

    claim: Claim
    claimed_at: float
    keys: CaseKeys
    now: datetime
    traceparent: str | None

    def event(self, data: FactsRead | ProposalMade | ProposalFailed) -> Event[Fact]:
        return Event(
            event_id=self._id(data.TYPE, data.basis),
            source=SOURCE,
            time=self.now,
            process=self.claim.process,
            case_id=self.claim.case_id,
            correlation_id=self.claim.correlation_id,
            causation_id=self.claim.cause,
            traceparent=self.traceparent,
            data=data,
        )

    def tell_what_calls_took(self, bases: Iterable[str]) -> list[UUID]:
        """The ids of those events; reading the case may have found another basis than the one it was claimed for."""
        return [self._id(kind.TYPE, basis) for kind in (ProposalMade, ProposalFailed) for basis in bases]

    def _id(self, kind: str, basis: str) -> UUID:
        return follow_up_id(self.claim.cause, kind, basis, self.claim.redrives)
