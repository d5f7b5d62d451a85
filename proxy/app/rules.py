"""The rules of the settings' choice, and their change while alerts are classified."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from proxy.alert import Alert, LabelSet
from proxy.classification.classification import Classification, Severity
from proxy.classification.rules import Rules
from proxy.config import Settings

log = structlog.get_logger(__name__)


def chosen_rules(settings: Settings) -> Rules:
    """Return the operator's table with the shipped one behind it, or the shipped one. Raises ConfigError."""
    return Rules.with_own(settings.rules.file) if settings.rules.file else Rules.shipped()


class CurrentRules:
    """The rules that hold now. What is decided of an alert stays when they change."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    @property
    def hash(self) -> str:
        return self.rules.hash

    def classify(self, alert: Alert) -> Classification:
        return self.rules.classify(alert)

    def author_severity(self, alert: Alert) -> Severity | None:
        return self.rules.author_severity(alert)

    def overridden(self, alert: Alert, verdict: Classification) -> Classification:
        return self.rules.overridden(alert, verdict)

    def explained(self, labels: LabelSet) -> dict[str, Any]:
        """Return what the rules say of these labels now, and which rule, file and line says it, as a JSON object.

        What was decided of an alert that fires may come from another table, from a model, or from another proxy.
        """
        alert = Alert(labels)
        verdict, why = self.rules.classify(alert), self.rules.explain(alert)
        return {
            "hash": self.rules.hash,
            "severity": {"is": verdict.severity.value, "by": why.severity.by, "at": why.severity.at},
            "category": {"is": verdict.category.value, "by": why.category.by, "at": why.category.at},
        }

    def use(self, rules: Rules) -> None:
        """Go by other rules from now on."""
        if rules.hash != self.rules.hash:
            log.info("other rules decide on new alerts", former=self.rules.hash, rules=rules.hash)
        self.rules = rules


async def read_rules(settings: Settings) -> Rules:
    """Return the chosen rules; the loop goes on meanwhile, for a large table takes a while. Raises ConfigError."""
    return await asyncio.to_thread(chosen_rules, settings)
