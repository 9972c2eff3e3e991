"""A model of Anthropic's behind its Messages API: honest, and in trouble when it is told to be.

It has no trouble that hands the case to a person: a refusal, or an output that is none twice.
"""

import asyncio
import json
from random import Random
from typing import Any, Literal, get_args

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

NAME = "claude-haiku-4-5"
SLOW_SECONDS = 2.0
_MESSAGE = {"content-type": "application/json"}

Trouble = Literal["overloaded", "failing", "no message", "no output", "slow"]
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)


class Model:
    """Suggests a reply to whatever it is asked."""

    def __init__(self, random: Random) -> None:
        self.troubled_percent = 0
        """The share of calls that meet a trouble."""
        self.met = 0
        """So many did."""
        self._random = random

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = await Request(scope, receive).json()
        troubled = self._random.random() * 100 < self.troubled_percent
        self.met += troubled
        answer = await self._answer(asked, self._random.choice(TROUBLES) if troubled else None)
        await answer(scope, receive, send)

    async def _answer(self, asked: dict[str, Any], trouble: Trouble | None) -> Response:
        match trouble:
            case "overloaded":
                return JSONResponse({"type": "error"}, 529, {"retry-after": "1"})
            case "failing":
                return JSONResponse({"type": "error"}, 500, {"retry-after": "1"})
            case "no message":
                return Response(b"<html>sorry</html>", headers=_MESSAGE)
            case "no output" if not _is_second_try(asked):
                return JSONResponse(_message("Certainly! Here is what I would do:"))
            case "slow":
                await asyncio.sleep(SLOW_SECONDS)
            case _:
                pass
        return JSONResponse(_message(_honest(asked)))


def _is_second_try(asked: dict[str, Any]) -> bool:
    return len(asked["messages"]) > 1


def _honest(asked: dict[str, Any]) -> str:
    """A reply that promises nothing, and rests on every passage that was shown."""
    shown = orjson.loads(asked["messages"][0]["content"].splitlines()[1])
    return json.dumps(
        {
            "intent": "get_refund",
            "urgency": "normal",
            "language": "en",
            "sentiment": "neutral",
            "reply": "Thank you, we will look at it.",
            "citations": [passage["id"] for passage in shown["passages"]],
            "actions": [{"name": "reply"}],
            "confidence": 0.99,
        }
    )


def _message(text: str) -> dict[str, object]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": NAME,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 100},
    }
