"""A storm of alerts: many objects for each of many alertnames, as Prometheus sends them.

    storm = Storm(alerts=10_000, names=167)
    for content in storm.posts(wave=0): ...   # bodies of 64 alerts each
    for content in storm.posts(wave=1): ...   # the same classes, other objects

Deterministic but for the times. The names and the text are made up.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fakes import body, stamp

BATCH = 64
"""Alerts in one POST: what Prometheus sends at most before 3.0."""
_WHAT = ("Disk", "Queue", "Cache", "Replica", "Gateway", "Ingress", "Volume", "Certificate", "Job", "Broker", "Index")
_HOW = ("Full", "Slow", "Down", "Flapping", "Lagging", "Saturated", "Expiring", "Unreachable")
_SEVERITIES = ("critical", "warning", "info", None)
_OBJECTS = (("pod", "container"), ("instance", "device"), ("node", "mountpoint"), ("instance",), ("pod", "uid"))
"""Labels that tell one object from the next: which ones an alertname has."""


@dataclass(frozen=True)
class Storm:
    """`alerts` of `names` alertnames, each of one class, in an order as that of the objects that fail."""

    alerts: int
    names: int
    seed: int = 1

    def alert(self, n: int, wave: int) -> dict[str, Any]:
        """Return the `n`-th alert."""
        which, thing = n % self.names, n // self.names
        name = f"{_WHAT[which % len(_WHAT)]}{_HOW[which // len(_WHAT) % len(_HOW)]}{which}"
        labels = {"alertname": name, "cluster": "prod", "namespace": f"team-{which % 7}"}
        if severity := _SEVERITIES[which % len(_SEVERITIES)]:
            labels["severity"] = severity
        labels |= {label: f"{label}-{wave}-{thing}" for label in _OBJECTS[which % len(_OBJECTS)]}
        return {
            "annotations": {"summary": f"{name} on {thing}: {n * 7919 % 1000 / 10}%", "runbook": f"docs/{name}.md"},
            "endsAt": stamp(240),
            "startsAt": stamp(1),
            "generatorURL": f"http://prometheus.example:9090/graph?g0.expr=a{which}",
            "labels": labels,
        }

    def posts(self, wave: int = 0) -> Iterator[bytes]:
        """Yield the bodies of one wave. Another wave has other objects, so other alerts, and the same classes."""
        order = list(range(self.alerts))
        random.Random(f"{self.seed} {wave}").shuffle(order)
        for at in range(0, len(order), BATCH):
            yield body(*(self.alert(n, wave) for n in order[at : at + BATCH]))
