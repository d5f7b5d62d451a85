"""The two listeners' servers: their limits, and the doors that their files describe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy.app.sockets import HEADER_LIMIT
from proxy.config import Settings
from proxy.errors import ConfigError
from proxy.gateway.access import Watched
from proxy.gateway.connections import BoundedAppRunner, BoundedServer, Handler, Limits
from proxy.gateway.data_connections import DataServer
from proxy.gateway.doors import Door, DoorState
from proxy.gateway.handshakes import Handshake
from proxy.gateway.server_tls import server_context
from proxy.gateway.web_config import WebConfig, read
from proxy.telemetry import Metrics


def chosen_doors(
    settings: Settings, token: Callable[[], str] = lambda: "", on_read: Callable[[str, bool], None] = lambda *_: None
) -> dict[str, Door]:
    """Return the doors of the listeners that have a web config file, by the listener's name.

    `token` opens the admin listener's in a user's place. `on_read` hears a listener's name when a file of its door was
    read again, and whether it could be used. Raises ConfigError when one cannot be.
    """
    doors: dict[str, Door] = {}
    if (file := settings.web.config.file) is not None:
        guards = settings.alertmanager.has_credentials and not (
            settings.web.listen_address.is_loopback or settings.web.allow_anonymous
        )
        doors["data"] = Door(_watched(file, partial(on_read, "data"), guards=guards))
    if (file := settings.web.admin_config.file) is not None:
        doors["admin"] = Door(_watched(file, partial(on_read, "admin"), guards=False), token)
    return doors


def data_runner(handler: Handler, settings: Settings, metrics: Metrics, door: Door | None) -> web.BaseRunner:
    """Return what runs the data listener."""
    server = _bounded(
        DataServer,
        settings,
        metrics,
        "data",
        handler,
        door,
        auto_decompress=False,
        max_line_size=HEADER_LIMIT,
        max_field_size=HEADER_LIMIT,
    )
    return web.ServerRunner(server, shutdown_timeout=1)


def admin_runner(app: web.Application, settings: Settings, metrics: Metrics, door: Door | None) -> web.BaseRunner:
    """Return what runs the admin listener."""
    return BoundedAppRunner(
        app,
        lambda handler, factory: _bounded(
            BoundedServer, settings, metrics, "admin", handler, door, request_factory=factory
        ),
        shutdown_timeout=1,
    )


def _bounded(
    kind: type[BoundedServer],
    settings: Settings,
    metrics: Metrics,
    name: str,
    handler: Handler,
    door: Door | None,
    **options: Any,
) -> BoundedServer:
    """Return the server of the listener `name`, within the limits of the settings and behind its door."""
    limits = Limits(
        header_timeout=settings.web.header_timeout.total_seconds(),
        body_timeout=settings.web.body_timeout.total_seconds(),
        idle_timeout=settings.web.idle_timeout.total_seconds(),
        max_connections=settings.web.max_connections,
    )
    if door is not None:
        handler = door.before(handler)
        if door.speaks_tls:
            options["before"] = partial(Handshake, lambda: door.state)
    server = kind(handler, limits, name=name, on_cut=partial(metrics.cut, name), **options)
    metrics.connections.labels(name).set_function(lambda: server.open)
    return server


def _watched(file: Path, on_read: Callable[[bool], None], *, guards: bool) -> Callable[[], DoorState]:
    """Return what gives the state of the door that `file` describes. Raises ConfigError.

    One that `guards` the credentials for Alertmanager must let in nobody unknown.
    """
    named: tuple[Path, ...] = ()
    before: WebConfig | None = None

    def make() -> DoorState:
        """Raises ValueError, which says what is wrong with the file or one that it names."""
        nonlocal named, before
        try:
            config = read(file)
        except ConfigError as exc:
            raise ValueError("; ".join(exc.problems)) from None
        named = config.tls.files if config.tls else ()  # also if they cannot be used: they may be mended
        if before and (before.tls is None) != (config.tls is None):
            raise ValueError(f"{file}: whether TLS is spoken can change with a restart alone")
        # A file that is just being written, and empty so far, would let everybody in.
        if before and (no_more := before.asks_for - config.asks_for):
            raise ValueError(f"{file}: {' and '.join(sorted(no_more))} can be taken back with a restart alone")
        if guards and not config.asks_for:
            raise ValueError(
                f"{file}: whoever reaches web.listen_address could use the proxy's credentials for Alertmanager; want "
                "basic_auth_users or client_auth_type: RequireAndVerifyClientCert, or web.allow_anonymous where the "
                "network keeps others out"
            )
        try:
            state = DoorState(config, server_context(config.tls) if config.tls else None)
        except ValueError as exc:
            raise ValueError(f"{file}: {exc}") from None
        before = config
        return state

    try:
        watched = Watched(lambda: (file, *named), make, on_read=on_read)
    except ValueError as exc:
        raise ConfigError([str(exc)]) from exc
    on_read(True)
    return lambda: watched.current
