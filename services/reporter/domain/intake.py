"""What came in within an hour, beside the provider's own list."""

from contracts.events.cases import IntakeReconciled
from services.reporter.domain.log import History
from services.reporter.domain.views import IntakeRow


def intake_of(history: History) -> IntakeRow | None:
    """The last word about an hour; none where the subject is no hour."""
    last = max(history.of(IntakeReconciled), key=lambda e: (e.data.revision, e.time, e.event_id), default=None)
    if last is None:
        return None
    return IntakeRow(
        case_id=history.case_id,
        process=history.process,
        door=last.data.door,
        hour=last.data.hour,
        since=last.data.since,
        state=last.data.state,
        listed=last.data.listed,
        missing=last.data.missing,
        code=last.data.code,
        settled=last.data.settled,
        compared_at=last.data.compared_at,
    )
