"""What the proxy sends to: one Alertmanager, or several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from yarl import URL

from proxy.app.access import chosen_access
from proxy.app.sockets import session
from proxy.config import Settings
from proxy.decisions.watch import Alertmanager
from proxy.gateway.alertmanager import AlertmanagerClient
from proxy.gateway.discovery import Discovery, Resolve, addresses
from proxy.gateway.everyone import Everyone
from proxy.gateway.fanout import WAITING, Fanout, Lane
from proxy.gateway.forwarder import Forwarder
from proxy.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The way to Alertmanager."""

    forwarder: Forwarder | Fanout
    own: Alertmanager
    """Asked on our own account."""
    single: Forwarder | None
    """The one there is; None where there are several, or may be."""
    sends_to: Callable[[], int] = lambda: 1
    """The most Alertmanagers that there were at one time."""
    states: Callable[[], list[dict[str, str]]] = list
    """Of several, the URL and the state of each."""
    drained: Callable[[float], Awaitable[None]] | None = None
    """Waits, for so many seconds, for what goes on after its sender was answered."""
    watching: Callable[[], Coroutine[Any, Any, None]] | None = None
    """What keeps looking names up, for the owner to run."""


async def open_upstream(
    settings: Settings,
    stack: AsyncExitStack,
    metrics: Metrics,
    *,
    resolve: Resolve = addresses,
) -> Upstream:
    """Return the way to what `alertmanager.url` names. Raises ConfigError."""
    access = chosen_access(settings, lambda worked: metrics.credentials_read.set(worked))
    timeout = settings.alertmanager.timeout.total_seconds()
    keep_alive = await stack.enter_async_context(session())
    fresh = await stack.enter_async_context(session(keep_alive=False))
    notifications = Notifications(metrics)

    def forwarder(url: URL) -> Forwarder:
        name = notifications.begin(url)
        return Forwarder(keep_alive, fresh, url, timeout, metrics.retried, partial(notifications.sent, name), access)

    def client(url: URL) -> AlertmanagerClient:
        return AlertmanagerClient(keep_alive, url, timeout, access=access)

    urls = settings.alertmanager.url
    if len(urls) == 1 and not urls[0].startswith("dns+"):
        only = forwarder(URL(urls[0]))
        metrics.alertmanagers.set(1)
        return Upstream(forwarder=only, own=client(URL(urls[0])), single=only)

    def lane(url: URL) -> Lane:
        waiting_limit = max(WAITING, settings.web.max_body_size)
        return Lane(forwarder(url), client(url), str(url), notifications, waiting_limit=waiting_limit)

    def gone(lane: Lane) -> None:
        fanout.gone(lane)
        notifications.end(lane.name)

    discovery = Discovery(urls, lane, gone, resolve=resolve)
    fanout = Fanout(lambda: discovery.current, min_success=settings.alertmanager.min_success, timeout=timeout)
    await discovery.look()
    metrics.alertmanagers.set_function(lambda: len(discovery.current))
    return Upstream(
        forwarder=fanout,
        own=Everyone(lambda: discovery.current),
        single=None,
        sends_to=lambda: max(1, discovery.most),
        states=lambda: [{"url": lane.name, "state": lane.state} for lane in discovery.current],
        drained=fanout.drained,
        watching=discovery.run if discovery.watches else None,
    )


class Notifications:
    """Counts POSTs by Alertmanager; the series of one that is gone go with it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._each = (
            metrics.notifications_sent,
            metrics.notifications_errors,
            metrics.notifications_dropped,
            metrics.notifications_latency,
            metrics.notifications_suspended,
        )
        self._there: set[str] = set()

    def begin(self, url: URL) -> str:
        """Count for an Alertmanager from now on, and return its name. Its series begin with 0."""
        name = str(url)
        self._there.add(name)
        for metric in self._each:
            metric.labels(name)
        return name

    def end(self, name: str) -> None:
        """Take away what was counted for one, whatever is still on its way to it."""
        self._there.discard(name)
        for metric in self._each:
            metric.remove(name)

    def sent(self, name: str, worked: bool, seconds: float) -> None:
        if name in self._there:
            self._metrics.notifications_sent.labels(name).inc()
            self._metrics.notifications_latency.labels(name).observe(seconds)
            if not worked:
                self._metrics.notifications_errors.labels(name).inc()

    def dropped(self, alertmanager: str) -> None:
        if alertmanager in self._there:
            self._metrics.notifications_dropped.labels(alertmanager).inc()

    def suspended(self, alertmanager: str, suspended: bool) -> None:
        if alertmanager in self._there:
            self._metrics.notifications_suspended.labels(alertmanager).set(suspended)
