"""A person is told of what needs one: count, decide, say so in Postgres, send, record. Failing stops nothing else."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from services.reporter.domain.causes import Cause
from services.reporter.domain.telling import Manner, Standing, escalates, notice, why_tell
from services.reporter.ports import Causes, Messenger, Outcome, Telling
from services.runtime.failures import Later, tell
from services.runtime.stop import Stop

LOOK_SECONDS = 10.0
LEASE = timedelta(seconds=120)
"""Longer than a messenger takes; a reporter that died in between leaves the notice to another one."""
RETRY_FIRST = timedelta(seconds=10)
RETRY_MOST = timedelta(minutes=2)

log = structlog.get_logger()
tellings_total = Counter("nightshift_tellings_total", "Notices to people, by whether they arrived", ["whom", "outcome"])
for _whom in ("duty", "escalation"):  # 0 is a figure too: what is not there cannot be seen to grow
    for _outcome in ("told", "partly", "failed"):
        tellings_total.labels(_whom, _outcome)


class Teller:
    """Tells those on duty, and those of the escalation where nobody acknowledged it."""

    def __init__(
        self, causes: Causes, manners: Mapping[str, Manner], *, duty: Messenger | None, escalation: Messenger | None
    ) -> None:
        """`manners`: by process; a cause of no process of ours is told as the first one's are. No messenger: nobody."""
        self._causes = causes
        self._manners = manners
        self._duty = duty
        self._escalation = escalation

    async def run(self, stop: Stop) -> None:
        """Look from time to time until told to stop."""
        while not stop.is_set():
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  # telling is the least of what a reporter does: it goes on
                say = log.warning if isinstance(tell(error), Later) else log.error
                say("telling waits", error=type(error).__name__)
            await stop.wait(LOOK_SECONDS)

    async def look(self) -> None:
        """Once."""
        await self._causes.count()
        if self._duty is None:
            return
        claimed = await self._causes.claim(self._decide, lease=LEASE)
        if not claimed:
            return
        now = max(telling.at for telling in claimed)
        missed = await self._send("duty", self._duty, [t.cause for t in claimed if t.tells], now)
        unheard = await self._send("escalation", self._escalation, [t.cause for t in claimed if t.escalates], now)
        await self._causes.record(
            [
                Outcome(
                    cause=t.cause,
                    told=t.tells and missed is None,
                    escalated=t.escalates and unheard is None,
                    failed=(missed if t.tells else None) or (unheard if t.escalates else None),
                )
                for t in claimed
            ],
            first=RETRY_FIRST,
            most=RETRY_MOST,
        )

    def _decide(self, cause: Cause, standing: Standing, now: datetime) -> Telling | None:
        manner = self._manners.get(cause.process) or next(iter(self._manners.values()))
        tells = why_tell(cause, standing, manner, now) is not None
        escalated = self._escalation is not None and escalates(cause, standing, manner, now)
        return Telling(cause=cause, tells=tells, escalates=escalated, at=now) if tells or escalated else None

    async def _send(self, whom: str, messenger: Messenger | None, causes: list[Cause], now: datetime) -> str | None:
        """None, or why nobody was reached."""
        if not causes or messenger is None:
            return None
        sent = await messenger.send(notice(causes, now, escalated=whom == "escalation"))
        outcome = "failed" if not sent.arrived else "partly" if sent.missed else "told"
        tellings_total.labels(whom, outcome).inc()
        if sent.missed:
            log.error("not everybody was told", whom=whom, outcome=outcome, causes=len(causes), missed=sent.missed)
        return None if sent.arrived else f"{whom}: {', '.join(sent.missed)}"
