"""How many Alertmanagers there are, how many proxies the settings count on, and whether these share what they know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy.app.probing.findings import Finding, Level
from proxy.app.probing.upstream import Status

CHECK: Final = "cluster"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the settings say of the others."""

    replicas: int
    """`alertmanager.replicas`; 0: auto."""
    shared: bool
    """Whether `store.url` is for several proxies."""
    urls: int
    """Alertmanagers that this proxy sends to."""


def clustered(status: Status, expected: Expected) -> Iterator[Finding]:
    """Compare the peers of an Alertmanager with what the settings expect."""
    wrong = list(_wrong(status, expected))
    yield from wrong
    if not wrong:
        shares = ", and their proxies share a store" if _proxies(status, expected) > 1 else ""
        yield Finding(CHECK, Level.OK, f"{status.state}, {_peers(status.peers)}{shares}")


def _wrong(status: Status, expected: Expected) -> Iterator[Finding]:
    if status.state == "settling":
        yield Finding(
            CHECK,
            Level.WARNING,
            f"the cluster is settling, with {_peers(status.peers)} by now: Alertmanager holds notifications back until "
            "it is ready, and its peers may not be counted yet; ask again in a minute",
        )
    elif status.state not in {"ready", "disabled"}:
        yield Finding(CHECK, Level.WARNING, f"the cluster says that it is {status.state!r}; look into its log")
    if expected.urls > 1:
        yield from mixed(status.peers, expected.urls)
    proxies = _proxies(status, expected)
    compared = expected.replicas if expected.urls == 1 else 0
    if compared and compared < status.peers:
        yield Finding(
            CHECK,
            Level.ERROR,
            f"Alertmanager has {_peers(status.peers)}, and alertmanager.replicas is {expected.replicas}: an "
            "Alertmanager without a proxy of its own gets other labels, or none, and both notify for ever; run one "
            f"proxy for each, with alertmanager.replicas: {status.peers} or auto",
        )
    elif compared > max(1, status.peers):
        yield Finding(
            CHECK,
            Level.WARNING,
            f"alertmanager.replicas is {expected.replicas}, and Alertmanager knows {_peers(status.peers)}: if there is "
            "one Alertmanager for each proxy, they are no cluster, and each of them notifies; check their "
            "--cluster.peer",
        )
    if proxies > 1 and not expected.shared:
        yield Finding(
            CHECK,
            Level.WARNING,
            f"there are {proxies} proxies, and store.url is not shared: all labels are the rules', whatever a model "
            "says, and the mode cannot be switched at run time; set store.url to a redis:// that all of them share",
        )


def _proxies(status: Status, expected: Expected) -> int:
    return expected.replicas or max(1, status.peers if expected.urls == 1 else 1)


def mixed(peers: int, urls: int) -> Iterator[Finding]:
    """Yield what is wrong when a proxy for several Alertmanagers knows `urls` of the `peers` that there are."""
    if peers > urls:
        yield Finding(
            CHECK,
            Level.ERROR,
            f"this proxy sends to {urls} Alertmanagers, and the cluster has {peers}: somebody else sends to the rest, "
            "and labels otherwise. One proxy for each Alertmanager and one proxy for several do not mix: name all of "
            "them in alertmanager.url, or give each its own proxy",
        )


def _peers(n: int) -> str:
    if n == 0:
        return "no cluster"
    return f"{n} peer{'s' if n > 1 else ''}, itself among them"
