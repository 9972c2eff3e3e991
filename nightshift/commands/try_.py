"""`nightshift try PROCESS TEXT`: what would be read, proposed and decided. Sends nothing, needs nothing that runs."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.text import Text

from connectors.protocol import LooksUp, PlainChange
from contracts.base import Json as JsonObject
from contracts.basis import version_of
from contracts.decision import Circumstances, Execute, FactAnswer, Facts, Hold, verdict_of
from contracts.failures import PermanentError
from nightshift import MendableError
from nightshift.reach import Json, as_json, process_named, run
from services.actor.handlers.judge import Judgment, Question, judge
from services.classifier.config import Settings
from services.classifier.handlers.ask_model import Accepted, Rejected, ask_model
from services.classifier.handlers.read_facts import facts_json, read_facts
from services.classifier.outbound.desk import KnowledgeDesk
from services.classifier.outbound.providers import UnknownProviderError, provider_of
from services.classifier.ports import Ask
from services.runtime import outside
from services.runtime.cases import StoredCase
from services.runtime.changes import seal_change
from services.runtime.config import MissingSettingError, named_setting
from services.runtime.process import Process, Source, case_id_of
from services.runtime.vault import CaseKeys

app = typer.Typer()

OBJECT = "try"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of it."""

    process: Process
    facts: Facts
    ask: Ask
    answer: Accepted | Rejected
    judgment: Judgment | None
    """None where the model's output failed the schema: a dead letter, and a person is told."""


@app.command("try")
def try_(
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="A folder below processes/, such as `support`.")],
    text: Annotated[str, typer.Argument(help="What the customer writes.")],
    *,
    subject: Annotated[str, typer.Option(help="The subject.")] = "",
    requester: Annotated[str, typer.Option(help="The customer's id, for the facts.")] = "1",
    channel: Annotated[str, typer.Option(help="How it came in.")] = "email",
    model: Annotated[str | None, typer.Option(help="`nearest` or `claude:<model>`; else the settings say.")] = None,
    json: Json = False,
) -> None:
    """Show facts, proposal, decision with its reasons, and cost for a text. Nothing is sent and nothing is stored."""
    tried = run(_try(process_named(process), text, subject, requester, channel, model))
    if json:
        as_json(_answer(tried))
    else:
        _show(Console(soft_wrap=True, highlight=False), tried)


async def _try(process: Process, text: str, subject: str, requester: str, channel: str, model: str | None) -> Tried:
    """The classifier's work and then the actor's, by their own functions, on a case that is nowhere."""
    now = datetime.now(UTC)
    door = next(iter(process.settings.doors))
    case_id = case_id_of(process.name, door, OBJECT)
    keys = CaseKeys(case_id, {1: secrets.token_bytes(32)})
    change = seal_change(_opening(text, subject, requester, channel, now), door=door, keys=keys, received_at=now)
    sealed = process.case.fold(None, change)
    case = process.case.reveal(sealed, keys.unseal)
    async with outside.http_client() as client:
        facts = await read_facts(process.facts.queries(case), _sources(process, client))
    ask = KnowledgeDesk(process).ask(case, facts)
    answer = await _ask(process, ask, model)
    if isinstance(answer, Rejected):
        return Tried(process=process, facts=facts, ask=ask, answer=answer, judgment=None)
    question = Question(
        stored=StoredCase(case_id, process.name, door, OBJECT, sealed),
        basis=process.case.basis(sealed) or "",
        facts=keys.seal(facts_json(facts)),
        output=keys.seal(answer.output.model_dump_json()),
        keys=keys,
        circumstances=Circumstances(),
        modes=dict.fromkeys(process.settings.actions, "act"),
        already_decided=False,
        held=False,
        now=now,
    )
    return Tried(process=process, facts=facts, ask=ask, answer=answer, judgment=judge(process, question))


def _opening(text: str, subject: str, requester: str, channel: str, now: datetime) -> PlainChange:
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
            "channel": channel,
            "requester_id": requester,
            "created_at": stamp,
            "updated_at": stamp,
            "is_public": True,
            "comment_id": "description",
            "comment_public": True,
            "author_id": requester,
            "author_is_staff": False,
            "comment_created_at": stamp,
        },
        texts={"subject": subject, "body": text},
    )


class _NoAddress:
    """A source whose address no setting names: nothing of it can be read."""

    def __init__(self, setting: str) -> None:
        self._setting = setting

    async def look_up(self, query: str, params: JsonObject) -> Sequence[JsonObject]:
        del query, params
        raise PermanentError(f"{self._setting} is not set", "no address")


def _sources(process: Process, client: httpx.AsyncClient) -> Mapping[str, LooksUp]:
    def of(source: Source) -> LooksUp:
        known = source.connector == "none" or named_setting(source.url_setting) is not None
        return outside.source(source, client) if known else _NoAddress(source.url_setting)

    return {name: of(source) for name, source in process.settings.sources.items()}


async def _ask(process: Process, ask: Ask, model: str | None) -> Accepted | Rejected:
    settings = Settings(database_url="", kafka_bootstrap="")
    try:
        name = model or settings.model or process.settings.model.default
        return await ask_model(provider_of(name, process, settings), ask)
    except (UnknownProviderError, MissingSettingError) as error:
        raise MendableError(str(error)) from error


def _answer(tried: Tried) -> JsonObject:
    spent, decision = tried.answer.spent, None if tried.judgment is None else tried.judgment.decision
    accepted = tried.answer if isinstance(tried.answer, Accepted) else None
    return {
        "facts": {name: fact.model_dump(mode="json") for name, fact in tried.facts.items()},
        "passages": [passage.id for passage in tried.ask.passages],
        "model": None if accepted is None else accepted.model,
        "proposal": None if accepted is None else accepted.output.model_dump(mode="json"),
        "decision": "dead letter" if decision is None else verdict_of(decision),
        "reasons": [] if decision is None else [reason.model_dump() for reason in decision.reasons],
        "actions": [a.model_dump() for a in decision.actions] if isinstance(decision, Execute | Hold) else [],
        "requests": [] if tried.judgment is None else [r.model_dump(mode="json") for r in tried.judgment.requests],
        "cost_usd": str(spent.cost_usd),
        "tokens_in": spent.tokens_in,
        "tokens_out": spent.tokens_out,
        "latency_ms": spent.latency_ms,
    }


def _show(console: Console, tried: Tried) -> None:
    console.print(Text("facts", "bold"))
    for name, fact in tried.facts.items():
        console.print(Text(f"  {name}: {_fact(fact)}"))
    if tried.ask.passages:
        console.print(Text(f"  knowledge: {', '.join(passage.id for passage in tried.ask.passages)}"))
    console.print(Text("proposal", "bold"))
    if isinstance(tried.answer, Rejected):
        console.print(Text(f"  none: the model's output failed the schema twice ({tried.answer.why})", "red"))
    else:
        for name, value in tried.answer.output.model_dump(mode="json", exclude_none=True).items():
            for number, line in enumerate(str(value).splitlines() or [""]):
                console.print(Text(f"  {name if not number else ' ' * len(name)}  {line}"))
    console.print(Text("decision", "bold"))
    _show_decision(console, tried)
    spent = tried.answer.spent
    console.print(Text("cost", "bold"))
    tokens = f"{spent.tokens_in:,} tokens in, {spent.tokens_out:,} out"
    console.print(f"  ${spent.cost_usd}, {tokens}, {spent.latency_ms} ms, {spent.attempts} call(s); nothing was sent")


def _show_decision(console: Console, tried: Tried) -> None:
    if tried.judgment is None:
        console.print("  dead letter: a person is told")
        return
    decision = tried.judgment.decision
    console.print(f"  {verdict_of(decision)}")
    for reason in decision.reasons:
        console.print(Text(f"  - {reason.text} ({reason.code})"))
    if isinstance(decision, Execute | Hold):
        for action in decision.actions:
            mode = tried.process.settings.actions[action.name].mode
            told = ", ".join(f"{name} {value}" for name, value in action.params.items())
            console.print(Text(f"  {action.name} {told}".rstrip() + f" (mode in process.toml: {mode})"))


def _fact(fact: FactAnswer) -> str:
    if not fact.ok:
        return f"could not be read ({fact.error})"
    return "; ".join(", ".join(f"{key} {value}" for key, value in row.items()) for row in fact.rows) or "nothing known"
