"""Whether somebody sends alerts to Alertmanager that do not come through a proxy, beside those that do."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from proxy.alert import Identity, LabelSet, identity
from proxy.app.probing.findings import Finding, Level
from proxy.app.probing.upstream import ASKED_FOR, Upstream
from proxy.decisions.decision import Names
from proxy.decisions.watch import HeldAlert
from proxy.errors import UpstreamError
from proxy.gateway.alertmanager import AlertmanagerClient

CHECK: Final = "double sending"
FRESH: Final = timedelta(minutes=10)
"""Senders repeat what fires every few minutes. What nobody repeats is on its way out, as after a switch."""
_EXAMPLES: Final = 2


async def doubled(upstream: Upstream, names: Names) -> AsyncIterator[Finding]:
    """Look for alerts that Alertmanager holds in more than one variant."""
    async with upstream.session() as session:
        client = AlertmanagerClient(session, upstream.url, ASKED_FOR, access=upstream.access)
        try:
            held = await client.alerts()
        except UpstreamError as exc:
            yield Finding(CHECK, Level.WARNING, f"not known: {exc}")
            return
    for finding in await asyncio.to_thread(lambda: list(variants(held, names, datetime.now(UTC) + upstream.ahead))):
        yield finding


def variants(held: Sequence[HeldAlert], names: Names, now: datetime) -> Iterator[Finding]:
    """Yield what it means that some of `held` are there twice; `now` by Alertmanager's clock."""
    labels: defaultdict[Identity, set[frozenset[tuple[str, str]]]] = defaultdict(set)
    called: dict[Identity, str] = {}
    for one in held:
        if now - one.updated_at > FRESH:
            continue
        original, ours, _ = names.recognise(one.alert.labels, one.alert.annotations)
        key = identity(original)
        labels[key].add(_pairs(ours))
        called.setdefault(key, one.alert.name)
    bare = [called[key] for key, several in labels.items() if len(several) > 1 and frozenset() in several]
    differing = [called[key] for key, several in labels.items() if len(several - {frozenset()}) > 1]
    if bare:
        yield Finding(
            CHECK,
            Level.ERROR,
            f"{_counted(bare)} held with our labels and without them, both sent within {FRESH.seconds // 60} minutes: "
            "somebody sends to Alertmanager directly as well, or through a proxy that does not label, and each of "
            "these alerts notifies twice; have every sender use the proxies alone (additionalAlertManagerConfigs of "
            "the Prometheus operator adds to its own Alertmanager, alertingEndpoints replaces it)",
        )
    if differing:
        yield Finding(
            CHECK,
            Level.ERROR,
            f"{_counted(differing)} held with two sets of our labels: proxies that share no store, or have other "
            "settings, decide on the same alerts; give them one store.url and one configuration",
        )
    if not bare and not differing:
        yield Finding(CHECK, Level.OK, f"of {len(held)} alerts none is held twice")


def _counted(names: Sequence[str]) -> str:
    examples = ", ".join(sorted({name[:60] or "one without an alertname" for name in names})[:_EXAMPLES])
    return f"{len(names)} alert{'s' if len(names) > 1 else ''} ({examples}) {'are' if len(names) > 1 else 'is'}"


def _pairs(labels: LabelSet) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())
