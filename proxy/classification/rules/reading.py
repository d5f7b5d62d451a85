"""Reading a table: from YAML to a Table, or to every mistake with its line. The package's docstring has the grammar."""

from __future__ import annotations

import re

import yaml

from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    SUMMARY_LENGTH,
    Category,
    Severity,
)
from proxy.classification.rules.authors import normal
from proxy.classification.rules.conditions import kinds
from proxy.classification.rules.table import (
    AUTHOR,
    COLUMNS,
    DEFAULT,
    EXAMPLES,
    MATCHERS,
    OVERRIDE,
    RULES,
    RUNBOOK_LENGTH,
    SIZE,
    WORD_LENGTH,
    Case,
    Override,
    Rule,
    Table,
    Text,
    is_link,
)
from proxy.classification.rules.weighing import too_heavy
from proxy.errors import ConfigError
from proxy.matchers import PATTERN_MEMORY, Matcher, Pattern
from proxy.yaml_reading import NULL, YamlReader, line, short

_TEXT_KEYS = ("summary", "recommendations", "runbook")
_RULE_KEYS = ("name", "match", "pattern", "severity", "category", *_TEXT_KEYS, "examples")
_OVERRIDE_KEYS = ("severity", "force", "category", *_TEXT_KEYS)
_CASE_KEYS = ("labels", "severity", "category", "rule")
_TABLE_KEYS = ("version", "author_severity", "categories", "rules", "overrides", "tests")
_RESERVED = (AUTHOR, OVERRIDE, DEFAULT)
_RULE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RULE_NAME_LENGTH = 32
_LABELS, _WORDS = 64, 256
"""So many labels a test may have, and words of authors a severity."""
_BOOL = "tag:yaml.org,2002:bool"


def read(text: str, origin: str) -> Table:
    """Return the table `text` holds. Raises ConfigError with every mistake, each as `origin:line: what, what to do`."""
    return _Reader(origin).read(text)


class _Reader(YamlReader):
    def __init__(self, origin: str) -> None:
        super().__init__(origin, SIZE)
        self._expressions: set[str] = set()

    def read(self, text: str) -> Table:
        root = self.compose(text)
        if root is None or root.tag == NULL:
            raise ConfigError([f"{self._origin}:1: empty, want version: 1 and rules:"])
        table = self.mapping(root, _TABLE_KEYS)
        if isinstance(root, yaml.MappingNode) and "version" not in table:
            self.note(root, "version is missing, want version: 1")
        elif "version" in table and getattr(table["version"], "value", None) != "1":
            self.note(table["version"], "unknown version, want version: 1")
        labels, known = self._author(table.get("author_severity"))
        found = Table(
            origin=self._origin,
            author_labels=tuple(labels),
            author_words=known,
            defaults=self._defaults(table.get("categories")),
            rules=tuple(self._rules(table.get("rules"))),
            overrides=self._overrides(table.get("overrides")),
            cases=tuple(self._case(item) for item in self.items(table.get("tests"), RULES, "tests")),
        )
        self._measure(root, found)
        self.finish()
        return found

    def _measure(self, root: yaml.Node, table: Table) -> None:
        """Note what would make a table slow."""
        if self.full:
            return  # said where it happened, and no expression was read since
        if (many := len(kinds(table.rules))) > COLUMNS:
            self.note(
                root,
                f"matchers of {many} kinds (a label and a comparison; two =~ of a rule about one label are two), "
                f"want at most {COLUMNS}",
            )
        for rule, message in too_heavy(table.rules):
            self.note(int(rule.at.rpartition(":")[2]), message)

    def _author(self, node: yaml.Node | None) -> tuple[list[str], dict[str, Severity]]:
        parts = self.mapping(node, ("labels", "words"))
        labels = [label.lower() for label, _ in self.texts(parts.get("labels"), _LABELS, "labels")]
        known: dict[str, Severity] = {}
        for severity, spellings in self.mapping(parts.get("words"), tuple(Severity)).items():
            for text, at in self.texts(spellings, _WORDS, "words"):
                if len(text) > WORD_LENGTH:
                    self.note(at, f"a word of {len(text)} characters, want at most {WORD_LENGTH}")
                elif known.setdefault(normal(text), Severity(severity)) != severity:
                    self.note(at, f"{text} means {known[normal(text)]} already; keep it in one of the two lists")
        return labels, known

    def _rules(self, node: yaml.Node | None) -> list[Rule]:
        rules: list[Rule] = []
        lines: dict[str, int] = {}
        for item in self.items(node, RULES, "rules", "; one pattern may stand for many names: (a|b)"):
            rule = self._rule(item)
            if rule.name in lines:
                stands = f"a rule {short(rule.name)} stands in line {lines[rule.name]} already"
                self.note(item, f"{stands}; give this one its own name")
            if rule.name:
                lines.setdefault(rule.name, line(item))
            rules.append(rule)
        return rules

    def _rule(self, node: yaml.Node) -> Rule:
        row = self.mapping(node, _RULE_KEYS)
        if isinstance(node, yaml.MappingNode):
            if "name" not in row:
                self.note(node, "the rule has no name, want for example name: disk-filling")
            if not row.keys() & {"match", "pattern"}:
                self.note(node, "the rule needs match or pattern, or it would hold for every alert")
            if not row.keys() & {"severity", "category", *_TEXT_KEYS}:
                self.note(node, "the rule says nothing, want a severity, a category, a summary or another text")
        return Rule(
            name=self._name(row.get("name")),
            match=self._matchers(row.get("match")),
            pattern=self._pattern(row.get("pattern")),
            severity=self.choice(row.get("severity"), Severity),
            category=self.choice(row.get("category"), Category),
            text=self._words(row),
            examples=tuple(text for text, _ in self.texts(row.get("examples"), EXAMPLES, "examples")),
            at=self.at(node),
        )

    def _defaults(self, node: yaml.Node | None) -> dict[Category, Text]:
        found = self.mapping(node, tuple(Category))
        return {Category(name): self._words(self.mapping(text, _TEXT_KEYS)) for name, text in found.items()}

    def _overrides(self, node: yaml.Node | None) -> dict[str, Override]:
        found: dict[str, Override] = {}
        for key, value in self.pairs(node, RULES, "overrides", "; rules are for many names at once"):
            name = self.text(key)
            row = self.mapping(value, _OVERRIDE_KEYS)
            if not row.keys() - {"force"}:
                self.note(key, "the override says nothing, want a severity, a category, a summary or another text")
            elif "force" in row and "severity" not in row:
                self.note(row["force"], "force is for a severity, and there is none; give one or leave force out")
            if name in found:
                self.note(key, f"{short(name)} is overridden in {found[name].at} already; keep one")
            if name is not None:
                found[name] = Override(
                    severity=self.choice(row.get("severity"), Severity),
                    force=self._bool(row.get("force")),
                    category=self.choice(row.get("category"), Category),
                    text=self._words(row),
                    at=self.at(key),
                )
        return found

    def _case(self, node: yaml.Node) -> Case:
        row = self.mapping(node, _CASE_KEYS)
        if isinstance(node, yaml.MappingNode):
            if "labels" not in row:
                self.note(node, "the test has no labels, want for example labels: {alertname: DiskFull}")
            if not row.keys() - {"labels"}:
                self.note(node, "the test expects nothing, want a severity, a category or a rule")
        return Case(
            labels=self.texts_by_name(row.get("labels"), _LABELS, "labels"),
            severity=self.choice(row.get("severity"), Severity),
            category=self.choice(row.get("category"), Category),
            rule=self.text(row.get("rule")),
            at=self.at(node),
        )

    def _words(self, row: dict[str, yaml.Node]) -> Text:
        """Return what a row says to people."""
        summary = row.get("summary")
        return Text(
            summary=self.bounded(summary, self.text(summary) or "", "summary", SUMMARY_LENGTH),
            recommendations=self._recommendations(row.get("recommendations")),
            runbook=self._runbook(row.get("runbook")),
        )

    def _runbook(self, node: yaml.Node | None) -> str:
        text = self.text(node) or ""
        if node is not None and text and not is_link(text):
            # Not repeated: a URL may hold a password.
            self.note(
                node,
                "bad runbook, want an http or https URL of at most "
                f"{RUNBOOK_LENGTH} characters without user, password and spaces",
            )
        return text

    def _name(self, node: yaml.Node | None) -> str:
        name = self.text(node)
        if (
            node is not None
            and name is not None
            and not (_RULE_NAME.fullmatch(name) and len(name) <= _RULE_NAME_LENGTH)
        ):
            self.note(
                node,
                f"bad rule name '{short(name)}', want a-z, 0-9 and hyphens, at most {_RULE_NAME_LENGTH} characters",
            )
        if node is not None and name in _RESERVED:
            self.note(node, f"{name} is what a verdict is called that no rule gave; give the rule another name")
        return name or ""

    def _matchers(self, node: yaml.Node | None) -> tuple[Matcher, ...]:
        return tuple(matcher for matcher, _ in self.matchers(node, MATCHERS))

    def _pattern(self, node: yaml.Node | None) -> Pattern | None:
        text = self.text(node)
        if node is None or text is None or self.full:
            return None
        try:
            pattern = Pattern(text, ignore_case=True, memory=PATTERN_MEMORY)
        except ValueError as exc:
            self.note(node, str(exc))
            return None
        self.count(pattern, node)
        return pattern

    def count(self, pattern: Pattern, node: yaml.Node) -> None:
        """Add an expression to those of the table; one that is there twice is asked once."""
        if pattern.text not in self._expressions:
            self._expressions.add(pattern.text)
            super().count(pattern, node)

    def _recommendations(self, node: yaml.Node | None) -> tuple[str, ...]:
        found = self.texts(node, RECOMMENDATIONS, "recommendations")
        return tuple(self.bounded(at, text, "recommendation", RECOMMENDATION_LENGTH) for text, at in found)

    def _bool(self, node: yaml.Node | None) -> bool:
        if node is None:
            return False
        if node.tag != _BOOL:
            self.note(node, "want true or false")
        return str(node.value).lower() in ("true", "yes", "on")
