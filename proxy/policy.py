"""The operator's choices: closed sets that settings, the admin API and metrics share."""

from __future__ import annotations

from enum import StrEnum


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


class CanaryBy(StrEnum):
    """What is drawn when a share of the alerts takes part: all alerts of a name together, or each by itself."""

    ALERTNAME = "alertname"
    IDENTITY = "identity"
