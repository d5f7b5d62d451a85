"""What `check-config --probe` meets in tests: servers that answer as they are told, and the findings by their check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fakes import answer, stamp
from serving import Server

from proxy import config
from proxy.app.probing import Finding, probe
from proxy.app.probing.upstream import Resolve, resolved

PEER = {"address": "127.0.0.1:9094", "name": "01A"}
ROUTES = "route:\n  receiver: a\nreceivers:\n- name: a\n"


def status(
    version: str = "0.31.0", name: str = "", uptime: str = "2026-11-22T12:00:00.000Z", peers: int = 0, **more: Any
) -> dict[str, Any]:
    """Return what an Alertmanager says of itself."""
    cluster: dict[str, Any] = {"status": "ready" if peers else "disabled", "peers": [PEER] * peers}
    return {
        "cluster": cluster | ({"name": name} if name else {}),
        "uptime": uptime,
        "versionInfo": {"version": version},
        "config": {"original": ROUTES},
    } | more


def told(content: Any, state: str = "200 OK", **headers: str) -> bytes:
    """Return the answer that holds `content`: JSON, or text as it is."""
    if isinstance(content, str):
        return answer(state, content.encode(), **headers)
    return answer(state, json.dumps(content).encode(), Content_Type="application/json", **headers)


@dataclass
class Raw:
    """A server that answers by the path, and keeps what it was asked."""

    respond: Callable[[str], bytes | None]
    port: int = 0
    scheme: str = "http"
    asked: list[str] = field(default_factory=list)
    """Request lines and headers."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            said = self.respond(head.split(" ")[1])
            if said is None:
                await reader.read()  # until the other side gives up
            else:
                writer.write(said)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def raw(
    respond: Callable[[str], bytes | None],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Raw]:
    server = Raw(respond, scheme="https" if tls else "http")
    listening = await Server.start(server.serve, host=host, port=port, tls=tls)
    server.port = listening.port
    try:
        yield server
    finally:
        await listening.close()


def an_alertmanager(said: Callable[[], Any] = status, prefix: str = "", **lists: Any) -> Callable[[str], bytes]:
    """Return how an Alertmanager answers that holds nothing, but for `alerts` and `silences`."""

    def respond(path: str) -> bytes:
        match path.removeprefix(prefix) if path.startswith(prefix) else "":
            case "/api/v2/status":
                return told(said())
            case "/api/v2/alerts":
                return told(lists.get("alerts", []))
            case "/api/v2/silences":
                return told(lists.get("silences", []))
        return told("404 page not found", "404 Not Found")

    return respond


def held(name: str, updated: float = 0, **labels: str) -> dict[str, Any]:
    """An alert as Alertmanager lists it, that somebody sent `updated` seconds from now."""
    return {
        "labels": {"alertname": name, **labels},
        "annotations": {},
        "startsAt": stamp(-3600),
        "endsAt": stamp(240),
        "updatedAt": stamp(updated),
    }


@dataclass(frozen=True)
class Findings:
    all: tuple[Finding, ...]

    def of(self, check: str) -> list[str]:
        """Return what a check found, each with its level: `error: no Alertmanager at …`."""
        return [f"{one.level}: {one.message}" for one in self.all if one.check == check]

    def one(self, check: str) -> str:
        (only,) = self.of(check)
        return only

    @property
    def errors(self) -> list[Finding]:
        return [one for one in self.all if one.level == "error"]

    @property
    def fine(self) -> bool:
        return {one.level.value for one in self.all} == {"ok"}


async def probed(
    url: str,
    *,
    resolve: Resolve = resolved,
    admin: str | None = None,
    environ: Mapping[str, str] = {},
    **flags: Any,
) -> Findings:
    """Return what a probe finds; flags as `enrichment__mode`. Ports are free ones, and the store is memory.

    No secret of `environ` may be in it: all of them are `hunter2`.
    """
    given: dict[str, list[str]] = {
        "alertmanager.url": [url],
        "store.url": ["memory:"],
        "web.listen_address": ["127.0.0.1:0"],
        "web.admin_listen_address": ["127.0.0.1:0"],
    } | {name.replace("__", "."): value if isinstance(value, list) else [str(value)] for name, value in flags.items()}
    settings = config.load(environ={"LLM_API_KEY": "sk-hunter2", **environ}, flags=given).settings
    found = Findings(tuple(await probe(settings, admin=admin, resolve=resolve)))
    assert "hunter2" not in repr(found)
    return found
