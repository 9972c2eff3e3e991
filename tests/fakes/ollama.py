"""An Ollama server below the client: answers what it is told, keeps what it was asked, refuses or cuts as real ones."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from services.classifier.outbound.ollama import VENDOR, Ollama
from services.classifier.outbound.price_list import price_of

BYTES_A_TOKEN = 4


@dataclass
class FakeOllama:
    text: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fails: type[httpx.TransportError] | None = None
    body: bytes | None = None
    done_reason: str = "stop"
    trained_tokens: int | None = 131072
    refuses_to_cut: bool = True
    """Versions that know `truncate`; an older one cuts."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Of /api/chat."""
    looked_up: int = 0
    tags: dict[str, str] = field(default_factory=lambda: {"m:1b": "sha-1", "latest-one:latest": "sha-2"})
    """The models that it has, each with its digest."""

    def ollama(self, *, model: str = "m:1b", context_tokens: int = 32768, own_prices: str | None = None) -> Ollama:
        """A provider that asks it."""
        return Ollama(
            model=model,
            price=price_of(VENDOR, model, own_prices),
            url="http://model.test",
            context_tokens=context_tokens,
            asks_at_once=1,
            timeout_seconds=5,
            http_client=httpx.AsyncClient(transport=httpx.MockTransport(self.handle)),
        )

    def handle(self, request: httpx.Request) -> httpx.Response:
        if self.fails is not None:
            raise self.fails("the wire broke", request=request)
        if self.body is not None:
            return httpx.Response(self.status, headers=self.headers, content=self.body)
        if self.status != httpx.codes.OK:
            return httpx.Response(self.status, headers=self.headers, json={"error": "quotes the customer"})
        if request.url.path == "/api/tags":
            return httpx.Response(200, json={"models": [{"name": name, "digest": d} for name, d in self.tags.items()]})
        asked = json.loads(request.content)
        if request.url.path == "/api/show":
            self.looked_up += 1
            told = {} if self.trained_tokens is None else {"m.context_length": self.trained_tokens}
            return httpx.Response(200, json={"model_info": {"general.architecture": "m", **told}})
        self.requests.append(asked)
        return self._chat(asked)

    def _chat(self, asked: dict[str, Any]) -> httpx.Response:
        room = min(asked["options"]["num_ctx"], self.trained_tokens or asked["options"]["num_ctx"])
        tokens = sum(len(message["content"].encode()) for message in asked["messages"]) // BYTES_A_TOKEN
        if tokens > room and not asked["truncate"] and self.refuses_to_cut:
            return httpx.Response(400, json={"error": "the input length exceeds the context length"})
        return httpx.Response(
            200,
            headers=self.headers,
            json={
                "model": asked["model"],
                "created_at": "2026-11-27T12:00:00Z",
                "message": {"role": "assistant", "content": self.text},
                "done": True,
                "done_reason": self.done_reason,
                "prompt_eval_count": min(tokens, room),
                "eval_count": 50,
            },
        )
