"""`check-config --probe`: asks what a proxy with these settings would depend on, and changes nothing.

Each check is a function that yields findings. Those that do not need each other run at the same time; one that fails,
or is late, says so and hides none of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from yarl import URL

from proxy.app.access import chosen_access
from proxy.app.probing.added_labels import AddedLabels
from proxy.app.probing.balancing import CHECK as BALANCER
from proxy.app.probing.balancing import balanced
from proxy.app.probing.clustering import CHECK as CLUSTER
from proxy.app.probing.clustering import Expected, clustered
from proxy.app.probing.doubles import CHECK as DOUBLES
from proxy.app.probing.doubles import doubled
from proxy.app.probing.findings import Finding, Level, few, finished
from proxy.app.probing.model import CHECK as MODEL
from proxy.app.probing.model import asked_model
from proxy.app.probing.reaching import CHECK as ALERTMANAGER
from proxy.app.probing.reaching import reached
from proxy.app.probing.routes import CHECK as ROUTES
from proxy.app.probing.routes import routed
from proxy.app.probing.running import CHECK as PROXY
from proxy.app.probing.running import InForce, running_proxy
from proxy.app.probing.silences import CHECK as SILENCES
from proxy.app.probing.silences import silenced
from proxy.app.probing.store import CHECK as STORE
from proxy.app.probing.store import stored
from proxy.app.probing.upstream import Resolve, Upstream, resolved
from proxy.config import Settings
from proxy.decisions.decision import Names
from proxy.errors import UpstreamError
from proxy.gateway.access import Access
from proxy.gateway.discovery import WATCHED

__all__ = ["Finding", "Level", "probe"]

DEADLINE: Final = 5.0
"""Seconds for each check."""
MODEL_DEADLINE: Final = 28.0
"""Seconds for the model, whose worker has to load first. The others are through by then."""


async def probe(settings: Settings, *, admin: str | None = None, resolve: Resolve = resolved) -> Sequence[Finding]:
    """Return what all checks have found, in their order; within 30 s.

    `admin` is where a proxy with these settings has its admin listener; `resolve` gives the addresses of a name.
    """
    in_force = InForce(settings.enrichment.mode)
    beside = [
        asyncio.create_task(finished(STORE, stored(settings), DEADLINE), name="probe store"),
        asyncio.create_task(finished(MODEL, asked_model(settings), MODEL_DEADLINE), name="probe model"),
    ]
    try:
        known = asyncio.create_task(
            finished(PROXY, running_proxy(settings, admin, in_force), DEADLINE), name="probe proxy"
        )
        beside.insert(0, known)
        access = chosen_access(settings)
        urls, unknown = await _urls(settings, resolve)
        found = await asyncio.gather(
            *(_alertmanager(url, access, settings, len(urls), in_force, known, resolve) for url in urls)
        )
        others = await asyncio.gather(*beside)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    return [finding for part in (unknown, *found, *others) for finding in part]


async def _urls(settings: Settings, resolve: Resolve) -> tuple[Sequence[URL], Sequence[Finding]]:
    """Return where the Alertmanagers are that the proxy sends to, and what is wrong with names in DNS."""
    urls: list[URL] = []
    findings: list[Finding] = []
    for text in settings.alertmanager.url:
        url = URL(text.removeprefix(WATCHED))
        if not text.startswith(WATCHED):
            urls.append(url)
            continue
        try:
            async with asyncio.timeout(DEADLINE):
                hosts = sorted(await resolve(url.host or "", url.port or 0))
        except (OSError, UnicodeError) as exc:  # a timeout is the former; a name that is none is the latter
            why = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
            findings.append(Finding(ALERTMANAGER, Level.ERROR, f"{text}: the name cannot be looked up: {why}"))
            continue
        urls += [url.with_host(host) for host in hosts]
    return list(dict.fromkeys(urls)), findings


@dataclass(frozen=True, slots=True)
class _Checks:
    """The checks of an Alertmanager that was reached."""

    upstream: Upstream
    settings: Settings
    urls: int
    in_force: InForce

    def all(self) -> Iterator[tuple[str, Callable[[], AsyncIterator[Finding]]]]:
        """Yield each check with its name."""
        yield CLUSTER, self._cluster
        yield BALANCER, lambda: balanced(self.upstream)
        yield DOUBLES, lambda: doubled(self.upstream, self._names)
        yield ROUTES, self._routes
        yield SILENCES, self._silences

    @property
    def _names(self) -> Names:
        given = self.settings.enrichment
        return Names(given.severity_label, given.category_label, given.annotation_prefix, given.former_labels)

    @property
    def _added(self) -> AddedLabels:
        return AddedLabels(self._names, self.in_force.mode)

    async def _cluster(self) -> AsyncIterator[Finding]:
        expected = Expected(self.settings.alertmanager.replicas, self.settings.store.url.startswith("redis"), self.urls)
        if self.upstream.status is not None:
            for finding in clustered(self.upstream.status, expected):
                yield finding

    async def _routes(self) -> AsyncIterator[Finding]:
        if self.upstream.status is not None:
            text, added = self.upstream.status.configuration, self._added
            # In a thread: thousands of routes are work for a second, and others wait for answers meanwhile.
            for finding in await asyncio.to_thread(_all, routed(text, added)):
                yield finding

    async def _silences(self) -> AsyncIterator[Finding]:
        try:
            answer = await self.upstream.get("api/v2/silences")
        except UpstreamError as exc:
            yield Finding(SILENCES, Level.WARNING, f"not known: {exc}")
            return
        if answer.status != 200:
            yield Finding(SILENCES, Level.WARNING, f"not known: GET of the silences is answered {answer.status}")
            return
        for finding in await asyncio.to_thread(_all, silenced(answer.body, self._added)):
            yield finding


def _all(findings: Iterable[Finding]) -> list[Finding]:
    return list(few(findings))


async def _alertmanager(
    url: URL,
    access: Access,
    settings: Settings,
    urls: int,
    in_force: InForce,
    known: asyncio.Task[list[Finding]],
    resolve: Resolve,
) -> list[Finding]:
    """Return what is found at one Alertmanager; `known` ends when it is known what is `in_force`."""
    upstream = Upstream(url, access, resolve)

    def told(findings: Iterable[Finding]) -> list[Finding]:
        return [replace(one, message=f"{url}: {one.message}") if urls > 1 else one for one in findings]

    found = await finished(ALERTMANAGER, reached(upstream), DEADLINE)
    await asyncio.shield(known)
    if upstream.status is None:
        rest = ", ".join((CLUSTER, BALANCER, DOUBLES, ROUTES, SILENCES))
        return told([*found, Finding(ALERTMANAGER, Level.WARNING, f"not looked at therefore: {rest}")])
    checks = _Checks(upstream, settings, urls, in_force)
    parts = await asyncio.gather(*(finished(name, check(), DEADLINE) for name, check in checks.all()))
    return told([*found, *(finding for part in parts for finding in part)])
