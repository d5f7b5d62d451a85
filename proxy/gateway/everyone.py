"""Several Alertmanagers, asked on our own account as if they were one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import structlog

from proxy.alert import Identity
from proxy.decisions.watch import Alertmanager, Cluster, HeldAlert
from proxy.errors import UpstreamError, UpstreamRefused

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Asked(Protocol):
    """One of them."""

    @property
    def name(self) -> str:
        """Its URL."""
        ...

    @property
    def client(self) -> Alertmanager: ...


class Everyone:
    """Asks all of them at the same time. Raises UpstreamError only when none answers."""

    def __init__(self, lanes: Callable[[], Sequence[Asked]]) -> None:
        self._lanes = lanes
        self._silent: frozenset[str] = frozenset()

    async def alerts(self) -> Sequence[HeldAlert]:
        """Return what any of them holds, since one that has just restarted holds nothing yet.

        Of an alert that several hold it is the latest.
        """
        found = await self._ask(lambda one: one.alerts())
        return found[0] if len(found) == 1 else await asyncio.to_thread(_union, found)

    async def cluster(self) -> Cluster:
        """Return what the one says that sees the most peers."""
        return max(await self._ask(lambda one: one.cluster()), key=lambda cluster: (cluster.peers, cluster.up))

    async def _ask(self, question: Callable[[Alertmanager], Awaitable[T]]) -> Sequence[T]:
        lanes = self._lanes()
        if not lanes:
            raise UpstreamError("no Alertmanager is known")
        given = await asyncio.gather(*(question(lane.client) for lane in lanes), return_exceptions=True)
        answers, failed = [], {}
        for lane, one in zip(lanes, given, strict=True):
            if isinstance(one, UpstreamError):
                failed[lane.name] = one
            elif isinstance(one, BaseException):
                raise one
            else:
                answers.append(one)
        if not answers:
            # A refusal first: that one needs a person.
            raise min(failed.values(), key=lambda exc: not isinstance(exc, UpstreamRefused))
        if failed.keys() - self._silent:
            log.warning("some Alertmanagers do not say what they hold", errors="; ".join(map(str, failed.values())))
        self._silent = frozenset(failed)
        return answers


def _union(lists: Sequence[Sequence[HeldAlert]]) -> list[HeldAlert]:
    latest: dict[Identity, HeldAlert] = {}
    for held in (held for each in lists for held in each):
        other = latest.get(held.alert.identity)
        if other is None or held.updated_at > other.updated_at:
            latest[held.alert.identity] = held
    return list(latest.values())
