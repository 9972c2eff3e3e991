"""Why a person is needed: failures that are alike are one cause."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from services.reporter.domain.views import CauseKind

ID_CHARACTERS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Cases that wait for a person for one and the same reason, counted."""

    process: str
    kind: CauseKind
    service: str = ""
    work: str = ""
    code: str = ""
    count: int
    ordered: int = 0
    """Of these, dead letters of which a redrive or a skip is asked for, and not carried out yet."""
    since: datetime
    due_at: datetime | None
    """When the next first reply among them is late; none where none is ahead."""
    detail: str = ""
    """More about it: words of ours, amounts and ids."""

    @property
    def id(self) -> str:
        return cause_id(self.kind, self.process, self.service, self.work, self.code)


def cause_id(kind: CauseKind, process: str, service: str, work: str, code: str) -> str:
    """The same for all failures that are alike, for ever: a person may say it to a command a week later."""
    sha = hashlib.sha256(repr((kind, process, service, work, code)).encode())
    return sha.hexdigest()[:ID_CHARACTERS]
