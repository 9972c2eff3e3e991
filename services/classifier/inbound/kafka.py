"""From the topics to the handlers, and to those who then have something to do."""

from collections.abc import Sequence

from contracts import topics
from contracts.base import Fact
from contracts.envelope import Record
from contracts.events.cases import CHANGES, CaseChanged, CaseOpened
from services.classifier.handlers.case_changed import CaseChangedHandler
from services.runtime.inbox import Handler, Inbox
from services.runtime.kafka import Take
from services.runtime.stop import Wake

SUBSCRIPTIONS = (topics.CASES, topics.CONTROL)


def handlers(case_changed: CaseChangedHandler) -> dict[type[Fact], Handler]:
    """By event type. Orders to redrive are carried out by the inbox itself."""
    return {CaseOpened: case_changed, CaseChanged: case_changed}


def taking(inbox: Inbox, case_changed: CaseChangedHandler, *, propose: Sequence[Wake], read: Sequence[Wake]) -> Take:
    """Take a batch, then wake those for whom there may be work: readers seldom, so that few look in vain."""

    async def take(records: Sequence[Record]) -> None:
        await inbox.take(records)
        ordered = any(record.headers.get("ce_type") not in CHANGES for record in records)
        to_read, case_changed.to_read = case_changed.to_read or ordered, False
        for wake in (*propose, *(read if to_read else ())):
            wake.set()

    return take
