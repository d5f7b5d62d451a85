"""The operator's choices: closed sets that settings, the admin API and metrics share."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """What the proxy does with alerts that it has not seen yet."""

    TRANSPARENT = "transparent"
    ENRICHED = "enriched"
    TRANSPARENT_WITH_RECOMMENDATIONS = "transparent_with_recommendations"

    @property
    def number(self) -> int:
        """The value of the metric `aiproxy_mode`."""
        return list(Mode).index(self)


class SeverityFloor(StrEnum):
    """How far a model may lower what the author of an alert said. Raising is always allowed."""

    OFF = "off"
    CRITICAL = "critical"
    AUTHOR = "author"


class MinConfidence(StrEnum):
    """How sure a model must be of itself before its labels are taken."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class CanaryBy(StrEnum):
    """What is drawn when a share of the alerts takes part: all alerts of a name together, or each by itself."""

    ALERTNAME = "alertname"
    IDENTITY = "identity"


PER_OBJECT: Final = (
    "ceph_daemon", "container", "container_id", "database", "datname", "device", "endpoint", "host", "host_ip",
    "hostname", "id", "instance", "interface", "ip", "mountpoint", "name", "node", "nodename", "path",
    "persistentvolumeclaim", "pod", "pod_ip", "pod_name", "queue", "topic", "uid",
)  # fmt: skip
"""Labels that tell one object from the next of its kind, and say nothing about what the alert means."""
