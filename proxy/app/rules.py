"""The rules of the settings' choice, and their change while alerts are classified."""

from __future__ import annotations

import asyncio

import structlog

from proxy.alert import Alert
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

    def use(self, rules: Rules) -> None:
        """Go by other rules from now on."""
        if rules.hash != self.rules.hash:
            log.info("other rules decide on new alerts", former=self.rules.hash, rules=rules.hash)
        self.rules = rules


async def read_rules(settings: Settings) -> Rules:
    """Return the chosen rules; the loop goes on meanwhile, for a large table takes a while. Raises ConfigError."""
    return await asyncio.to_thread(chosen_rules, settings)
