"""The admin API: what operators, probes and Prometheus ask of the proxy itself."""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from yarl import URL

from proxy.errors import StoreError, SwitchRefused
from proxy.policy import Mode

OPEN: Final = frozenset({"/-/healthy", "/-/ready", "/metrics"})
"""Paths that need no token: probes and scrapers have none."""


class ModeSwitch(Protocol):
    """Changes the mode. Raises StoreError when that cannot be kept, and SwitchRefused with the reason."""

    @property
    def source(self) -> str: ...

    async def to(self, mode: Mode | None, *, by: str = "", origin: str = "") -> None: ...


class CurrentMode(Protocol):
    """The mode that holds."""

    @property
    def mode(self) -> Mode: ...


def admin_api(
    *,
    registry: CollectorRegistry,
    current: CurrentMode,
    switch: ModeSwitch,
    ready: Callable[[], bool],
    status: Callable[[], Mapping[str, Any]],
    token: str,
    loopback: bool,
) -> web.Application:
    """Return the admin listener's application.

    `status` gives a JSON object. Everything but OPEN needs `token` as a bearer token where there is one. With an empty
    `token` it is open on a `loopback` listener, and closed to everybody on any other.
    """
    api = _Api(registry, current, switch, ready, status)
    app = web.Application(middlewares=[_guard(token, loopback)])
    app.router.add_get("/-/healthy", api.healthy)
    app.router.add_get("/-/ready", api.ready)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/enrichment/mode", api.get_mode)
    app.router.add_post("/enrichment/mode", api.post_mode)
    app.router.add_get("/api/v1/status", api.status)
    return app


class _Api:
    def __init__(
        self,
        registry: CollectorRegistry,
        current: CurrentMode,
        switch: ModeSwitch,
        ready: Callable[[], bool],
        status: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._registry = registry
        self._current = current
        self._switch = switch
        self._ready = ready
        self._status = status

    async def healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="OK\n")

    async def ready(self, _: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="OK\n")
        return web.Response(status=503, text="not ready: starting or shutting down\n")

    async def metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def status(self, _: web.Request) -> web.Response:
        return web.json_response(dict(self._status()))

    async def get_mode(self, _: web.Request) -> web.Response:
        return web.json_response({"mode": self._current.mode.value, "source": self._switch.source})

    async def post_mode(self, request: web.Request) -> web.Response:
        try:
            mode = _mode(await request.read())
        except ValueError as exc:
            return _error(400, str(exc))
        try:
            await self._switch.to(mode, origin=request.remote or "unknown")
        except SwitchRefused as exc:
            return _error(409, str(exc))
        except StoreError as exc:
            return _error(503, f"the mode was not changed, because it could not be kept: {exc}")
        return await self.get_mode(request)


def _mode(body: bytes) -> Mode:
    known = ", ".join(mode.value for mode in Mode)
    try:
        wanted = json.loads(body)["mode"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise ValueError(f'want a JSON object such as {{"mode": "enriched"}}; modes are {known}') from None
    try:
        return Mode(wanted)
    except ValueError:
        raise ValueError(f"unknown mode {wanted!r}; modes are {known}") from None


def _guard(token: str, loopback: bool) -> Any:
    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        if token and not _bears(request, token):
            return _error(401, "want the header Authorization: Bearer <web.admin_token>")
        if not token and not loopback:
            return _error(403, "closed: set web.admin_token or web.admin_token_file, or listen on 127.0.0.1")
        if not token and not _names_loopback(request.host):
            # A page on some other site may resolve its own name to this address (DNS rebinding).
            return _error(403, f"the Host header {request.host!r} does not name this machine")
        if request.method not in {"GET", "HEAD"} and _cross_origin(request):
            return _error(403, "refused: the request comes from a page of another origin")
        return await handler(request)

    return guard


def _bears(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    key = given.strip().encode(errors="surrogateescape")
    return scheme.lower() == "bearer" and hmac.compare_digest(key, token.encode())


def _cross_origin(request: web.Request) -> bool:
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return True
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != request.host


def _names_loopback(host: str) -> bool:
    try:
        name = URL.build(scheme="http", authority=host).host or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _error(status: int, text: str) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return web.json_response({"error": text}, status=status, headers=headers)
