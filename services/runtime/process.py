"""A process as the services see it: its folder, loaded by name and checked at start."""

import hashlib
import importlib
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Annotated, Any, Literal, Protocol, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import processes
from contracts.base import Contract
from contracts.basis import Basis
from contracts.decision import Circumstances, Decision, FactQuery, Facts, Mode, Reason, Request
from contracts.events.cases import CaseChanged
from contracts.proposed import Proposed
from services.runtime.config import RuntimeSettings

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

CANDIDATE = "candidate"
"""The folder of what a candidate has of its own, in the process's folder."""
_WHOLE_PARTS = ("examples.jsonl", "knowledge")
SHIPPED = Path(__file__).resolve().parents[2] / "processes"


class ProcessInvalidError(Exception):
    """process.toml or a module of a process is wrong; the message names the field and the mend."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Door(_Table):
    """Where webhooks of a process come in."""

    connector: str
    scheme: Literal["zendesk", "github", "slack", "stripe", "standard-webhooks", "hmac", "none"]
    """How deliveries are signed. `none` must be written out."""
    secret_settings: tuple[str, ...] = ()
    """Names of the settings that hold the secrets; two while one is rotated."""
    tolerance_seconds: int = Field(default=3600, gt=0)
    body_bytes_max: int = Field(default=512 * 1024, gt=0, le=900_000)
    start_at: AwareDatetime
    """Cases from before are recorded and never answered."""
    max_age_hours: float = Field(default=24, gt=0)
    """What waits longer (outage, pause, redrive, backfill) is handed to a person, never answered unattended."""
    reads_per_second: float = Field(default=5, gt=0)
    """How many objects are read in a second, at most, to complete what webhooks left out."""
    compared: tuple[str, ...] = ()
    """Kinds of change that the provider's own list is searched for; without any, the intake is not compared with it."""


class ActionSettings(_Table):
    """How far an action may go, and what a wrong one costs."""

    mode: Mode = "watch"
    cost_of_error_usd: float = Field(ge=0)


class Source(_Table):
    """A system of record that facts are read from."""

    connector: Literal["sql", "http", "none"]
    url_setting: str
    queries: dict[str, str]
    timeout_seconds: float = Field(default=5, gt=0)


class Destination(_Table):
    """Where effects go."""

    connector: str
    unknown: Literal["read_back", "person", "resend"] = "read_back"
    """What to do when the outcome of a call is unknown."""
    seen_within_seconds: float = Field(default=30, ge=2)
    """How long what was acknowledged is looked for, where it can be; by then it was seen, or it is not there."""
    not_there: Literal["resend", "person"] = "resend"
    """What to do with what was acknowledged and is not there: send it once more, or hand the case over at once."""
    requests_per_second: float = Field(default=5, gt=0)
    concurrency: int = Field(default=4, gt=0)
    timeout_seconds: float = Field(default=10, gt=0)
    breaker_failures: int = Field(default=5, gt=0)
    breaker_open_seconds: float = Field(default=15, gt=0)


class Limits(_Table):
    """Ceilings of a process."""

    settle_seconds: float = Field(default=90, ge=0)
    """A first reply waits this long for what the customer adds."""
    effects_per_case_hour: int = Field(default=4, gt=0)
    attempts_max: int = Field(default=8, gt=0)
    approval_hours: float = Field(default=24, gt=0)
    """An approval that nobody answers expires to no."""


FallsBackOn = Literal["unavailable", "overloaded", "rejected", "too_large", "invalid_output", "refused", "budget"]
"""A model that cannot be reached, is slow or broken; that asks for patience; that turns every request of ours away (its
key, its name); whose request would not fit; whose output failed the schema twice; that will not answer this text; that
would pass a ceiling.
"""


class Model(_Table):
    """What proposes."""

    default: str = "nearest"
    """Asked first."""
    fallback: tuple[str, ...] = ()
    """Asked in turn, where the one before failed. After the last, a person."""
    falls_back_on: tuple[FallsBackOn, ...] = ("unavailable", "overloaded", "rejected", "too_large", "invalid_output")
    """Which failures move on to the next. After any other, and after the last: what becomes of the work without one."""
    tokens_out_max: int = Field(default=1200, gt=0)
    timeout_seconds: float = Field(default=60, gt=0)
    context_tokens: int = Field(default=32768, gt=0)
    """What a model on a machine of yours holds at once, a question and its answer; a byte counts as a token."""


class Evals(_Table):
    """When a model is good enough."""

    floors: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """By field of the proposal: this share of the evals has it right, or the model does not pass."""


Period = Literal["run", "day", "total"]
Unit = Literal["usd", "tokens"]
PERIODS: tuple[Period, ...] = get_args(Period)
"""One piece of work on one case; one UTC day; all days together."""


class Ceilings(_Table):
    """The most that the models of a process may take, in tokens (sent and answered) and in US dollars. None: no end."""

    run_tokens_max: int | None = Field(default=None, gt=0)
    run_usd_max: Decimal | None = Field(default=None, gt=0)
    day_tokens_max: int | None = Field(default=None, gt=0)
    day_usd_max: Decimal | None = Field(default=None, gt=0)
    total_tokens_max: int | None = Field(default=None, gt=0)
    total_usd_max: Decimal | None = Field(default=None, gt=0)

    def of(self, period: Period, unit: Unit) -> Decimal | None:
        """One of the six."""
        ceiling: int | Decimal | None = getattr(self, f"{period}_{unit}_max")
        return None if ceiling is None else Decimal(ceiling)

    @model_validator(mode="after")
    def _a_longer_period_may_take_no_less(self) -> Self:
        for unit in get_args(Unit):
            known = [(f"{period}_{unit}_max", ceiling) for period in PERIODS if (ceiling := self.of(period, unit))]
            for (shorter, less), (longer, more) in pairwise(known):
                if less > more:
                    raise ValueError(f"{shorter} is above {longer} and would never count: lower it, or raise {longer}")
        return self


class Retrieval(_Table):
    """How passages are searched: what each ranking counts where they are fused; 0 leaves one out."""

    words: float = Field(default=1, ge=0)
    """BM25."""
    meaning: float = Field(default=1, ge=0)
    """The cosine of embeddings."""
    labels: float = Field(default=1, ge=0)
    """What the nearest labelled examples vote for, then meaning."""
    k1: float = Field(default=1.2, gt=0)
    """BM25: how soon a repeated word adds nothing more."""
    b: float = Field(default=0.75, ge=0, le=1)
    """BM25: how much long passages pay for their length."""

    @model_validator(mode="after")
    def _finds_something(self) -> Self:
        if self.words == self.meaning == self.labels == 0:
            raise ValueError("all rankings are left out: let words, meaning or labels count more than 0")
        return self


class Returns(_Table):
    """When a candidate that proposes for a share of the cases is switched off by itself."""

    min_cases: int = Field(default=50, gt=0)
    """So many of its cases were decided or failed before anything is concluded."""
    worse_by: float = Field(default=0.05, ge=0, lt=1)
    """A share of held, refused or failed cases may be above that of the other cases by so much."""
    cost_factor: float = Field(default=2.0, ge=1)
    """A case of it may cost so many times what another costs."""


class Candidate(_Table):
    """What is another for the candidate, beside the files of candidate/."""

    model: str | None = None
    """Asked first; None: the live first choice."""
    retrieval: Retrieval | None = None
    """None: the live one."""
    returns: Returns = Returns()


class Step(_Table):
    """One step; a folder below steps/."""

    name: str


class Sla(_Table):
    """First reply: minutes from the case's creation to the first public reply."""

    first_reply_minutes: float = Field(gt=0)
    target_percent: float = Field(default=95, gt=0, le=100)
    automated_reply_counts: bool = True


class Tell(_Table):
    """How those on duty learn of what needs a person. NIGHTSHIFT_TELL_URLS says where to."""

    quiet_hours: str = Field(default="", pattern=r"^((?:[01]\d|2[0-3]):[0-5]\d-(?:[01]\d|2[0-3]):[0-5]\d)?$")
    """`22:00-07:00`: what comes then is told at their end. Empty: nothing waits."""
    timezone: str = "UTC"
    """Of the quiet hours."""
    breach_minutes: float = Field(default=15, ge=0)
    """A first reply that is late within these breaks through quiet hours."""
    repeat_minutes: float = Field(default=240, gt=0)
    """The same cause is told again after so long, acknowledged or not."""
    growth: float = Field(default=2, gt=1)
    """And before that when it has so many times the cases it was told with."""
    escalate_minutes: float = Field(default=30, gt=0)
    """Nobody acknowledged it for so long: those of NIGHTSHIFT_TELL_ESCALATION_URLS are told too."""
    held_minutes: float = Field(default=30, ge=0)
    """A case that waits for a person is told when nothing has moved in it for so long; 0: never."""

    @property
    def quiet(self) -> tuple[time, time] | None:
        """When the quiet hours begin and end; the same twice is none at all."""
        begin, _, end = self.quiet_hours.partition("-")
        return (time.fromisoformat(begin), time.fromisoformat(end)) if begin != end else None

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ValueError("no such time zone: use a name such as Europe/Berlin") from None
        return name


class Settings(_Table):
    """process.toml."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    doors: dict[str, Door]
    actions: dict[str, ActionSettings]
    sources: dict[str, Source] = Field(default_factory=dict)
    destinations: dict[str, Destination]
    limits: Limits = Limits()
    model: Model = Model()
    evals: Evals = Evals()
    budget: Ceilings = Ceilings()
    retrieval: Retrieval = Retrieval()
    candidate: Candidate = Candidate()
    steps: tuple[Step, ...]
    sla: Sla
    tell: Tell = Tell()
    policy: dict[str, object] = Field(default_factory=dict)
    """Checked by the process's own `rules.Policy`."""


class CaseModule(Protocol):
    """case.py: a case and the pure fold of changes into it, in any order to the same case."""

    Case: type[Contract]

    def fold(self, case: Contract | None, change: CaseChanged) -> Contract: ...
    def merge(self, one: Contract, other: Contract) -> Contract: ...
    def basis(self, case: Contract) -> Basis | None:
        """The newest outside change that could alter the answer; none while nobody has asked anything."""

    def awaits_answer(self, case: Contract) -> bool:
        """Whether the customer had the last word and the case can still be answered."""

    def asked_at(self, case: Contract) -> datetime:
        """When the basis happened outside."""

    def opened_at(self, case: Contract) -> datetime: ...
    def replied(self, case: Contract) -> bool:
        """Whether anybody, software or person, has answered publicly."""

    def is_open(self, case: Contract) -> bool: ...
    def party(self, case: Contract) -> str | None:
        """Whose case it is: the requester's id."""

    def stamp(self, case: Contract) -> str | None:
        """The object's `updated_at` as last seen, for conditional writes.

        None where something may have been said up to then that was not heard of: the object is read before it is
        written to.
        """

    def needs_reading(self, case: Contract) -> bool:
        """A hint, a tie, or a missing text: read the object before answering."""

    def reveal(self, case: Contract, unseal: Callable[[str], str]) -> Contract:
        """The same case with its texts in clear."""


class FactsModule(Protocol):
    """facts.py."""

    def queries(self, case: Contract) -> Sequence[FactQuery]:
        """What to look up for a revealed case."""


class RulesModule(Protocol):
    """rules.py: pure."""

    Policy: type[BaseModel]

    def decide(
        self,
        case: Contract,
        facts: Facts,
        proposal: Proposed,
        policy: BaseModel,
        now: datetime,
        circumstances: Circumstances,
    ) -> Decision:
        """What may be done about a revealed case."""

    def still_allowed(self, case: Contract, policy: BaseModel) -> Reason | None:
        """Asked again when an effect is claimed: why the case's state now forbids it, or none."""


class EffectsModule(Protocol):
    """effects.py: pure."""

    def requests(
        self,
        case: Contract,
        facts: Facts,
        proposal: Proposed,
        decision: Decision,
        modes: Mapping[str, Mode],
        policy: BaseModel,
    ) -> Sequence[Request]:
        """What to send for an Execute, each action as far as its mode lets it.

        For a Hold, what an approval would send.
        """

    def handover(
        self, case: Contract, proposal: Proposed | None, reasons: Sequence[Reason], policy: BaseModel
    ) -> Sequence[Request]:
        """The internal note, tag and group by which a person learns that the case is theirs."""


@dataclass(frozen=True)
class Process:
    """A loaded process."""

    folder: Path
    settings: Settings
    policy: BaseModel
    case: CaseModule
    facts: FactsModule
    rules: RulesModule
    effects: EffectsModule
    Proposal: type[Proposed]
    """The output of the last step."""
    own: Path | None = None
    """Of a candidate: the folder of what it has of its own."""

    @property
    def name(self) -> str:
        return self.settings.name

    @cached_property
    def candidate(self) -> "Process | None":
        """The same process with what its candidate has of its own; none where that is nothing."""
        own, told = self.folder / CANDIDATE, self.settings.candidate
        parts = [own / part for part in (*_WHOLE_PARTS, *map(_prompt_of, self.settings.steps))]
        if told.model is None and told.retrieval is None and not any(part.exists() for part in parts):
            return None
        settings = self.settings.model_copy(update={"retrieval": told.retrieval or self.settings.retrieval})
        return replace(self, settings=settings, own=own)

    def path(self, part: str) -> Path:
        """Where `knowledge`, `examples.jsonl` or a prompt lies: with a candidate, or else live."""
        return self.own / part if self.own is not None and (self.own / part).exists() else self.folder / part

    @property
    def records(self) -> Path:
        """The folder of the records of its evals."""
        return self.own or self.folder

    def first_choice(self, named: str | None) -> str:
        """The model that is asked first. `named` by a service's settings goes before process.toml's live one."""
        own = None if self.own is None else self.settings.candidate.model
        return own or named or self.settings.model.default

    @cached_property
    def policy_digest(self) -> str:
        """Digest of every setting in force."""
        return hashlib.sha256(self.settings.model_dump_json().encode()).hexdigest()

    def max_age(self, door: str) -> timedelta:
        """How old a basis of this door may be when it is answered. Through a door taken away nothing is answered."""
        known = self.settings.doors.get(door)
        return timedelta() if known is None else timedelta(hours=known.max_age_hours)

    def starts_at(self, door: str) -> datetime:
        """From when on cases of this door are answered. A door that was taken away since had opened long ago."""
        known = self.settings.doors.get(door)
        return _LONG_AGO if known is None else known.start_at

    def step_module(self, step: str, module: str) -> ModuleType:
        """`steps/<step>/<module>.py`."""
        return importlib.import_module(f"processes.{self.name}.steps.{step}.{module}")


def _prompt_of(step: Step) -> str:
    return f"steps/{step.name}/prompt.md"


def case_id_of(process: str, door: str, object_id: str) -> str:
    """The partition key of everything about one case: `support:zendesk:42`."""
    return f"{process}:{door}:{object_id}"


def load_all(settings: RuntimeSettings) -> dict[str, Process]:
    """The processes that a service works for, by name: mounted, or else shipped. Raises ProcessInvalidError."""
    overrides, own = overrides_of(settings.process_overrides), settings.processes_folder
    return {name: load(name, root_of(name, own), overrides.get(name, {})) for name in settings.process_names}


def overrides_of(setting: str) -> dict[str, Any]:
    """NIGHTSHIFT_PROCESS_OVERRIDES, by process. Raises ProcessInvalidError."""
    try:
        return tomllib.loads(setting)
    except tomllib.TOMLDecodeError as error:
        raise ProcessInvalidError(f"NIGHTSHIFT_PROCESS_OVERRIDES is no TOML: {error}") from error


def root_of(name: str, mounted: Path | None) -> Path:
    """Where a process lies: in the mounted folder, or else among the shipped ones."""
    return mounted if mounted is not None and (mounted / name).is_dir() else SHIPPED


def load(name: str, root: Path = SHIPPED, overrides: Mapping[str, Any] | None = None) -> Process:
    """Load `root/name`; `overrides` go before what its process.toml says.

    Raises ProcessInvalidError naming the field and the mend.
    """
    folder = root / name
    file = folder / "process.toml"
    if not file.is_file():
        there = ", ".join(sorted(p.parent.name for p in root.glob("*/process.toml"))) or "none"
        raise ProcessInvalidError(f"there is no process {name!r} in {root} (there: {there})")
    if root != SHIPPED and str(root.parent) not in sys.path:
        _mount(root)
    try:
        settings = Settings.model_validate(_over(tomllib.loads(file.read_text(encoding="utf-8")), overrides or {}))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ProcessInvalidError(f"{file}: {error}") from error
    modules = {
        part: importlib.import_module(f"processes.{name}.{part}") for part in ("case", "facts", "rules", "effects")
    }
    try:
        policy = modules["rules"].Policy.model_validate(settings.policy)
    except ValidationError as error:
        raise ProcessInvalidError(f"{file}: [policy] {error}") from error
    _check_candidate(folder, settings)
    _check_code(folder, modules["rules"])
    last = settings.steps[-1].name
    output = importlib.import_module(f"processes.{name}.steps.{last}.output")
    return Process(
        folder=folder,
        settings=settings,
        policy=policy,
        case=modules["case"],
        facts=modules["facts"],
        rules=modules["rules"],
        effects=modules["effects"],
        Proposal=output.Proposal,
    )


def _check_code(folder: Path, rules: ModuleType) -> None:
    """Of two processes of one name the code of one runs: what nobody would run is a mistake."""
    runs = Path(str(rules.__file__)).parent
    if runs.samefile(folder):
        return
    for file in sorted(folder.rglob("*.py")):
        other = runs / file.relative_to(folder)
        if not other.is_file() or other.read_bytes() != file.read_bytes():
            raise ProcessInvalidError(
                f"{file} would not run, for {runs} has the same name: give a process with code of its own its own name"
            )


def _check_candidate(folder: Path, settings: Settings) -> None:
    """What nobody would read is a mistake: a file in the wrong place would be taken for a change."""
    known = ["examples.jsonl", "knowledge/*.md", "evals.*.json", *map(_prompt_of, settings.steps)]
    for file in sorted((folder / CANDIDATE).rglob("*")):
        part = PurePosixPath("/", file.relative_to(folder / CANDIDATE))
        if file.is_file() and not any(part.match(f"/{one}") for one in known):
            raise ProcessInvalidError(f"{file} is no part of a candidate: those are {', '.join(known)}")


def _over(written: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`written` with each leaf of `overrides` in its place."""
    merged = dict(written)
    for key, value in overrides.items():
        merged[key] = _over(written.get(key, {}), value) if isinstance(value, Mapping) else value
    return merged


def _mount(root: Path) -> None:
    """Let `processes.<name>` be found in a folder beside the shipped ones."""
    if str(root) not in processes.__path__:
        processes.__path__.append(str(root))
