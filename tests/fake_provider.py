"""A model provider that is a real HTTP server on loopback and does what a test tells it to.

It speaks the non-streamed wire of OpenAI (`/v1/chat/completions`), Anthropic (`/v1/messages`), Gemini
(`/v1beta/models/M:generateContent`) and Ollama (`/api/chat`), and remembers what it was asked:

    async with FakeProvider([Status(429, {"Retry-After": "1"}), verdict(severity="critical")]) as provider:
        ...  # point a client at provider.url
        assert provider.requests[0].path == "/v1/chat/completions"

`answers` is the script: one answer a request, the last one again and again; or a function from Request to answer.
It may be replaced at any time.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Text:
    """What the model says."""

    text: str


@dataclass(frozen=True)
class Status:
    """An error, with a body that by default has the shape of the provider's."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    """None: an error object naming the key that was sent, as some providers do."""


@dataclass(frozen=True)
class Hang:
    """No answer for as long as the client waits."""


@dataclass(frozen=True)
class Drip:
    """A good answer, one byte each `every` seconds: no single read is slow."""

    text: str
    every: float = 0.1


@dataclass(frozen=True)
class Reset:
    """The connection is reset once the request is read."""


@dataclass(frozen=True)
class Html:
    """A 200 from something that is no model, such as a login page."""


@dataclass(frozen=True)
class Empty:
    """A well-formed answer in which the model says nothing."""


@dataclass(frozen=True)
class Slow:
    """The answer `after` that many seconds."""

    answer: Answer
    after: float


Answer = Text | Status | Hang | Drip | Reset | Html | Empty | Slow


def verdict(**members: object) -> Text:
    """Return a good verdict, with `members` in place of its own; None leaves a member out."""
    whole = {
        "severity": "warning",
        "category": "capacity",
        "confidence": "high",
        "summary": "The disk fills up.",
        "recommendations": ["Delete old files."],
    } | members
    return Text(json.dumps({name: value for name, value in whole.items() if value is not None}))


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    path: str
    headers: Mapping[str, str]
    json: Any
    at: float
    """When, on the monotonic clock, in seconds."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event, compare=False)
    """Set when the client closes the connection before it has its answer."""

    @property
    def key(self) -> str:
        """The API key, wherever this provider has it; empty when none was sent."""
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.headers.get("x-api-key") or self.headers.get("x-goog-api-key") or bearer

    @property
    def prompt(self) -> str:
        """The whole request body as text."""
        return json.dumps(self.json, ensure_ascii=False)


Script = Sequence[Answer] | Callable[[Request], Answer]


class FakeProvider:
    """An async context manager; see the module."""

    def __init__(self, answers: Script | None = None) -> None:
        self._arrived = asyncio.Condition()
        self.requests: list[Request] = []
        self.most_at_once = 0
        """The most requests that were being answered at the same time."""
        self._now = 0
        self.url = ""
        """`http://127.0.0.1:PORT`, once entered."""
        self.answers = answers or [verdict()]

    @property
    def answers(self) -> Script:
        return self._answers

    @answers.setter
    def answers(self, script: Script) -> None:
        self._answers = script
        self._given = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handler(_openai))
        app.router.add_post("/v1/messages", self._handler(_anthropic))
        app.router.add_post("/v1beta/models/{call}", self._handler(_gemini))
        app.router.add_post("/api/chat", self._handler(_ollama))
        # Cancelling the handler is how a test learns that its client hung up.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def request(self, number: int) -> Request:
        """Return the request of that number, counted from 0, once it has arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    def forget(self, answers: Script | None = None) -> None:
        """Forget all requests and start with a new script."""
        self.requests.clear()
        self.most_at_once = 0
        self.answers = answers or [verdict()]

    def _next(self, request: Request) -> Answer:
        if callable(self._answers):
            return self._answers(request)
        answer = self._answers[min(self._given, len(self._answers) - 1)]
        self._given += 1
        return answer

    def _handler(self, body: Callable[[str | None, Any], Any]) -> Callable[[web.Request], Any]:
        async def handle(http: web.Request) -> web.StreamResponse:
            request = Request(http.path, dict(http.headers), await http.json(), time.monotonic())
            async with self._arrived:
                self.requests.append(request)
                self._arrived.notify_all()
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            try:
                return await _play(self._next(request), http, request, body)
            except asyncio.CancelledError:
                request.hung_up.set()
                raise
            except ConnectionError:
                request.hung_up.set()
                return web.Response()
            finally:
                self._now -= 1

        return handle


async def _play(
    answer: Answer, http: web.Request, request: Request, body: Callable[[str | None, Any], Any]
) -> web.StreamResponse:
    match answer:
        case Slow(then, after):
            await asyncio.sleep(after)
            return await _play(then, http, request, body)
        case Text(text):
            return web.json_response(body(text, request.json))
        case Empty():
            return web.json_response(body(None, request.json))
        case Status(code, headers, given):
            error = {"error": {"message": f"refused: key {request.key}", "type": "error", "code": code}}
            text = json.dumps(error) if given is None else given
            return web.Response(status=code, headers=headers, text=text, content_type="application/json")
        case Html():
            return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")
        case Hang():
            await asyncio.Event().wait()
            raise AssertionError("unreachable")
        case Drip(text, every):
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(http)
            for byte in json.dumps(body(text, request.json)).encode():
                await response.write(bytes([byte]))
                await asyncio.sleep(every)
            return response
        case Reset():
            assert http.transport is not None
            # Lingering for 0 s makes the close a reset.
            raw: socket.socket = http.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            http.transport.abort()
            return web.Response()


def _openai(text: str | None, asked: Any) -> Any:
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": asked["model"],
        "choices": choices if text is not None else [],
        "usage": {"prompt_tokens": 480, "completion_tokens": 90, "total_tokens": 570},
    }


def _anthropic(text: str | None, asked: Any) -> Any:
    content: list[dict[str, Any]] = [] if text is None else [{"type": "text", "text": text}]
    if text is not None and asked.get("tool_choice", {}).get("type") == "tool":
        # An older model is made to answer by a tool call; its input is the answer.
        content = [{"type": "tool_use", "id": "toolu_1", "name": asked["tool_choice"]["name"], "input": _loads(text)}]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 480, "output_tokens": 90},
    }


def _gemini(text: str | None, asked: Any) -> Any:
    candidate = {"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [{"text": text}]}}
    return {
        "candidates": [candidate] if text is not None else [],
        "usageMetadata": {"promptTokenCount": 480, "candidatesTokenCount": 90, "totalTokenCount": 570},
        "modelVersion": "fake",
    }


def _ollama(text: str | None, asked: Any) -> Any:
    return {
        "model": asked["model"],
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text or ""},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 480,
        "eval_count": 90,
    }


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"text": text}
