"""The projections' figures as metrics, read now and then from the running sums."""

from collections.abc import Mapping
from typing import get_args

import structlog
from prometheus_client import Gauge

from services.reporter.domain.views import IntakeState, Status
from services.reporter.ports import Reads
from services.runtime.candidates import Mode
from services.runtime.postgres import UNAVAILABLE
from services.runtime.stop import Stop

LOOK_SECONDS = 10.0

log = structlog.get_logger()
# Of all processes.
cases = Gauge("nightshift_cases", "Cases by where they stand", ["state"])
effects = Gauge("nightshift_effects_by_state", "Effects by how far they got", ["state"])
dead_letters = Gauge("nightshift_dead_letters_open", "Dead letters that need a person")
approvals = Gauge("nightshift_approvals_open", "Approvals that wait for an answer")
oldest = Gauge("nightshift_oldest_waiting_run_seconds", "Age of the oldest run that nothing was decided about")
logged = Gauge("nightshift_event_log_events", "Events in the log")
unread = Gauge("nightshift_event_log_unread", "Events in the log that this build cannot read")
last_error = Gauge(
    "nightshift_last_error_timestamp_seconds",
    "When the newest of the last ten errors came, in Unix time",
    ["process", "where", "code"],
)
# Of each process.
switch_on = Gauge("nightshift_switch_on", "1 while effects and model calls may go out, 0 while it is off", ["process"])
candidate_mode = Gauge("nightshift_candidate_mode", "0 off, 1 shadow, 2 canary: a candidate proposes", ["process"])
first_replies = Gauge("nightshift_first_replies", "Cases by their first-reply SLA", ["process", "state"])
due_soon = Gauge("nightshift_first_replies_due_soon", "Cases whose first reply is due in 15 minutes", ["process"])
target = Gauge("nightshift_first_reply_target_ratio", "Share of first replies that shall be in time", ["process"])
runs = Gauge("nightshift_today_runs", "Runs of this UTC day", ["process"])
failures = Gauge("nightshift_today_failures", "Failures of this UTC day", ["process"])
cost_usd = Gauge("nightshift_today_cost_usd", "Cost of this UTC day's runs in US dollars", ["process"])
tokens = Gauge("nightshift_today_tokens", "Tokens of this UTC day's runs", ["process"])
intake_hours = Gauge(
    "nightshift_intake_hours",
    "Hours of intake of the last 7 days, beside the provider's own list",
    ["process", "state"],
)
latency_average = Gauge("nightshift_today_latency_average_seconds", "Mean latency of this UTC day's runs", ["process"])
latency = Gauge(
    "nightshift_today_latency_seconds", "Latency of this UTC day's runs, by quantile", ["process", "quantile"]
)


class Gauges:
    """Sets the gauges from time to time."""

    def __init__(self, reads: Reads, targets: Mapping[str, float]) -> None:
        """`targets`: by process, the share of first replies that shall be in time."""
        self._reads = reads
        self._targets = targets

    async def run(self, stop: Stop) -> None:
        """Until told to stop; while Postgres is away the last figures stand."""
        while not stop.is_set():
            try:
                await self.look()
            except UNAVAILABLE as error:
                log.warning("gauges wait for postgres", error=type(error).__name__)
            await stop.wait(LOOK_SECONDS)

    async def look(self) -> None:
        """Once."""
        _tell_of_all(await self._reads.status())
        for process, share in self._targets.items():
            target.labels(process).set(share)
            _tell_of(process, await self._reads.status(process=process))


def _tell_of_all(status: Status) -> None:
    for gauge, counts in ((cases, status.cases), (effects, status.effects)):
        gauge.clear()
        for state, count in counts.items():
            gauge.labels(state).set(count)
    dead_letters.set(status.dead_letters_open)
    approvals.set(status.approvals_open)
    oldest.set(status.oldest_waiting_seconds or 0.0)
    logged.set(status.events)
    unread.set(status.unread)
    last_error.clear()
    for error in reversed(status.errors):  # the newest last
        last_error.labels(error.process, error.where, error.code).set(error.at.timestamp())


def _tell_of(process: str, status: Status) -> None:
    switch_on.labels(process).set(any(not switch.paused for switch in status.switches))  # no row means off
    modes = [candidate.mode for candidate in status.candidates] or ["off"]
    candidate_mode.labels(process).set(get_args(Mode).index(modes[0]))
    for state in ("met", "breached", "overdue", "waiting", "not_applicable"):
        first_replies.labels(process, state).set(getattr(status.sla, state))
    due_soon.labels(process).set(status.sla.due_soon)
    for hours in get_args(IntakeState):
        intake_hours.labels(process, hours).set(status.intake.get(hours, 0))
    runs.labels(process).set(status.runs_today)
    failures.labels(process).set(status.failures_today)
    cost_usd.labels(process).set(float(status.cost_usd_today))
    tokens.labels(process).set(status.tokens_today)
    latency_average.labels(process).set((status.latency.average_ms or 0.0) / 1000)
    for quantile, milliseconds in (("0.5", status.latency.p50_ms), ("0.99", status.latency.p99_ms)):
        latency.labels(process, quantile).set((milliseconds or 0.0) / 1000)
