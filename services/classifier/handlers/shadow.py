"""A candidate in shadow is asked what the live regime was asked, and its answer is said. Nothing else comes of it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from contracts.base import Fact, Json
from contracts.decision import FactAnswer
from contracts.envelope import Event, follow_up_id
from contracts.events.proposals import ProposalMade, ProposalShadowed
from services.classifier.domain import knowledge
from services.classifier.handlers.ask_model import Accepted, PausedError, ask_model
from services.classifier.handlers.complete import loaded
from services.classifier.handlers.propose import SOURCE, still_runs
from services.classifier.handlers.read_facts import facts_json
from services.classifier.handlers.regimes import Regime
from services.classifier.ports import Ask, Budget, Cost, Desk
from services.runtime import candidates, tasks, telemetry
from services.runtime.failures import Again, Never, tell
from services.runtime.postgres import CONTENDED, UNAVAILABLE, Connection, Database
from services.runtime.process import Process
from services.runtime.tasks import Claim, Done, Outcome, Wanted
from services.runtime.vault import CaseKeys

SHADOW: Final = "shadow"
ATTEMPTS_MAX = 3
"""A candidate that does not answer is not asked more often: nobody waits for it."""

_FACTS = TypeAdapter(dict[str, FactAnswer])

_KEEP = """
INSERT INTO shadows AS s (case_id, basis, body, facts)
SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::text[]) k(case_id, basis, body, facts) ORDER BY case_id
ON CONFLICT (case_id) DO UPDATE SET basis = excluded.basis, body = excluded.body, facts = excluded.facts
WHERE excluded.basis > s.basis
"""
_QUESTIONS = """
SELECT s.case_id, s.body, s.facts FROM shadows s JOIN unnest($1::text[], $2::text[]) c(case_id, basis)
USING (case_id, basis)
"""
_FORGET = """
DELETE FROM shadows s USING unnest($1::text[], $2::text[]) d(case_id, basis)
WHERE s.case_id = d.case_id AND s.basis = d.basis
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the live proposal was made from."""

    case: Json
    facts: str
    """Sealed."""


async def ask_again(process: Process, desk: Desk, asked: Asked, keys: CaseKeys) -> Ask:
    """The question of a recorded proposal, with the same case and facts, and the passages that this desk finds."""
    case = process.case.reveal(process.case.Case.model_validate(asked.case), keys.unseal)
    facts = _FACTS.validate_json(keys.unseal(asked.facts))
    return await desk.ask(case, {name: fact for name, fact in facts.items() if name != knowledge.FACT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowing:
    """The work of kind `shadow` for one process. However it ends, it is no dead letter."""

    database: Database
    process: Process
    regime: Regime
    """The candidate's. Its first choice alone is asked: what a fallback would say is no news of it."""
    asks_at_once: asyncio.Semaphore
    budget: Budget
    clock: Callable[[], float] = time.monotonic
    """Seconds that only rise."""

    async def want(self, connection: Connection, said: Sequence[Event[Fact]]) -> None:
        """Open work for the live proposals among `said` whose cases are of the share, in their transaction."""
        order = await candidates.order_of(connection, self.process.name)
        if order is None or order.regime != self.regime.digest_of(0):
            return
        made = [
            (event, event.data)
            for event in said
            if isinstance(event.data, ProposalMade) and order.takes(SHADOW, event.case_id)
        ]
        await connection.execute(
            _KEEP,
            [event.case_id for event, _ in made],
            [data.basis for _, data in made],
            [data.case for _, data in made],
            [data.facts for _, data in made],
        )
        await tasks.want(
            connection,
            [
                Wanted(
                    case_id=event.case_id,
                    process=event.process,
                    kind=SHADOW,
                    basis=data.basis,
                    cause=event.event_id,
                    correlation_id=event.correlation_id,
                    traceparent=event.traceparent,
                )
                for event, data in made
            ],
        )

    async def perform(self, claims: Sequence[Claim]) -> Sequence[Outcome | Exception]:
        """Ask for each claim, unless something newer came, or the order is another one by now."""
        claimed_at = self.clock()
        held = await loaded(self.database, self.process, claims)
        async with self.database.connection() as connection:
            order = await candidates.order_of(connection, self.process.name)
            rows = await connection.fetch(_QUESTIONS, [c.case_id for c in claims], [c.basis for c in claims])
        asked = {row["case_id"]: Asked(row["body"], row["facts"]) for row in rows}
        wanted = {
            claim.case_id: _Run(claim, claimed_at, asked[claim.case_id], keys, now)
            for claim, stored, keys, now in held
            if claim.case_id in asked
            and self.process.case.basis(stored.case) == claim.basis
            and order is not None
            and order.regime == self.regime.digest_of(0)
            and order.takes(SHADOW, claim.case_id)
        }
        async with asyncio.TaskGroup() as group:
            asking = {case_id: group.create_task(self._one(run)) for case_id, run in wanted.items()}
        return [asking[claim.case_id].result() if claim.case_id in asking else Done() for claim in claims]

    async def store(self, connection: Connection, finished: Sequence[tuple[Claim, Done]]) -> None:
        """Forget what was asked."""
        claims = [claim for claim, _ in finished]
        await connection.execute(_FORGET, [claim.case_id for claim in claims], [claim.basis for claim in claims])

    async def _one(self, run: "_Run") -> Outcome | Exception:
        purse = self.budget.spare_purse(run.claim, [self._id(run.claim)])
        try:
            async with self.asks_at_once:
                with telemetry.span("shadow", run.claim.traceparent):
                    may_call = partial(still_runs, self.database, self.clock, run.claimed_at, run.claim)
                    ask = await ask_again(self.process, self.regime.desk, run.asked, run.keys)
                    answer = await ask_model(self.regime.models[0], ask, purse, may_call=may_call)
        except (PausedError, *UNAVAILABLE, *CONTENDED) as error:
            return error
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the candidate's failure, and is said
            failure = tell(error)
            if not isinstance(failure, Never) and run.claim.attempts < ATTEMPTS_MAX:
                return Again(failure.code, "the candidate may answer later")
            taken = purse.taken or Cost()
            return Done(
                (
                    self._said(
                        run,
                        code=failure.code,
                        attempts=run.claim.attempts,
                        tokens_in=taken.tokens_in,
                        tokens_out=taken.tokens_out,
                        cost_usd=taken.cost_usd,
                    ),
                )
            )
        spent = answer.spent
        took = {
            "attempts": spent.attempts,
            "tokens_in": spent.tokens_in,
            "tokens_out": spent.tokens_out,
            "cost_usd": spent.cost_usd,
            "latency_ms": spent.latency_ms,
        }
        if not isinstance(answer, Accepted):
            return Done((self._said(run, code=answer.code, **took),))
        said = self._said(
            run,
            facts=run.keys.seal(facts_json(ask.facts)),
            output=run.keys.seal(answer.output.model_dump_json()),
            label=answer.output.label,
            confidence=answer.output.confidence,
            made_from=self.regime.desk.made_from(answer.model, ask),
            **took,
        )
        return Done((said,))

    def _id(self, claim: Claim) -> UUID:
        return follow_up_id(claim.cause, ProposalShadowed.TYPE, self.regime.digest_of(0))

    def _said(self, run: "_Run", **fields: object) -> Event[Fact]:
        claim = run.claim
        data = ProposalShadowed.model_validate(
            {"basis": claim.basis, "proposal_id": claim.cause, "regime": self.regime.digest_of(0), **fields}
        )
        return Event(
            event_id=self._id(claim),
            source=SOURCE,
            time=run.now,
            process=claim.process,
            case_id=claim.case_id,
            correlation_id=claim.correlation_id,
            causation_id=claim.cause,
            traceparent=claim.traceparent,
            data=data,
        )


@dataclass(frozen=True, slots=True)
class _Run:
    """One claim's work."""

    claim: Claim
    claimed_at: float
    asked: Asked
    keys: CaseKeys
    now: datetime
