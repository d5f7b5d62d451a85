"""Asking a table: the verdict on an alert, and how it came about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

from proxy.alert import Alert, LabelSet
from proxy.classification.classification import Category, Classification, Confidence, Severity, Source
from proxy.classification.rules.authors import said
from proxy.classification.rules.conditions import Conditions, positions
from proxy.classification.rules.reading import read
from proxy.classification.rules.table import AUTHOR, DEFAULT, OVERRIDE, Override, Table, Text
from proxy.errors import ConfigError

CODE_VERSION = 3
"""Part of Rules.hash. To be raised when the same table may give another verdict than before."""
_REMEMBERED = 4096
_CONFIDENCE = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)
_SHIPPED = "rules.yaml"
_FILE_LENGTH = 1_500_000
"""Bytes of a table. 2,000 rules with all their texts take less."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Who decided."""

    by: str
    """A rule's name, or `author`, `override`, `default`."""
    at: str = ""
    """Where it stands, as in `rules.yaml:41`; for the author the label and its value. Empty for the default."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a verdict is what it is."""

    severity: Reason
    category: Reason


class Rules:
    """Tables ready to be asked, the first before the others. Two of them share nothing; one never changes."""

    def __init__(self, *tables: Table) -> None:
        """Take the tables in their order. Raises ConfigError when they are too large to be asked."""
        self.tables = tables
        self.rules = tuple(rule for table in tables for rule in table.rules)
        first_wins = tables[::-1]
        self._labels = tuple(dict.fromkeys(label for table in tables for label in table.author_labels))
        self._wanted = frozenset(self._labels)
        self._words = {word: severity for table in first_wins for word, severity in table.author_words.items()}
        self._defaults = {category: text for table in first_wins for category, text in table.defaults.items()}
        self._overrides = {name: override for table in first_wins for name, override in table.overrides.items()}
        runbooks = _runbook([*(rule.text for rule in self.rules), *self._defaults.values()])
        self._speaks = bool(self._overrides or runbooks)
        try:
            self._conditions = Conditions(self.rules)
        except ValueError as exc:
            raise ConfigError([f"{tables[0].origin}: {exc}; want fewer or shorter ones"]) from None
        self.hash = self._hash()
        """12 hex digits. Equal ones give equal verdicts; comments and layout of the files do not count."""
        # Verdicts are few and come again, and cleaning texts costs more than all the rest.
        self._verdict = lru_cache(maxsize=_REMEMBERED)(self._put_together)

    @classmethod
    def shipped(cls) -> Rules:
        """Return the table that comes with the product."""
        return _shipped()

    @classmethod
    def parse(cls, text: str, origin: str) -> Rules:
        """Return the table `text` holds. Raises ConfigError with every mistake, each as `origin:line: …`."""
        return cls(read(text, origin))

    @classmethod
    def with_own(cls, path: Path) -> Rules:
        """Return the table of the file, and the shipped one behind it. Raises ConfigError, as `parse` does."""
        try:
            with path.open("rb") as file:
                content = file.read(_FILE_LENGTH + 1)
            text = content.decode("utf-8-sig" if len(content) <= _FILE_LENGTH else "latin-1")
        except OSError as exc:
            raise ConfigError([f"rules.file: cannot read {path}: {exc.strerror}"]) from None
        except ValueError:  # not UTF-8; or a path with a zero byte
            raise ConfigError([f"rules.file: cannot read {path}: it is not text"]) from None
        if len(content) > _FILE_LENGTH:
            raise ConfigError([f"rules.file: {path} has more than {_FILE_LENGTH} bytes, want fewer"])
        return cls(read(text, str(path)), *cls.shipped().tables)

    def classify(self, alert: Alert) -> Classification:
        """Return the verdict on `alert`. Never raises; reads `alert.labels` and nothing else.

        Its source is `rules`; its rule is the one that gave the category, else the severity, else `default`.
        """
        labels = alert.labels
        authored, _ = self._author(labels)
        return self._verdict(authored, alert.name if alert.name in self._overrides else None, self.met(labels))

    def explain(self, alert: Alert) -> Explanation:
        """Return why the verdict of `classify` is what it is."""
        labels = alert.labels
        override = self._overrides.get(alert.name, Override())
        met = [self.rules[n] for n in positions(self.met(labels))]
        authored, label = self._author(labels)
        severity = category = Reason(DEFAULT)
        for rule in reversed(met):
            severity = Reason(rule.name, rule.at) if rule.severity else severity
            category = Reason(rule.name, rule.at) if rule.category else category
        if override.category:
            category = Reason(OVERRIDE, override.at)
        if authored and not override.force:
            severity = Reason(AUTHOR, f"{label}={labels[label]}")
        elif override.severity:
            severity = Reason(OVERRIDE, override.at)
        return Explanation(severity, category)

    def met(self, labels: LabelSet) -> int:
        """Return the rules that `labels` meet, as bits; up to the first that has a category."""
        return self._conditions.met(labels)

    def author_severity(self, alert: Alert) -> Severity | None:
        """Return the severity the author of the alert gave it; None where there is none, or none we know.

        One that an override forces stands in its place.
        """
        override = self._overrides.get(alert.name)
        if override is not None and override.force:
            return override.severity
        return self._author(alert.labels)[0]

    def overridden(self, alert: Alert, verdict: Classification) -> Classification:
        """Return a model's `verdict` with what the operator's table says in its place, and with the runbook."""
        if not self._speaks:
            return verdict
        override = self._overrides.get(alert.name, Override())
        if override.severity and (override.force or self._author(alert.labels)[0] is None):
            verdict = replace(verdict, severity=override.severity)
        category = override.category or verdict.category
        return replace(
            verdict,
            category=category,
            summary=override.text.summary or verdict.summary,
            recommendations=override.text.recommendations or verdict.recommendations,
            runbook=_runbook(self._texts(override, self.met(alert.labels), category)),
        )

    def _texts(self, override: Override, met: int, category: Category) -> list[Text]:
        """Return who says something to people, the first to be heard first."""
        rules = (self.rules[n].text for n in positions(met))
        return [override.text, *rules, self._defaults.get(category, Text())]

    def _author(self, labels: LabelSet) -> tuple[Severity | None, str]:
        """Return the author's severity, and the label that says it."""
        # Sorted, so that of severity and Severity the usual spelling wins on every replica.
        spelled = {name.lower(): name for name in sorted(name for name in labels if name.lower() in self._wanted)}
        for wanted in self._labels:
            name = spelled.get(wanted)
            if name is not None and labels[name]:
                severity = said(labels[name], self._words)
                if severity is not None:
                    return severity, name
        return None, ""

    def _put_together(self, authored: Severity | None, overridden: str | None, met: int) -> Classification:
        override = self._overrides[overridden] if overridden is not None else Override()
        rules = [self.rules[n] for n in positions(met)]
        urgent = next((rule for rule in rules if rule.severity), None)
        about = next((rule for rule in rules if rule.category), None)
        by_author = authored is not None and not override.force
        severity = (
            (authored if by_author else None)
            or override.severity
            or (urgent.severity if urgent else None)
            or Severity.WARNING
        )
        category = override.category or (about.category if about else None) or Category.OTHER
        told = [rule.name for rule in (about, None if by_author else urgent) if rule]
        if override.category or (override.severity and not by_author):
            told.insert(0, OVERRIDE)
        texts = self._texts(override, met, category)
        return Classification(
            severity=severity,
            category=category,
            confidence=_CONFIDENCE[(authored is not None or override.force) + bool(told)],
            source=Source.RULES,
            summary=next((text.summary for text in texts if text.summary), ""),
            recommendations=next((text.recommendations for text in texts if text.recommendations), ()),
            runbook=_runbook(texts),
            rule=next(iter(told), DEFAULT),
        )

    def _hash(self) -> str:
        content = (
            CODE_VERSION,
            self._labels,
            sorted(self._words.items()),
            sorted((category, _content(text)) for category, text in self._defaults.items()),
            [
                (
                    rule.name,
                    [str(matcher) for matcher in rule.match],
                    rule.pattern.text if rule.pattern else None,
                    rule.severity,
                    rule.category,
                    _content(rule.text),
                )
                for rule in self.rules
            ],
            sorted(
                (name, one.severity or "", one.force, one.category or "", _content(one.text))
                for name, one in self._overrides.items()
            ),
        )
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _runbook(texts: Sequence[Text]) -> str:
    return next((text.runbook for text in texts if text.runbook), "")


def _content(text: Text) -> Sequence[object]:
    return text.summary, text.recommendations, text.runbook


@cache  # a constant that happens to stand in a file
def _shipped() -> Rules:
    file = resources.files("proxy.classification").joinpath(_SHIPPED)
    return Rules(read(file.read_text(encoding="utf-8"), _SHIPPED))
