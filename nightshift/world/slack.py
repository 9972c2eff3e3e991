"""A simulated Slack: an incoming webhook that keeps what it is told."""

from dataclasses import dataclass, field
from datetime import datetime

MESSAGES_MAX = 1000


@dataclass(kw_only=True)
class Message:
    """One message."""

    at: datetime
    text: str


@dataclass
class Slack:
    """A channel. The newest message is last."""

    messages: list[Message] = field(default_factory=list)

    def post(self, body: object, at: datetime) -> str | None:
        """Keep a message; answers none, or Slack's word for what is wrong with it."""
        if not isinstance(body, dict):
            return "invalid_payload"
        text = body.get("text")
        if not isinstance(text, str) or not text:
            return "no_text"
        self.messages.append(Message(at=at, text=text[:40_000]))
        del self.messages[:-MESSAGES_MAX]
        return None
