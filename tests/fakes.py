"""Builders, and stand-ins that keep their promise: a model with a script, an Alertmanager that is a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from serving import Server

from proxy import config
from proxy.alert import Alert
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.classifier import unheard
from proxy.config import Settings


def stamp(ahead: float = 0) -> str:
    """A time on the wire, `ahead` seconds from now, as Prometheus writes it."""
    time = datetime.now(UTC) + timedelta(seconds=ahead)
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def posted(name: str = "HighLatency", *, begun: float = 1, ends: float = 240, **labels: str) -> dict[str, Any]:
    """An alert as Prometheus posts it; `begun` and `ends` in seconds from now."""
    return {
        "annotations": {"summary": f"{name} fires"},
        "endsAt": stamp(ends),
        "startsAt": stamp(begun),
        "generatorURL": "http://prometheus.example:9090/graph?g0.expr=up\\u0026g0.tab=1",
        "labels": {"alertname": name, **labels},
    }


def body(*alerts: Any) -> bytes:
    return json.dumps(list(alerts), separators=(",", ":")).encode()


def an_alert(name: str = "HighLatency", **labels: str) -> Alert:
    return Alert({"alertname": name, **labels}, starts_at=datetime.now(UTC) + timedelta(seconds=1))


def verdict(
    severity: Severity = Severity.INFO,
    category: Category = Category.PERFORMANCE,
    *,
    summary: str = "The model says so.",
    source: Source = Source.LLM,
) -> Classification:
    return Classification(
        severity, category, Confidence.HIGH, source, summary, ("Look at the dashboard.",), model="fake-1"
    )


@dataclass(frozen=True)
class Early:
    """An answer whose labels are told at once; `then` is returned, or raised, when the test sets `release`."""

    verdict: Classification
    then: Classification | Exception
    release: asyncio.Event = field(default_factory=asyncio.Event)


Answer = Classification | Exception | Early | None


class FakeModel:
    """Gives the scripted answers in turn, the last one for ever; None hangs until cancelled."""

    def __init__(self, answers: Sequence[Answer] = (verdict(),)) -> None:
        self.answers = list(answers)
        self.asked: list[Alert] = []
        self.release = asyncio.Event()
        """Set, it lets the hanging calls answer with `verdict()`."""

    async def classify(
        self, alert: Alert, early: Callable[[Classification], None] = unheard, seconds: float | None = None
    ) -> Classification:
        self.asked.append(alert)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Early):
            early(answer.verdict)
            await answer.release.wait()
            answer = answer.then
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await self.release.wait()
            return verdict()
        return answer


class Observer:
    """Keeps what the pipeline and the verdicts count; a bug fails the test unless it is expected."""

    def __init__(self) -> None:
        self.unread_because: list[str] = []
        self.faults: list[str] = []
        self.expects_faults = False
        self.outcomes: list[str] = []
        self.waits: list[float] = []
        self.looked: Counter[str] = Counter()
        self.verdicts: Counter[tuple[str, str]] = Counter()

    def unread(self, reason: str) -> None:
        self.unread_because.append(reason)

    def alert(self, added: str) -> None:
        pass

    def fault(self, stage: str) -> None:
        if not self.expects_faults:
            pytest.fail(stage)
        self.faults.append(stage)

    def asked(self, outcome: str, seconds: float) -> None:
        self.outcomes.append(outcome)

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def looked_up(self, tier: str, n: int) -> None:
        self.looked[tier] += n

    def verdict(self, source: str, reason: str) -> None:
        self.verdicts[source, reason] += 1


@dataclass
class Received:
    """One request as its bytes came in."""

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines if line)]

    def header(self, name: str) -> str | None:
        return next((value for given, value in self.headers if given.lower() == name.lower()), None)

    @property
    def alerts(self) -> Any:
        return json.loads(self.body)


OK = b"HTTP/1.1 200 OK\r\nVary: Origin\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
NO_ALERTS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"


def answer(status: str, content: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


@dataclass
class FakeAlertmanager:
    """A server on loopback that keeps every byte it gets, and answers what the test says.

    `respond` gets a request and returns the bytes of the answer, or what is to be awaited for them; b"" closes the
    connection without one, None never answers. What the proxy asks on its own account, GET of alerts and status, is
    answered from `held` and `peers`, and not recorded.
    """

    respond: Callable[[Received], bytes | Awaitable[bytes | None] | None] = lambda _: OK
    held: list[dict[str, Any]] | bytes = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    silent: bool = False
    """Whether the proxy's own questions stay without an answer."""
    peers: int = 0
    """How many Alertmanagers it sees in its cluster, itself among them; 0: it does not cluster."""
    up: float = 3600
    """Seconds since its start, as it says."""
    _server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> list[Received]:
        return [request for request in self.received if request.line.startswith("POST")]

    async def start(self) -> None:
        self._server = await Server.start(self._serve, port=self.port)
        self.port = self._server.port

    async def stop(self) -> None:
        """Close the port and every connection, as a process that is killed."""
        assert self._server is not None
        await self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                request = await self._read(reader)
                asked = request.line.split()[1] if request.line.startswith("GET ") else ""
                if asked.endswith("/api/v2/alerts"):
                    reply: bytes | None = self._list()
                elif asked.endswith("/api/v2/status"):
                    reply = None if self.silent else self._status()
                else:
                    self.received.append(request)
                    given = self.respond(request)
                    reply = await given if isinstance(given, Awaitable) else given
                if reply is None:
                    await asyncio.Event().wait()
                if not reply:
                    return
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _status(self) -> bytes:
        peers = [{"name": str(n), "address": f"127.0.0.1:{9000 + n}"} for n in range(self.peers)]
        cluster = {"status": "ready" if peers else "disabled", "peers": peers}
        content = {"cluster": cluster, "uptime": stamp(-self.up), "versionInfo": {}, "config": {"original": ""}}
        return answer("200 OK", json.dumps(content).encode(), Content_Type="application/json")

    def _list(self) -> bytes | None:
        if self.silent:
            return None
        if isinstance(self.held, bytes):
            return self.held
        return answer("200 OK", json.dumps(self.held).encode(), Content_Type="application/json")

    async def _read(self, reader: asyncio.StreamReader) -> Received:
        head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
        request = Received(head, b"")
        if length := request.header("Content-Length"):
            request.body = await reader.readexactly(int(length))
        elif request.header("Transfer-Encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                request.body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        return request


@asynccontextmanager
async def fake_alertmanager(**options: Any) -> AsyncIterator[FakeAlertmanager]:
    server = FakeAlertmanager(**options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def settings(alertmanager: str, **flags: str | list[str]) -> Settings:
    """Settings for a proxy on free ports of loopback; `enrichment__mode="enriched"` is `enrichment.mode`."""
    given = {
        "web.listen_address": ["127.0.0.1:0"],
        "web.admin_listen_address": ["127.0.0.1:0"],
        "alertmanager.url": [alertmanager],
        "store.url": ["memory:"],
        "storage.path": ["/dev/null"],  # where nothing can be written
        **{name.replace("__", "."): [value] if isinstance(value, str) else value for name, value in flags.items()},
    }
    return config.load(environ={}, flags=given).settings


async def exchange(port: int, request: bytes, *, half_close: bool = False) -> bytes:
    """Send raw bytes and return everything that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    if half_close:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def post(
    content: bytes, path: str = "/api/v2/alerts", *, close: bool = True, content_type: str = "application/json"
) -> bytes:
    """A POST as Prometheus sends it."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: alerts.example:19093",
        "User-Agent: Prometheus/2.42.0+ds",
        f"Content-Length: {len(content)}",
        f"Content-Type: {content_type}",
        *(["Connection: close"] if close else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


def status_of(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])
