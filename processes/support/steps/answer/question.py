"""What a ticket asks: the words to be answered, and what a model sees of the ticket. Pure."""

from contracts.base import Json
from contracts.knowledge import Question
from processes.support import case as cases, facts, text
from processes.support.ticket import Case

MESSAGES_SHOWN_MAX = 12
DEFAULT_LANGUAGE = "en"


def question(case: Case) -> Question:
    """Of a revealed case."""
    words = facts.question(case)
    return Question(
        text=words,
        brand=case.text("brand_id"),
        language=text.language(words) or DEFAULT_LANGUAGE,
        shown=_shown(case),
    )


def _shown(case: Case) -> Json:
    """The newest public messages, oldest first; never a name, an address or an internal note."""
    public = [comment for comment in case.comments if comment.public is not False and comment.text]
    waiting = {comment.id for comment in cases.unanswered(case)}
    return {
        "subject": case.text("subject"),
        "channel": case.text("channel"),
        "priority": case.text("priority"),
        "status": case.text("status"),
        "tags": list(case.tags),
        "messages": [
            {
                "by": cases.speaker(case, comment),
                "at": comment.at,
                "to_be_answered": comment.id in waiting,
                "text": comment.text,
            }
            for comment in public[-MESSAGES_SHOWN_MAX:]
        ],
    }
