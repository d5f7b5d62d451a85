"""A model provider that is a real HTTP server on loopback and does what a test tells it to.

It speaks the wire of OpenAI (`/v1/chat/completions`), Anthropic (`/v1/messages`), Gemini
(`/v1beta/models/M:generateContent`) and Ollama (`/api/chat`), whole or streamed as the request asks for, and remembers
what it was asked:

    async with FakeProvider([Status(429, {"Retry-After": "1"}), verdict(severity="critical")]) as provider:
        ...  # point a client at provider.url
        assert provider.requests[0].path == "/v1/chat/completions"

`answers` is the script: one answer a request, the last one again and again; or a function from Request to answer.
It may be replaced at any time.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from provider_wires import PIECE, Anthropic, Gemini, Ollama, OpenAI, Said, Wire


@dataclass(frozen=True)
class Text:
    """What the model says."""

    text: str
    cut_off: bool = False
    """Whether it says that it came to the end of its tokens."""
    counted: bool = True
    """Whether the provider counts the tokens."""


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
class Paced:
    """A good answer that begins `after` that many seconds, and goes on for `lasting` more, as a model writes."""

    text: str
    after: float
    lasting: float


@dataclass(frozen=True)
class Pause:
    """An answer that stops before `stop`, a part of its text, until `release` is set."""

    text: str
    stop: str
    release: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Reset:
    """The connection is reset once the request is read."""


@dataclass(frozen=True)
class ResetAfter:
    """The connection is reset before `stop`, a part of the text, has been sent."""

    text: str
    stop: str


@dataclass(frozen=True)
class Huge:
    """An answer of so many bytes, which begins like a good one."""

    size: int = 30 * 1024 * 1024


@dataclass(frozen=True)
class Zipped:
    """An answer that is compressed, whether or not the client likes it."""

    text: str


@dataclass(frozen=True)
class Html:
    """A 200 from something that is no model, such as a login page."""


@dataclass(frozen=True)
class Nothing:
    """A 200 with no body."""


@dataclass(frozen=True)
class Empty:
    """A well-formed answer in which the model says nothing."""


@dataclass(frozen=True)
class Slow:
    """The answer `after` that many seconds."""

    answer: Answer
    after: float


Answer = (
    Text | Status | Hang | Drip | Paced | Pause | Reset | ResetAfter | Huge | Zipped | Html | Nothing | Empty | Slow
)


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
    def streamed(self) -> bool:
        """Whether it asks for a stream."""
        return bool(self.json.get("stream")) or ":streamGenerateContent" in self.path

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
        self.strays: list[str] = []
        """Paths that were asked for and are no model's."""
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
        app.router.add_post("/v1/chat/completions", self._handler(OpenAI()))
        app.router.add_post("/v1/messages", self._handler(Anthropic()))
        app.router.add_post("/v1beta/models/{call}", self._handler(Gemini()))
        app.router.add_post("/api/chat", self._handler(Ollama()))
        app.router.add_route("*", "/{path:.*}", self._stray)
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
        self.strays.clear()
        self.most_at_once = 0
        self.answers = answers or [verdict()]

    def _next(self, request: Request) -> Answer:
        if callable(self._answers):
            return self._answers(request)
        answer = self._answers[min(self._given, len(self._answers) - 1)]
        self._given += 1
        return answer

    async def _stray(self, http: web.Request) -> web.Response:
        self.strays.append(http.path)
        return web.Response(status=404)

    def _handler(self, wire: Wire) -> Callable[[web.Request], Any]:
        async def handle(http: web.Request) -> web.StreamResponse:
            request = Request(http.path, dict(http.headers), await http.json(), time.monotonic())
            async with self._arrived:
                self.requests.append(request)
                self._arrived.notify_all()
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            try:
                return await _play(self._next(request), http, request, wire)
            except asyncio.CancelledError:
                request.hung_up.set()
                raise
            except ConnectionError:
                request.hung_up.set()
                return web.Response()
            finally:
                self._now -= 1

        return handle


async def _play(answer: Answer, http: web.Request, request: Request, wire: Wire) -> web.StreamResponse:
    match answer:
        case Slow(then, after):
            await asyncio.sleep(after)
            return await _play(then, http, request, wire)
        case Text(text, cut_off, counted):
            return await _say(Said(text, cut_off, counted), http, request, wire)
        case Empty():
            return await _say(Said(None), http, request, wire)
        case Status(code, headers, given):
            error = {"error": {"message": f"refused: key {request.key}", "type": "error", "code": code}}
            text = json.dumps(error) if given is None else given
            return web.Response(status=code, headers=headers, text=text, content_type="application/json")
        case Html():
            return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")
        case Nothing():
            return web.Response(content_type=wire.content_type if request.streamed else "application/json")
        case Hang():
            await asyncio.Event().wait()
            raise AssertionError("unreachable")
        case Drip(text, every):
            response = await _begun(http, request, wire)
            for byte in b"".join(_frames(Said(text), request, wire)):
                await response.write(bytes([byte]))
                await asyncio.sleep(every)
            return response
        case Paced(text, after, lasting):
            frames = _frames(Said(text), request, wire)
            await asyncio.sleep(after if request.streamed else after + lasting)
            response = await _begun(http, request, wire)
            for frame in frames:
                await response.write(frame)
                await asyncio.sleep(lasting / len(frames) if request.streamed else 0)
            return response
        case Pause(text, stop, release):
            response = await _begun(http, request, wire)
            before, after = _split(text, stop, request, wire)
            await response.write(before)
            await release.wait()
            await response.write(after)
            return response
        case ResetAfter(text, stop):
            response = await _begun(http, request, wire)
            await response.write(_split(text, stop, request, wire)[0])
            return _reset(http)
        case Huge(size):
            response = await _begun(http, request, wire)
            text = verdict(summary="x" * size).text
            for start in range(0, size, 65_536):
                await response.write(_huge(text, start, request, wire))
            return response
        case Zipped(text):
            kind = wire.content_type if request.streamed else "application/json"
            packed = gzip.compress(b"".join(_frames(Said(text), request, wire)), 1)
            return web.Response(body=packed, content_type=kind, headers={"Content-Encoding": "gzip"})
        case Reset():
            return _reset(http)


async def _say(said: Said, http: web.Request, request: Request, wire: Wire) -> web.StreamResponse:
    if not request.streamed:
        return web.json_response(wire.whole(said, request.json))
    response = await _begun(http, request, wire)
    for frame in wire.frames(said, request.json):
        await response.write(frame)
    return response


async def _begun(http: web.Request, request: Request, wire: Wire) -> web.StreamResponse:
    """Return a response whose head is on its way."""
    kind = wire.content_type if request.streamed else "application/json"
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(http)
    return response


def _frames(said: Said, request: Request, wire: Wire) -> list[bytes]:
    if request.streamed:
        return list(wire.frames(said, request.json))
    return [json.dumps(wire.whole(said, request.json)).encode()]


def _split(text: str, stop: str, request: Request, wire: Wire) -> tuple[bytes, bytes]:
    """Return what is sent of `text` before the part `stop` of it, and the rest."""
    frames = _frames(Said(text), request, wire)
    if request.streamed:
        # Whole pieces up to `stop`, or a little beyond it: what this stream and a shorter one begin with.
        pieces = -(-text.index(stop) // PIECE)
        shorter = _frames(Said(text[: pieces * PIECE] + "\0"), request, wire)
        same = next(n for n, (one, other) in enumerate(zip(frames, shorter, strict=False)) if one != other)
        return b"".join(frames[:same]), b"".join(frames[same:])
    (whole,) = frames
    return whole[: len(whole) // 2], whole[len(whole) // 2 :]


def _huge(text: str, start: int, request: Request, wire: Wire) -> bytes:
    """Return 64 KiB of an answer from `start` on."""
    piece = text[start : start + 65_536]
    if not request.streamed:
        return (_frames(Said(text), request, wire)[0] if start == 0 else b"x" * 65_536)[:65_536]
    frames = list(wire.frames(Said("@" * PIECE + "#"), request.json))
    frame = next(frame for frame in frames if b"@" * PIECE in frame)
    content = json.dumps(piece)[1:-1]
    first = b"".join(frames).partition(frame)[0] if start == 0 else b""
    return first + frame.replace(b"@" * PIECE, content.encode())


def _reset(http: web.Request) -> web.Response:
    assert http.transport is not None
    # Lingering for 0 s makes the close a reset.
    raw: socket.socket = http.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    http.transport.abort()
    return web.Response()
