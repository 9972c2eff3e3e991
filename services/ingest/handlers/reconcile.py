"""One look at a door's intake: hours that may still change are compared with the provider's own list.

What no webhook told is read, and goes the way of a webhook as late intake. Whatever fails here fails for the hours
alone: webhooks are taken meanwhile, and an hour whose list cannot be had is unknown.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import orjson
import structlog
from prometheus_client import Counter

from connectors.protocol import PlainChange, Update
from contracts.failures import LaterError, PermanentError
from services.ingest.domain.delivery import Change, Delivery, Unreadable, delivery_id_of, event_id_of
from services.ingest.domain.reconciliation import Hour, compare, is_short, not_had, refused, seen
from services.ingest.handlers.webhook import OpenDoor
from services.ingest.ports import (
    Claim,
    Clock,
    Hours,
    Intake,
    IntakeUnavailableError,
    LeaseLostError,
    Outside,
    Trace,
)
from services.runtime.failures import Later, tell
from services.runtime.postgres import CONTENDED, UNAVAILABLE
from services.runtime.process import case_id_of
from services.runtime.stop import Stop

IDLE_SECONDS_MAX = 5.0
PAGES_MAX = 500
HOURS_PER_LOOK_MAX = 24
OBJECTS_PER_LOOK_MAX = 300
"""Further ones are taken in by the next look, so that the running hour is not forgotten over an old one."""
READ_PAUSE_SECONDS = 1.0
"""An object takes two calls or more, and whoever answers needs the same account's limit."""
ABOUT_ONE = frozenset({"server_error", "timeout", "cut", "unforeseen"})
"""Failures that may be about a single object: the others are read before it is tried again."""
UNREAD_MAX = 3
"""So many in a row are about nobody in particular, and end the look."""

log = structlog.get_logger()
late_total = Counter("nightshift_intake_late_total", "Updates that no webhook told, taken in late", ["source"])
list_failures_total = Counter(
    "nightshift_intake_list_failures_total", "Looks at which the provider's list could not be had", ["source", "code"]
)


class _StoppedError(Exception):
    """The service stops: the look ends where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciling:
    """The work for one door."""

    door: OpenDoor
    outside: Outside
    hours: Hours
    intake: Intake
    clock: Clock
    trace: Trace
    every: timedelta
    """From look to look."""
    grace: timedelta
    """A younger update may still be told by its webhook."""
    list_pause_seconds: float
    """Between two calls of the list."""
    read_pause_seconds: float = READ_PAUSE_SECONDS

    async def once(self, stop: Stop) -> float:
        """Look, where that is due. Returns after how many seconds to ask again.

        Raises what says that Postgres is away, and nothing else.
        """
        claim = await self.hours.claim(self.door.process, self.door.name, self.clock())
        if claim is not None:
            try:
                await self.hours.release(claim, seconds=await self._look(claim, stop))
            except LeaseLostError:
                log.warning("somebody else compares the intake", source=self._source)
            except _StoppedError:
                await self.hours.release(claim, seconds=0.0)
        return min(IDLE_SECONDS_MAX, self.every.total_seconds())

    @property
    def _source(self) -> str:
        return f"{self.door.process}/{self.door.name}"

    async def _look(self, claim: Claim, stop: Stop) -> float:
        """Returns after how many seconds the next look is due."""
        patience = self.every.total_seconds()
        hours, others_had = await self.hours.unsettled(claim, self.clock()), False
        for hour in hours[:HOURS_PER_LOOK_MAX]:
            until = min(hour.end, self.clock() - self.grace)
            if until <= hour.since:
                continue
            try:
                patience = max(patience, await self._compare(claim, hour, until, stop))
                others_had = True
            except (LeaseLostError, _StoppedError, *UNAVAILABLE, *CONTENDED):
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is, intake goes on, and the hour is not complete
                failure = tell(error)
                self._count_failure(failure.code)
                if isinstance(failure, Later):  # it is not about this hour
                    await self._not_had(claim, hours, failure.code)
                    return max(patience, failure.seconds)
                if others_had:
                    now = self.clock()
                    await self.hours.keep(claim, hour, refused(hour, failure.code, now=now, every=self.every), now)
                else:
                    await self._not_had(claim, [hour], failure.code)
            await _wait(stop, self.list_pause_seconds)
        return patience

    async def _not_had(self, claim: Claim, hours: Iterable[Hour], code: str) -> None:
        now = self.clock()
        for hour in hours:
            await self.hours.keep(claim, hour, not_had(hour, code, now=now, every=self.every), now)

    async def _compare(self, claim: Claim, hour: Hour, until: datetime, stop: Stop) -> float:
        """Returns for how many seconds the other side wants to be left alone."""
        updates = await self._list(claim, hour.since, until, stop)
        kinds, whole, short = self.door.settings.compared, until == hour.end, False
        if whole:
            heard = await self.hours.any_heard(claim, hour.since, until)
            short = is_short(updates, heard, kinds, since=hour.since, until=until)
        else:
            heard = await self.hours.heard(claim, hour.since, until, {update.object_id for update in updates})
        compared = compare(updates, heard, kinds)
        wanted = {self._delivery_id(update): update for update in (*compared.missing, *compared.doubtful)}
        known = await self.hours.known(wanted)
        left = [update for delivery_id, update in wanted.items() if delivery_id not in known]
        patience, whole = 0.0, whole and not short
        if left:  # said before it is mended: whoever looks now shall know
            now = self.clock()
            found = seen(hour, compared, outstanding=len(left), whole=whole, now=now, every=self.every)
            await self.hours.keep(claim, hour, found, now)
            hour = found
            left, patience = await self._take_in(claim, left, stop)
        now = self.clock()
        after = seen(hour, compared, outstanding=len(left), whole=whole, now=now, every=self.every)
        if short:
            code = "list_short" if updates else "list_empty"
            self._count_failure(code)
            after = (not_had if left else refused)(after, code, now=now, every=self.every)
        await self.hours.keep(claim, hour, after, now)
        return patience

    def _count_failure(self, code: str) -> None:
        list_failures_total.labels(self._source, code).inc()
        log.warning("the provider's list cannot be had", source=self._source, code=code)

    async def _list(self, claim: Claim, since: datetime, until: datetime, stop: Stop) -> Sequence[Update]:
        """All of it, each update once. Raises what the connector raises, PermanentError("list_too_long")."""
        found: dict[str, Update] = {}
        cursor = None
        for _ in range(PAGES_MAX):
            await self.hours.hold(claim)
            page = await self.outside.list_updates(since, cursor)
            found |= {update.update_id: update for update in page.updates if since <= update.at < until}
            if page.end or (page.updates and page.updates[-1].at >= until):
                return tuple(found.values())
            cursor = page.cursor
            await _wait(stop, self.list_pause_seconds)
        raise PermanentError("list_too_long", f"one hour of the list has more than {PAGES_MAX} pages")

    async def _take_in(self, claim: Claim, updates: Sequence[Update], stop: Stop) -> tuple[list[Update], float]:
        """Read the objects and store what is missing. Returns what is left for the next look, and when that may be."""
        by_object: dict[str, list[Update]] = defaultdict(list)
        for update in updates:
            by_object[update.object_id].append(update)
        left = dict(by_object)
        patience, unread = 0.0, 0
        for object_id in list(by_object)[:OBJECTS_PER_LOOK_MAX]:
            await self.hours.hold(claim)
            try:
                for delivery in await self._read(object_id, by_object[object_id]):
                    await self.intake.store(delivery)
                    late_total.labels(self._source).inc()
            except LaterError as error:
                log.warning("what is missing cannot be read yet", source=self._source, code=error.code)
                patience, unread = max(patience, error.seconds), unread + 1
                if error.code not in ABOUT_ONE or unread == UNREAD_MAX:
                    break
            except IntakeUnavailableError as error:
                return _flat(left), float(error.retry_after_seconds)
            else:
                unread = 0
                del left[object_id]
            await _wait(stop, self.read_pause_seconds)
        return _flat(left), patience

    async def _read(self, object_id: str, updates: Sequence[Update]) -> list[Delivery]:
        """A delivery an update; what cannot be read for good is a person's. Raises LaterError, also for our faults."""
        try:
            history = await self.outside.read(object_id)
        except PermanentError as error:
            why = Unreadable(error.code, str(error))
            return [self._delivery(update, (), why) for update in updates]
        except LaterError:
            raise
        except Exception as error:
            raise LaterError("unforeseen", type(error).__name__, seconds=0.0) from error
        return [self._delivery(update, _told_of(update, history)) for update in updates]

    def _delivery(self, update: Update, told: Sequence[PlainChange], why: Unreadable | None = None) -> Delivery:
        process, name = self.door.process, self.door.name
        case_id = case_id_of(process, name, update.object_id)
        changes = [Change(plain, case_id, event_id_of(process, name, plain.identity)) for plain in told]
        return Delivery(
            delivery_id=self._delivery_id(update),
            process=process,
            source=name,
            sender_id=update.update_id,
            case_ids=(case_id,),
            signed={},
            body=orjson.dumps({"id": update.object_id, "update": update.update_id}),
            traceparent=self.trace(None),
            received_at=self.clock(),
            changes=changes,
            unreadable=why,
            late=True,
        )

    def _delivery_id(self, update: Update) -> str:
        return delivery_id_of(self.door.process, self.door.name, update.update_id)


def _told_of(update: Update, history: Sequence[PlainChange]) -> Sequence[PlainChange]:
    """What the object's history tells of an update, behind the newest of it, which is the object's state now.

    Where it does not tell of it (the object is gone), the newest alone, under the update's name.
    """
    told = [change for change in history if change.update_id == update.update_id]
    if told:
        return [history[-1], *(change for change in told if change is not history[-1])]
    return [
        replace(change, identity=f"{update.update_id}:{change.kind}", update_id=update.update_id)
        for change in history[-1:]
    ]


def _flat(left: dict[str, list[Update]]) -> list[Update]:
    return [update for updates in left.values() for update in updates]


async def _wait(stop: Stop, seconds: float) -> None:
    """Raises _StoppedError where that comes first."""
    if await stop.wait(seconds):
        raise _StoppedError
