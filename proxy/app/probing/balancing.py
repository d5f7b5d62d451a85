"""Whether one Alertmanager is behind the address, and always the same one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from proxy.app.probing.findings import Finding, Level
from proxy.app.probing.upstream import Status, Upstream
from proxy.errors import UpstreamError

CHECK: Final = "load balancer"
CONNECTIONS: Final = 12
"""Fresh ones. Of two Alertmanagers behind a fair balancer, one of 2,000 times a single one answers all."""
_AT_ONCE: Final = 4
"""Alertmanager answers 8 GETs at once at least, and others ask as well."""
_ADDRESSES: Final = 8
_ADVICE: Final = (
    "each gets some of the alerts only, and they notify as if the rest were over; run one proxy for each Alertmanager, "
    "with the address of that one alone in alertmanager.url"
)
_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)

Ask = tuple[str | None, Status | None]
"""The address that was asked, and what answered; None: nothing did."""


async def balanced(upstream: Upstream) -> AsyncIterator[Finding]:
    """Ask over many connections, and each of the name's addresses, who answers."""
    host, port = upstream.url.host or "", upstream.url.port or 80
    try:
        addresses = list(await upstream.resolve(host, port))[:_ADDRESSES]
    except (OSError, UnicodeError) as exc:
        why = getattr(exc, "strerror", None) or exc
        yield Finding(CHECK, Level.WARNING, f"the addresses of {host} are not known: {why}")
        return
    asked = await _ask(upstream, [None] if len(addresses) < 2 else addresses)
    findings = list(_assessed(host, addresses, asked, upstream.status))
    for finding in findings:
        yield finding
    if not findings:
        yield Finding(CHECK, Level.OK, f"{len(asked)} connections were answered by one and the same Alertmanager")


def _assessed(host: str, addresses: Sequence[str], asked: Sequence[Ask], first: Status | None) -> Iterator[Finding]:
    """Yield what is wrong with those who answered when they were `asked`; `first` is who answered before."""
    found = [status for _, status in asked if status is not None]
    if not found:
        yield Finding(CHECK, Level.WARNING, "not known: nothing has answered when it was asked again")
        return
    everybody = found if first is None else [first, *found]
    if len({status.instance for status in everybody}) > 1:
        yield _several(host, addresses, asked, everybody)
    silent = set(addresses) - {address for address, status in asked if status is not None}
    if len(addresses) > 1 and silent:
        for address in sorted(silent):
            # A name often has an address of the other family that nobody listens on, as localhost has.
            if any((":" in address) is (":" in other) for other in set(addresses) - silent):
                yield Finding(
                    CHECK,
                    Level.WARNING,
                    f"{host} has {len(addresses)} addresses, and {address} does not answer: POSTs that go there fail; "
                    "remove it, or name one Alertmanager in alertmanager.url",
                )
    elif len(found) < len(asked):
        yield Finding(
            CHECK,
            Level.WARNING,
            f"{len(asked) - len(found)} of {len(asked)} connections had no answer of an Alertmanager: POSTs would fail "
            "as often, and Prometheus sends none again before its next turn; look at what is in between",
        )


def _several(host: str, addresses: Sequence[str], asked: Sequence[Ask], everybody: Sequence[Status]) -> Finding:
    instances = {status.instance: status for status in everybody}
    first, *others = instances.values()
    if len(others) == 1 and _began(others[0]) >= first.shown_at:
        return Finding(CHECK, Level.WARNING, "Alertmanager has started anew while it was asked; ask again")
    names = ", ".join(sorted(f"{one.name or 'no cluster'}, up since {one.uptime}" for one in instances.values()))
    by_address = [{status.instance for at, status in asked if at == one and status is not None} for one in addresses]
    if len(addresses) > 1 and all(len(one) < 2 for one in by_address):
        what = f"{host} has {len(addresses)} addresses, of {len(instances)} Alertmanagers ({names})"
    else:
        what = f"{len(asked)} connections were answered by {len(instances)} Alertmanagers ({names}): a load balancer"
        what += " is in between"
    return Finding(CHECK, Level.ERROR, f"{what}; {_ADVICE}")


def _began(status: Status) -> datetime:
    try:
        return datetime.fromisoformat(status.uptime).astimezone(UTC)
    except (ValueError, OverflowError):
        return _LONG_AGO


async def _ask(upstream: Upstream, addresses: Sequence[str | None]) -> list[Ask]:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def ask(address: str | None) -> Ask:
        async with turn:
            try:
                return address, await upstream.ask_status(address=address)
            except UpstreamError:
                return address, None

    each = max(2, CONNECTIONS // len(addresses))
    return list(await asyncio.gather(*(ask(address) for address in addresses for _ in range(each))))
