"""The quickest Zendesk there is: answers updates and audits from memory, and remembers when each update came.

    python -m benchmarks.answering_zendesk PORT

`GET /seen` gives {ticket id: seconds since the epoch of its first update}, `GET /count` how many
those are, `DELETE /seen` forgets.
"""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

import uvicorn

from services.runtime.health import Receive, Scope, Send, respond

OUR_USER = "900"


class AnsweringZendesk:
    """A bare ASGI app."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self.audits: dict[str, list[dict[str, Any]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"] == "/count":
            await respond(send, 200, str(len(self.seen)).encode())
            return
        if scope["path"] == "/seen":
            if scope["method"] == "DELETE":
                self.seen.clear()
            await respond(send, 200, json.dumps(self.seen).encode())
            return
        ticket_id = scope["path"].removesuffix("/audits.json").removesuffix(".json").rsplit("/", 1)[-1]
        if scope["method"] == "PUT":
            answer = self._update(ticket_id, json.loads(body))
        elif scope["path"].endswith("/audits.json"):
            answer = {"audits": self.audits.get(ticket_id, []), "users": [], "meta": {"has_more": False}}
        else:
            answer = {"ticket": {"id": int(ticket_id), "updated_at": _now()}}
        await respond(send, 200, json.dumps(answer).encode())

    def _update(self, ticket_id: str, body: dict[str, Any]) -> dict[str, Any]:
        self.seen.setdefault(ticket_id, time.time())
        audit = {
            "id": len(self.seen) * 10,
            "ticket_id": int(ticket_id),
            "created_at": _now(),
            "author_id": int(OUR_USER),
            "metadata": {"custom": body["ticket"].get("metadata", {})},
            "events": [{"id": len(self.seen) * 10 + 1, "type": "Comment", **body["ticket"].get("comment", {})}],
        }
        self.audits.setdefault(ticket_id, []).append(audit)
        return {"ticket": {"id": int(ticket_id), "updated_at": _now()}, "audit": audit}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    uvicorn.run(AnsweringZendesk(), port=int(sys.argv[1]), log_level="error", access_log=False, http="httptools")
