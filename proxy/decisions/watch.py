"""What only Alertmanager can tell: how many of it there are, and whether an alert has two identities there."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog

from proxy.alert import Alert, Identity, LabelSet, identity
from proxy.decisions.decision import Names
from proxy.errors import UpstreamError

log = structlog.get_logger(__name__)

EVERY: Final = 60.0
SOON: Final = 2.0
"""Seconds until Alertmanager is asked again that has not answered yet."""
SETTLED: Final = 60.0
"""Seconds after which an Alertmanager that sees nobody beside itself is alone: a cluster finds itself in less."""
GONE: Final = 600.0
"""Seconds after which a peer that Alertmanager lost is not waited for any more."""
SHARE: Final = 100
"""Reading all alerts takes at most one part in so many of the time."""
BREATH: Final = 256


@dataclass(frozen=True, slots=True)
class HeldAlert:
    """An alert as Alertmanager lists it: active, silenced or inhibited."""

    alert: Alert
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Cluster:
    """What an Alertmanager says of its cluster."""

    peers: int
    """Itself among them; 0 when it does not cluster."""
    up: float
    """Seconds since it started."""


class Alertmanager(Protocol):
    """Alertmanager, asked on our own account. Raises UpstreamError with a text for the operator."""

    async def alerts(self) -> Sequence[HeldAlert]:
        """Return all alerts it holds."""
        ...

    async def cluster(self) -> Cluster:
        """Return what it knows of others beside it."""
        ...


class Watch:
    """Asks once a minute. Behind several Alertmanagers are several proxies, unless the settings say otherwise."""

    def __init__(
        self,
        alertmanager: Alertmanager,
        names: Names,
        *,
        replicas: int | None,
        shared: bool = False,
        sends_to: Callable[[], int] = lambda: 1,
        monotonic: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        """`replicas`: how many proxies there are; None: as Alertmanager's peers suggest. `shared`: they have one store.
        `sends_to`: the most Alertmanagers that this proxy has sent alerts to: they need no other proxy."""
        self._alertmanager = alertmanager
        self._names = names
        self._replicas = replicas
        self._shared = shared
        self._sends_to = sends_to
        self._monotonic = monotonic
        self._every = every
        self._alone_since: float | None = None
        self._several: bool | None = None
        self._now_peers = 0
        self._fewer_since: float | None = None
        self._certain = 0
        self._more_since: float | None = None
        self.peers: int | None = None
        """The most peers that Alertmanager ever named, itself among them; None: it has not answered yet."""
        self.conflicts = 0
        """Alerts that Alertmanager held in more than one variant when it was read last."""

    @property
    def several(self) -> bool:
        """Whether other proxies may decide about the same alerts; assumed until the contrary is certain."""
        if self._replicas is not None:
            return self._replicas > 1
        return self._several is not False

    @property
    def expected(self) -> int:
        """How many proxies there should be: one for each Alertmanager of late, unless the settings say otherwise."""
        return self._replicas if self._replicas is not None else self._proxies(min(self._now_peers, self._certain))

    @property
    def suggested(self) -> int:
        """How many proxies the most peers suggest that Alertmanager ever had for certain."""
        return self._proxies(self._certain)

    def _proxies(self, peers: int) -> int:
        """One for each Alertmanager that is not this one's: those it sends to are all its own."""
        return max(0, peers - self._sends_to()) + 1

    @property
    def why_several(self) -> str:
        """What to tell people about `several`."""
        if self._replicas is not None:
            return f"there are {self._replicas} proxies"
        if self._several:
            beside = f" and this proxy sends to {ours} of them" if (ours := self._sends_to()) > 1 else ""
            return f"Alertmanager has {self._certain} peers{beside}, so there are several proxies"
        return "it is not known yet whether Alertmanager has peers; alertmanager.replicas: 1 says that it has none"

    async def look(self) -> None:
        """Ask how many Alertmanagers there are; whoever gives no answer changes nothing."""
        try:
            cluster = await self._alertmanager.cluster()
        except UpstreamError as exc:
            log.debug("cannot read Alertmanager's status", error=str(exc))
            return
        self._count_peers(cluster.peers)
        self.peers = max(self.peers or 0, cluster.peers)
        self._ascertain(cluster.peers)
        if self.suggested > 1:
            if not self._several:
                self._tell()
            self._several = True
        elif cluster.peers == 0:
            self._several = False
        elif cluster.peers <= self._sends_to():
            if self._alone_since is None:
                self._alone_since = self._monotonic()
            if max(cluster.up, self._monotonic() - self._alone_since) >= SETTLED:
                self._several = False

    def _count_peers(self, peers: int) -> None:
        """A peer that is gone may live on, cut off together with its proxy."""
        if peers >= self._now_peers:
            self._now_peers, self._fewer_since = peers, None
        elif self._fewer_since is None:
            self._fewer_since = self._monotonic()
        elif self._monotonic() - self._fewer_since >= GONE:
            self._now_peers, self._fewer_since = peers, None

    def _ascertain(self, peers: int) -> None:
        """Where several are this proxy's own, one that was killed and is back is named twice for a while."""
        if 1 < self._sends_to() < peers and peers > self._certain:
            if self._more_since is None:
                self._more_since = self._monotonic()
            if self._monotonic() - self._more_since >= SETTLED:
                self._certain = peers
        else:
            self._more_since = None
            self._certain = max(self._certain, peers)

    def _tell(self) -> None:
        if self._shared:
            log.info("Alertmanager has peers: their proxies are expected in the shared store", peers=self.peers)
        elif self._replicas is None:
            log.warning(
                "Alertmanager has peers, so there are several proxies, and this one's store is not shared: all labels"
                " are the rules', whatever the model says; see store.url",
                peers=self.peers,
            )

    async def run(self) -> None:
        """Look on; the owner cancels it."""
        read_next = self._monotonic() + self._every
        while True:
            await asyncio.sleep(self._every if self._several is not None else min(SOON, self._every))
            try:
                await self.look()
                if self._monotonic() >= read_next:
                    begun = self._monotonic()
                    await self._count()
                    ended = self._monotonic()
                    read_next = ended + max(self._every / 2, SHARE * (ended - begun))
            except UpstreamError as exc:
                log.debug("cannot read Alertmanager's alerts", error=str(exc))
            except Exception:
                log.exception("a bug: watching Alertmanager failed")

    async def _count(self) -> None:
        variants: defaultdict[Identity, set[frozenset[tuple[str, str]]]] = defaultdict(set)
        for n, held in enumerate(await self._alertmanager.alerts(), 1):
            original, ours, _ = self._names.recognise(held.alert.labels, held.alert.annotations)
            variants[identity(original)].add(_pairs(ours))
            if n % BREATH == 0:
                await asyncio.sleep(0)
        was, self.conflicts = self.conflicts, sum(len(several) > 1 for several in variants.values())
        if self.conflicts and not was:
            log.warning("Alertmanager holds alerts with and without, or with two sets of our labels", n=self.conflicts)


def _pairs(labels: LabelSet) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())
