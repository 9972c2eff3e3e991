"""From the topics to the handlers."""

from collections.abc import Mapping

from contracts import topics
from contracts.base import Fact
from contracts.events.cases import CaseChanged, CaseOpened
from services.classifier.handlers.case_changed import CaseChangedHandler
from services.runtime.inbox import Handler
from services.runtime.process import Process

SUBSCRIPTIONS = (topics.CASES, topics.CONTROL)


def handlers(processes: Mapping[str, Process]) -> dict[type[Fact], Handler]:
    """By event type. Orders to redrive are carried out by the inbox itself."""
    case_changed = CaseChangedHandler(processes)
    return {CaseOpened: case_changed, CaseChanged: case_changed}
