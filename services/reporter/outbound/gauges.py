"""The projections' figures as metrics, read now and then from the running sums."""

import structlog
from prometheus_client import Gauge

from services.reporter.ports import Reads
from services.runtime.postgres import UNAVAILABLE
from services.runtime.stop import Stop

LOOK_SECONDS = 10.0

log = structlog.get_logger()
cases = Gauge("nightshift_cases", "Cases by where they stand", ["state"])
effects = Gauge("nightshift_effects_by_state", "Effects by how far they got", ["state"])
first_replies = Gauge("nightshift_first_replies", "Cases by their first-reply SLA", ["state"])
dead_letters = Gauge("nightshift_dead_letters_open", "Dead letters that need a person")
approvals = Gauge("nightshift_approvals_open", "Approvals that wait for an answer")
oldest = Gauge("nightshift_oldest_waiting_run_seconds", "Age of the oldest run that nothing was decided about")
logged = Gauge("nightshift_event_log_events", "Events in the log")
unread = Gauge("nightshift_event_log_unread", "Events in the log that this build cannot read")


class Gauges:
    """Sets the gauges from time to time."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

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
        status = await self._reads.status()
        for gauge, counts in ((cases, status.cases), (effects, status.effects)):
            gauge.clear()
            for state, count in counts.items():
                gauge.labels(state).set(count)
        for state in ("met", "breached", "overdue", "waiting", "not_applicable"):
            first_replies.labels(state).set(getattr(status.sla, state))
        dead_letters.set(status.dead_letters_open)
        approvals.set(status.approvals_open)
        oldest.set(status.oldest_waiting_seconds or 0.0)
        logged.set(status.events)
        unread.set(status.unread)
