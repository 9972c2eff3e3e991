"""What the projections say: the rows as they are stored and as people and programs read them."""

from decimal import Decimal
from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime

from contracts.base import Contract
from contracts.decision import Difference, Reason
from contracts.events.decisions import Judged
from contracts.events.proposals import BudgetExhausted

CaseState = Literal[
    "seen",
    "working",
    "acting",
    "approval",
    "held",
    "refused",
    "ignored",
    "answered",
    "done",
    "skipped",
    "dead_letter",
    "gone",
]
Word = Literal["executed", "held", "refused", "ignored"]
EffectState = Literal["planned", "attempted", "retry", "acknowledged", "observed", "superseded", "dead", "person"]
SlaState = Literal["met", "breached", "waiting", "not_applicable"]
By = Literal["automated", "staff"]
IntakeState = Literal["complete", "missing", "backfilled", "unknown"]
LetterState = Literal["open", "redrive_requested", "skip_requested", "redriven", "skipped", "resolved"]
CauseKind = Literal["dead_letter", "held", "approval", "budget", "regime", "candidate"]


class EffectRow(Contract):
    """One effect: how far it got."""

    effect_key: str
    kind: str | None = None
    destination: str | None = None
    state: EffectState
    attempts: int = 0
    public: bool = False
    reference: str | None = None
    code: str | None = None
    at: AwareDatetime | None = None


class IntakeRow(Contract):
    """One hour of intake through one door, beside the provider's own list.

    `missing` counts what no webhook told; once it was taken in late, the state is `backfilled`.
    """

    case_id: str
    """Where its story is told, as a case's is."""
    process: str
    door: str
    hour: AwareDatetime
    since: AwareDatetime
    state: IntakeState
    listed: int
    missing: int
    code: str | None
    settled: bool
    compared_at: AwareDatetime


class BudgetRow(Contract):
    """A ceiling on what models may cost that was reached."""

    process: str
    said_at: AwareDatetime
    told: BudgetExhausted


class ErrorRow(Contract):
    """Something went wrong. `code` is of a closed set; `message` never holds people's text."""

    event_id: UUID
    case_id: str
    process: str
    at: AwareDatetime
    where: str
    code: str
    message: str = ""
    outcome: str


class SlaRow(Contract):
    """First reply of one case. `waiting` past `due_at` is overdue: that depends on the clock, so a reader says it."""

    state: SlaState
    why: str
    target_minutes: float | None = None
    opened_at: AwareDatetime | None = None
    due_at: AwareDatetime | None = None
    replied_at: AwareDatetime | None = None
    replied_by: By | None = None
    minutes: float | None = None
    evidence: tuple[UUID, ...] = ()
    """The events that prove it: the opening, and the reply where there is one."""


class RunRow(Contract):
    """One pass of the case through the pipeline.

    `state` is open until something was decided or failed, or nobody waits for it any more (ignored).
    """

    correlation_id: UUID
    basis: str | None
    state: Literal["open", "failed"] | Word
    started_at: AwareDatetime
    finished_at: AwareDatetime | None
    latency_ms: int | None
    failed: bool
    cost_usd: Decimal
    tokens_in: int
    tokens_out: int


class DeadLetterRow(Contract):
    """Work that needs a person."""

    dead_letter_id: UUID
    case_id: str
    process: str
    service: str
    work: str
    basis: str | None
    code: str
    message: str
    attempts: int
    """Of the work, failed redrives of an event among them."""
    cause: str = ""
    """The id of what failed alike: process, service, work and code. Empty in a row that an older build made."""
    state: LetterState
    raised_at: AwareDatetime
    ended_by: str | None
    skip_reason: str | None = None
    waits_behind: int
    """Changes of the case, not ours, that came since."""
    due_at: AwareDatetime | None
    """When the case's first reply is late; none when it was given or none is owed, for nothing else has a clock."""
    minutes_to_breach: float | None = None
    """At the time of reading; negative when it is late."""


class ApprovalRow(Contract):
    """A held decision that a person answers. An answer must name `digest`."""

    approval_id: UUID
    case_id: str
    process: str
    basis: str
    digest: str
    state: Literal["waiting", "answered", "approved", "denied", "expired", "superseded"]
    reasons: tuple[Reason, ...]
    requested_at: AwareDatetime
    expires_at: AwareDatetime
    ended_by: str | None
    waits_behind: int
    due_at: AwareDatetime | None
    minutes_to_breach: float | None = None


class CaseRow(Contract):
    """One case, as its events say."""

    case_id: str
    process: str
    door: str | None
    object_id: str | None
    state: CaseState
    waiting: str | None
    """What it waits for, in a sentence."""
    label: str | None
    opened_at: AwareDatetime | None
    changed_at: AwareDatetime
    verdict: Word | None
    reasons: tuple[Reason, ...]
    effects: tuple[EffectRow, ...]
    first_reply_at: AwareDatetime | None
    first_reply_by: By | None
    reply_seconds: float | None
    """From the opening to the first public reply."""
    runs: int
    failures: int
    cost_usd: Decimal
    tokens_in: int
    tokens_out: int
    dead_letters: int
    """Open ones."""
    last_error: ErrorRow | None
    sla: SlaRow
    events: int


class CauseRow(Contract):
    """One cause of which a person is told: how many cases it holds up, and who was told of it."""

    cause: str
    process: str
    kind: CauseKind
    service: str
    work: str
    code: str
    count: int
    ordered: int = 0
    """Of these, dead letters of which a redrive or a skip is asked for, and not carried out yet."""
    detail: str = ""
    """More about it, where the words before do not say all."""
    since: AwareDatetime
    due_at: AwareDatetime | None
    """When the next first reply among them is late; none where none is ahead."""
    told_at: AwareDatetime | None
    """Last; none while nobody was told."""
    told_count: int
    asked_since: AwareDatetime | None
    """From when on nobody has acknowledged it."""
    escalated_at: AwareDatetime | None
    acknowledged_at: AwareDatetime | None
    acknowledged_by: str | None
    failed: str | None
    """Why the last attempt to tell somebody came to nothing."""
    tries: int
    minutes_to_breach: float | None = None
    """At the time of reading."""


class Latency(Contract):
    """Of runs: from the webhook's receipt to the last effect's acknowledgement, or to the decision without effects.

    Once that effect was seen outside, where it can be looked for: an acknowledgement alone counts for nothing.

    Milliseconds; none when nothing ran. p50 and p99 are interpolated in buckets 10 % wide.
    """

    count: int
    average_ms: float | None
    p50_ms: float | None
    p99_ms: float | None


class SlaStatus(Contract):
    """First replies of all cases. `percent` is of those decided: met, breached, overdue."""

    met: int
    breached: int
    overdue: int
    waiting: int
    due_soon: int
    """Of those that wait: due within a quarter of an hour."""
    not_applicable: int
    percent: float | None


class Switch(Contract):
    """The kill switch of one process."""

    process: str
    paused: bool
    reason: str
    generation: int
    changed_by: str
    changed_at: AwareDatetime


class RegimeRow(Contract):
    """What a process's model is asked by, without a passed eval on record."""

    process: str
    model: str
    regime: str
    since: AwareDatetime
    admitted_at: AwareDatetime | None
    """None: the process is not served, and its work waits."""
    admitted_by: str | None
    reason: str | None


class CandidateRow(Contract):
    """How far a process's candidate goes."""

    process: str
    mode: Literal["off", "shadow", "canary"]
    percent: int
    model: str
    regime: str
    generation: int
    reason: str
    changed_by: str
    changed_at: AwareDatetime


class ShadowRow(Contract):
    """What a candidate in shadow made of one basis of a case, beside the live decision."""

    case_id: str
    process: str
    basis: str
    at: AwareDatetime
    regime: str
    state: Difference | Literal["failed", "not compared"]
    """not compared: the live decision is not there yet, or is none."""
    code: str | None
    """Why it failed."""
    live: Judged | None
    shadow: Judged | None
    cost_usd: Decimal
    latency_ms: int


class ShadowCount(Contract):
    """How many cases of a candidate's shadow came out alike: by what differs and both verdicts, or by the failure."""

    state: str
    code: str | None
    live: str | None
    shadow: str | None
    count: int
    cost_usd: Decimal


class Day(Contract):
    """One UTC day."""

    day: str
    runs: int
    failures: int
    executed: int
    held: int
    cost_usd: Decimal


class Status(Contract):
    """How things stand. `today` is the UTC day of `at`; what does not say today is of all days."""

    at: AwareDatetime
    day: str
    runs_today: int
    failures_today: int
    latency: Latency
    cost_usd_today: Decimal
    cost_per_run_usd: Decimal | None
    tokens_today: int
    errors: tuple[ErrorRow, ...]
    cases: dict[str, int]
    decisions: dict[str, int]
    decisions_today: dict[str, int]
    effects: dict[str, int]
    effects_today: dict[str, int]
    dead_letters_open: int
    approvals_open: int
    oldest_waiting_seconds: float | None
    """Age of the oldest run that nothing was decided about."""
    sla: SlaStatus
    switches: tuple[Switch, ...]
    regimes: tuple[RegimeRow, ...]
    """Those in use, or waiting for it, that have no passed eval on record; usually none."""
    candidates: tuple[CandidateRow, ...]
    """Those that are on; usually none."""
    intake: dict[str, int]
    """Hours of the last days by state, beside the provider's own list."""
    intake_marked: tuple[IntakeRow, ...]
    """The newest of these that are not complete."""
    days: tuple[Day, ...]
    events: int
    unread: int
    """Events of types that this build cannot read; they are in the log."""


class Text(Contract):
    """What somebody wrote, in clear; none when its key was erased."""

    name: str
    text: str | None


class Line(Contract):
    """One event of a case, told to a person."""

    event_id: UUID
    time: AwareDatetime
    type: str
    who: str
    sentence: str
    correlation_id: UUID | None
    texts: tuple[Text, ...] = ()


class Timeline(Contract):
    """A case and all that happened to it, oldest first, as of `at`. `cut` when there is more than one answer holds."""

    at: AwareDatetime
    row: CaseRow | None
    runs: tuple[RunRow, ...]
    """The newest, the last first."""
    lines: tuple[Line, ...]
    cut: bool = False


class CasePage(Contract):
    """Cases as they were `at`, the last changed first; `next_page` goes on from here, none at the end."""

    at: AwareDatetime
    cases: tuple[CaseRow, ...]
    next_page: str | None
