"""A verdict on an alert: closed sets for what routing reads, bounded text for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How urgent it is, most urgent first."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"
    NOISE = "noise"

    @property
    def rank(self) -> int:
        """0 for the most urgent."""
        return list(Severity).index(self)


class Category(StrEnum):
    """What kind of trouble it is."""

    AVAILABILITY = "availability"
    CAPACITY = "capacity"
    PERFORMANCE = "performance"
    ERRORS = "errors"
    NETWORK = "network"
    STORAGE = "storage"
    SECURITY = "security"
    CONFIGURATION = "configuration"
    OTHER = "other"


class Confidence(StrEnum):
    """How sure it is, least sure first."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 for the least sure."""
        return list(Confidence).index(self)


class Source(StrEnum):
    """Who gave the verdict: the model just now, an earlier answer of the model, or the rules."""

    LLM = "llm"
    CACHE = "cache"
    RULES = "rules"


SUMMARY_LENGTH = 160
RECOMMENDATION_LENGTH = 120
RECOMMENDATIONS = 3


@dataclass(frozen=True, slots=True)
class Classification:
    """One verdict. Text is bounded here, so that no adapter can put a novel on somebody's page."""

    severity: Severity
    category: Category
    confidence: Confidence
    source: Source
    summary: str = ""
    """At most SUMMARY_LENGTH characters; empty when there is none."""
    recommendations: tuple[str, ...] = ()
    """At most RECOMMENDATIONS, each at most RECOMMENDATION_LENGTH characters."""
    runbook: str = ""
    """A URL from the operator's table of rules; a model gives none."""
    model: str = ""
    """Who wrote the text; empty for the rules."""
    rule: str = ""
    """The rule that matched; empty for a model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", _bounded(self.summary, SUMMARY_LENGTH))
        texts = tuple(_bounded(r, RECOMMENDATION_LENGTH) for r in self.recommendations)
        object.__setattr__(self, "recommendations", tuple(t for t in texts if t)[:RECOMMENDATIONS])


def _bounded(text: str, length: int) -> str:
    """Return `text` on one line, without control characters and at most `length` characters long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
