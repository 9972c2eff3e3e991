"""A Messages API below the client: answers what it is told, and keeps what it was asked."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx2

from services.classifier.outbound.claude import Claude
from services.classifier.outbound.price_list import prices

MODEL = "claude-haiku-4-5"
USAGE = {"input_tokens": 1000, "output_tokens": 200, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 400}


@dataclass
class FakeAnthropic:
    text: str
    stop_reason: str = "end_turn"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fails: type[httpx2.TransportError] | None = None
    body: bytes | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    sent: list[httpx2.Request] = field(default_factory=list)

    def claude(self, model: str = MODEL) -> Claude:
        """A provider that asks it."""
        return Claude(
            model=model,
            price=prices().models[model],
            api_key="secret-key",
            base_url="http://model.test",
            timeout_seconds=5,
            http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(self.handle)),
        )

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(request)
        self.requests.append(json.loads(request.content))
        if self.fails is not None:
            raise self.fails("the wire broke", request=request)
        if self.body is not None:
            return httpx2.Response(self.status, headers=self.headers, content=self.body)
        if self.status != httpx2.codes.OK:
            error = {"type": "error", "error": {"type": "some_error", "message": "quotes the customer"}}
            return httpx2.Response(self.status, headers=self.headers, json=error)
        return httpx2.Response(200, headers={"request-id": "req_1", **self.headers}, json=self._message())

    def _message(self) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": self.requests[-1]["model"],
            "content": [{"type": "text", "text": self.text}] if self.text else [],
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": USAGE,
        }
