"""One text through a process, from facts to decision, by the services' own functions; nothing is sent or stored."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from connectors import http_transport
from connectors.protocol import LooksUp, PlainChange
from contracts.base import Json
from contracts.basis import version_of
from contracts.decision import Circumstances, Execute, Facts, Hold, verdict_of
from contracts.events.proposals import ModelFailed
from contracts.failures import LaterError, OutcomeUnknownError, PermanentError
from contracts.proposed import Proposed
from nightshift import MendableError
from services.actor.handlers.judge import Judgment, Question, judge
from services.classifier.config import Settings
from services.classifier.domain.prices import PricesInvalidError
from services.classifier.handlers.ask_model import Accepted, Rejected, Spent, ask_model
from services.classifier.handlers.ask_models import ask_models
from services.classifier.handlers.read_facts import facts_json, read_facts
from services.classifier.models import desk_without_database, names_of, provider_of
from services.classifier.outbound.desk import KnowledgeDesk
from services.classifier.ports import Ask, Desk, Provider
from services.runtime import outside
from services.runtime.cases import StoredCase
from services.runtime.changes import seal_change
from services.runtime.config import MissingSettingError, named_setting
from services.runtime.process import Process, ProcessInvalidError, Source, case_id_of
from services.runtime.vault import CaseKeys

OBJECT = "try"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of it."""

    process: Process
    looked_up: Facts
    ask: Ask
    answer: Accepted | Rejected
    failed: Sequence[ModelFailed]
    """The models that came to nothing, in the order in which they were asked."""
    judgment: Judgment | None
    """None where no model's output was accepted: a dead letter, and a person is told."""

    @property
    def spent(self) -> Spent:
        return self.answer.spent

    @property
    def output(self) -> Proposed | None:
        """The proposal; none where no model's output was accepted, `why` says how."""
        return self.answer.output if isinstance(self.answer, Accepted) else None

    @property
    def why(self) -> str:
        return self.answer.why if isinstance(self.answer, Rejected) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Who writes what."""

    text: str
    subject: str = ""
    requester: str = "1"
    channel: str = "email"


async def attempt(process: Process, customer: Customer, model: str | None) -> Tried:
    """The classifier's work and then the actor's, by their own functions, on a case that is nowhere.

    Raises MendableError for a model that is not there, or does not answer.
    """
    models = models_named(process, names_in_settings(process) if model is None else [model])
    async with http_transport.client() as client:
        return await attempt_with(
            process, customer, models, desk_for(process, models[0].name), _sources(process, client)
        )


async def attempt_with(
    process: Process, customer: Customer, models: Sequence[Provider], desk: Desk, sources: Mapping[str, LooksUp]
) -> Tried:
    """The same with models that are there, asked in turn, and with facts from elsewhere. Raises MendableError."""
    now = datetime.now(UTC)
    door = next(iter(process.settings.doors))
    case_id = case_id_of(process.name, door, OBJECT)
    keys = CaseKeys(case_id, {1: secrets.token_bytes(32)})
    change = seal_change(_opening(customer, now), door=door, keys=keys, received_at=now)
    sealed = process.case.fold(None, change)
    case = process.case.reveal(sealed, keys.unseal)
    facts = await read_facts(process.facts.queries(case), sources)
    ask = await desk.ask(case, facts)
    failed: tuple[ModelFailed, ...] = ()
    try:
        if len(models) == 1:
            answer = await ask_model(models[0], ask)
        else:
            answer, failed = await ask_models(models, process.settings.model.falls_back_on, ask)
    except (PermanentError, LaterError, OutcomeUnknownError) as error:
        asked = " and ".join(model.name for model in models)
        raise MendableError(f"{asked} does not answer: {error}") from error
    if isinstance(answer, Rejected):
        return Tried(process=process, looked_up=facts, ask=ask, answer=answer, failed=failed, judgment=None)
    question = Question(
        stored=StoredCase(case_id, process.name, door, OBJECT, sealed),
        basis=process.case.basis(sealed) or "",
        facts=keys.seal(facts_json(ask.facts)),
        output=keys.seal(answer.output.model_dump_json()),
        keys=keys,
        circumstances=Circumstances(),
        modes=dict.fromkeys(process.settings.actions, "act"),
        already_decided=False,
        held=False,
        now=now,
    )
    judgment = judge(process, question)
    return Tried(process=process, looked_up=facts, ask=ask, answer=answer, failed=failed, judgment=judgment)


def _opening(customer: Customer, now: datetime) -> PlainChange:
    """The change by which such a case would open."""
    moment = now.replace(microsecond=0)
    stamp = moment.isoformat().replace("+00:00", "Z")
    return PlainChange(
        object_id=OBJECT,
        kind="created",
        identity=OBJECT,
        version=version_of(moment),
        author="customer",
        occurred_at=moment,
        opens=True,
        fields={
            "status": "new",
            "channel": customer.channel,
            "requester_id": customer.requester,
            "created_at": stamp,
            "updated_at": stamp,
            "is_public": True,
            "comment_id": "description",
            "comment_public": True,
            "author_id": customer.requester,
            "author_is_staff": False,
            "comment_created_at": stamp,
        },
        texts={"subject": customer.subject, "body": customer.text},
    )


class _NoAddress:
    """A source whose address no setting names: nothing of it can be read."""

    def __init__(self, setting: str) -> None:
        self._setting = setting

    async def look_up(self, query: str, params: Json) -> Sequence[Json]:
        del query, params
        raise PermanentError(f"{self._setting} is not set", "no address")


def _sources(process: Process, client: httpx.AsyncClient) -> Mapping[str, LooksUp]:
    def of(source: Source) -> LooksUp:
        known = source.connector == "none" or named_setting(source.url_setting) is not None
        return outside.source(source, client) if known else _NoAddress(source.url_setting)

    return {name: of(source) for name, source in process.settings.sources.items()}


def models_named(process: Process, names: Sequence[str]) -> list[Provider]:
    """The models of these names. Raises MendableError."""
    try:
        return [provider_of(name, process, _settings()) for name in names]
    except (ProcessInvalidError, MissingSettingError, PricesInvalidError) as error:
        raise MendableError(str(error)) from error


def first_model(process: Process) -> Provider:
    """What the service would ask first. Raises MendableError."""
    return models_named(process, names_in_settings(process)[:1])[0]


def live_choice(process: Process) -> str:
    """The name of the model that is asked first live, also where a process is its candidate."""
    return _settings().model or process.settings.model.default


def names_in_settings(process: Process) -> list[str]:
    """The models that the service would ask, in their order."""
    return names_of(process, _settings())


async def regimes_of(process: Process, names: Sequence[str]) -> dict[str, str]:
    """By model: the regime by which the service would ask it now. Raises MendableError."""
    desk = KnowledgeDesk(process)
    try:
        return {model.name: desk.regime(model.name, await model.weights()) for model in models_named(process, names)}
    except (LaterError, PermanentError) as error:
        raise MendableError(f"a model's machine does not answer: {error}") from error


def desk_for(process: Process, model: str) -> KnowledgeDesk:
    """What the service would show this model as its first choice, or as it stands in the settings."""
    return desk_without_database(process, model, _settings())


def _settings() -> Settings:
    return Settings(database_url="", kafka_bootstrap="")


def told(tried: Tried) -> Json:
    """The same for a machine."""
    spent, output = tried.spent, tried.output
    decision = None if tried.judgment is None else tried.judgment.decision
    return {
        "facts": {name: fact.model_dump(mode="json") for name, fact in tried.looked_up.items()},
        "passages": [passage.id for passage in tried.ask.passages],
        "failed": [one.model_dump() for one in tried.failed],
        "proposal": None if output is None else output.model_dump(mode="json"),
        "decision": "dead letter" if decision is None else verdict_of(decision),
        "reasons": [] if decision is None else [reason.model_dump() for reason in decision.reasons],
        "actions": [a.model_dump() for a in decision.actions] if isinstance(decision, Execute | Hold) else [],
        "requests": [] if tried.judgment is None else [r.model_dump(mode="json") for r in tried.judgment.requests],
        "cost_usd": str(spent.cost_usd),
        "tokens_in": spent.tokens_in,
        "tokens_out": spent.tokens_out,
        "latency_ms": spent.latency_ms,
    }
