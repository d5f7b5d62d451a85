"""The admin API: what operators, probes and Prometheus ask of the proxy itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from yarl import URL

from proxy.admin.answers import error, refuse_unknown
from proxy.admin.decisions import Decisions
from proxy.admin.modes import CurrentMode, Modes, ModeSwitch
from proxy.alert import LabelSet
from proxy.decisions.canary import Canary
from proxy.decisions.directory import Directory
from proxy.errors import ConfigError
from proxy.gateway.doors import SHOWN, Shown
from proxy.gateway.heads import ADDED
from proxy.gateway.users import bears

OPEN: Final = frozenset({"/-/healthy", "/-/ready", "/metrics"})
"""Paths that need no token: probes and scrapers have none. They may ask with any parameters, too."""
PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {"/api/v1/decisions": ("filter", "limit")}
"""What may be asked for behind the path; nothing where it is not named here."""
MIB: Final = 1024 * 1024


def admin_api(
    *,
    registry: CollectorRegistry,
    current: CurrentMode,
    switch: ModeSwitch,
    canary: Callable[[], Canary],
    directory: Directory,
    explained: Callable[[LabelSet], dict[str, Any]],
    ready: Callable[[], bool],
    status: Callable[[], Mapping[str, Any]],
    reload: Callable[[], Awaitable[None]],
    token: Callable[[], str],
    loopback: bool,
) -> web.Application:
    """Return the admin listener's application.

    `canary` gives what is configured, `explained` what the rules say of labels, and `status` JSON objects; `reload`
    raises ConfigError. Everything but OPEN needs what `token` returns as a bearer token, where there is one, or a
    user's password, which the listener's door asks for. With none it is open on a `loopback` listener, and on any other
    to those who have shown a certificate.
    """
    api = _Api(registry, ready, status, reload)
    modes = Modes(current, switch, canary)
    decisions = Decisions(directory, explained)
    app = web.Application(middlewares=[_guard(token, loopback), _refuse], client_max_size=MIB)
    app.on_response_prepare.append(_add)
    app.router.add_get("/-/healthy", api.healthy)
    app.router.add_get("/-/ready", api.ready)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_post("/-/reload", api.reload)
    app.router.add_get("/enrichment/mode", modes.get)
    app.router.add_post("/enrichment/mode", modes.switch)
    app.router.add_post("/enrichment/mode/reset", modes.reset)
    app.router.add_get("/api/v1/status", api.status)
    app.router.add_get("/api/v1/decisions", decisions.list)
    app.router.add_get("/api/v1/decisions/{fingerprint}", decisions.get)
    app.router.add_post("/api/v1/decisions/forget", decisions.forget)
    return app


class _Api:
    def __init__(
        self,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        status: Callable[[], Mapping[str, Any]],
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._status = status
        self._reload = reload

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

    async def reload(self, _: web.Request) -> web.Response:
        try:
            await self._reload()
        except ConfigError as exc:
            # 500 as Alertmanager answers it: what is wrong is a file here, not the request.
            return error(500, "the configuration cannot be used, the last good one holds: " + "; ".join(exc.problems))
        return web.Response(text="OK\n")


def _guard(current: Callable[[], str], loopback: bool) -> Any:
    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        token, shown = current(), request.get(SHOWN)
        if token and shown is not Shown.PASSWORD and not bears(request, token):
            return error(401, "want the header Authorization: Bearer <web.admin_token>")
        if not (token or shown or loopback):
            return error(403, "closed: set web.admin_token[_file] or web.admin_config.file, or listen on 127.0.0.1")
        if not (token or shown or _names_loopback(request.host)):
            # A page on some other site may resolve its own name to this address (DNS rebinding).
            return error(403, f"the Host header {request.host!r} does not name this machine")
        if request.method not in {"GET", "HEAD"} and _cross_origin(request):
            return error(403, "refused: the request comes from a page of another origin")
        return await handler(request)

    return guard


@web.middleware
async def _refuse(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse in words what no handler takes."""
    resource = request.match_info.route.resource
    if resource and request.path not in OPEN:
        try:
            refuse_unknown(request.query, PARAMETERS.get(resource.canonical, ()), "parameter")
        except ValueError as exc:
            return error(400, str(exc))
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return error(404, f"there is nothing at {request.path}")
    except web.HTTPMethodNotAllowed as exc:
        answer = error(405, f"{request.path} takes {' or '.join(sorted(exc.allowed_methods))}")
        answer.headers["Allow"] = exc.headers["Allow"]
        return answer
    except web.HTTPRequestEntityTooLarge:
        return error(413, "the body is longer than 1 MiB")


async def _add(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that the listener's door adds to every answer."""
    for name, value in request.get(ADDED, {}).items():
        response.headers.setdefault(name, value)


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
