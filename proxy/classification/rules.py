"""The verdict of an ordered table: what runs without a model, and what stands in when the model has no answer in time.

    version: 1
    author_severity:                 how authors say severity
      labels: [severity, priority]   asked in this order; the first that holds a known word decides
      words:
        critical: [critical, page]   compared without case, spaces, `-` and `_`: "SEV-1" is sev1
    rules:
      - name: disk-filling           a-z, 0-9 and hyphens; unique
        match: ['job=~"node.*"']     Alertmanager's matchers; all must hold
        pattern: '\\b(disk|volume) .*\\bfull\\b'
                                     searched, without case, in the words of the alertname:
                                     NodeDiskAlmostFull is read as "node disk almost full"
        severity: critical           used only where the author gave none
        category: storage
        recommendations:             first steps for people: at most 3, each at most 120 characters
          - Find what grew with du -x on the mount point.

A rule has `match`, `pattern` or both, and `category`, `severity` or both. The first rule that matches and has a
category ends the search. A rule with a severity alone lets it go on: its severity holds, the category comes from a
later rule.

Read are the labels of the alert as it was sent, and nothing else: not its annotations, not its times. Replicas that
share a table (see Rules.hash) therefore agree without asking each other.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from importlib import resources
from typing import TypeVar

import yaml

from proxy.alert import Alert, LabelSet
from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    Category,
    Classification,
    Confidence,
    Severity,
    Source,
)
from proxy.errors import ConfigError
from proxy.matchers import Matcher, Pattern, matches_all, parse_matcher

CODE_VERSION = 1
"""Part of Rules.hash. To be raised when the same table may give another verdict than before."""

NAME_LENGTH = 120
"""So many characters of an alertname are searched."""
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One row of the table."""

    name: str
    match: tuple[Matcher, ...] = ()
    pattern: Pattern | None = None
    severity: Severity | None = None
    category: Category | None = None
    recommendations: tuple[str, ...] = ()


class Rules:
    """A table ready to be asked. Two of them share nothing; one never changes."""

    def __init__(self, rules: Sequence[Rule], labels: Sequence[str], words: Mapping[str, Severity]) -> None:
        """Take the rules in their order, the labels to read the author's severity from, and its words, normalised."""
        self.rules = tuple(rules)
        self._labels = tuple(labels)
        self._words = dict(words)
        self.hash = self._hash()
        """12 hex digits. Equal ones give equal verdicts; comments and layout of the file do not count."""
        # Alertnames and verdicts are few and come again; searching and cleaning texts cost more than all the rest.
        self._named = lru_cache(maxsize=_REMEMBERED)(self._search)
        self._verdict = lru_cache(maxsize=_REMEMBERED)(_verdict)

    @classmethod
    def shipped(cls) -> Rules:
        """Return the table that comes with the product."""
        return _shipped()

    @classmethod
    def parse(cls, text: str, origin: str) -> Rules:
        """Return the table `text` holds. Raises ConfigError with every mistake, each as `origin:line: …`."""
        return _Reader(origin).read(text)

    def classify(self, alert: Alert) -> Classification:
        """Return the verdict on `alert`. Never raises; reads `alert.labels` and nothing else.

        Its source is `rules`, its rule the one that gave the category, else the severity, else `default`.
        """
        labels = alert.labels
        authored, unknown = self._author(labels)
        about = urgent = None
        for rule in self._named(alert.name[:NAME_LENGTH]):
            if rule.match and not matches_all(rule.match, labels):
                continue
            if urgent is None and rule.severity is not None:
                urgent = rule
            if rule.category is not None:
                about = rule
                break
        return self._verdict(authored, unknown[:_WORD_SHOWN], urgent, about)

    def author_severity(self, alert: Alert) -> Severity | None:
        """Return the severity the author of the alert gave it; None where there is none, or none we know."""
        return self._author(alert.labels)[0]

    def _author(self, labels: LabelSet) -> tuple[Severity | None, str]:
        """Return the author's severity, and the first word that is not known."""
        # Sorted, so that of severity and Severity the usual spelling wins on every replica.
        spelled = {name.lower(): labels[name] for name in sorted(labels)}
        unknown = ""
        for label in self._labels:
            value = spelled.get(label)
            if value:
                severity = self._words.get(_normal(value))
                if severity is not None:
                    return severity, ""
                unknown = unknown or value
        return None, unknown

    def _search(self, name: str) -> tuple[Rule, ...]:
        """Return the rules that `name` does not exclude, up to the first that is certain to end the search."""
        text = words(name)
        found = []
        for rule in self.rules:
            if rule.pattern is None or rule.pattern.search(text):
                found.append(rule)
                if rule.category is not None and not rule.match:
                    break
        return tuple(found)

    def _hash(self) -> str:
        content = (
            CODE_VERSION,
            self._labels,
            sorted(self._words.items()),
            [
                (
                    rule.name,
                    [str(matcher) for matcher in rule.match],
                    rule.pattern.text if rule.pattern else None,
                    rule.severity,
                    rule.category,
                    rule.recommendations,
                )
                for rule in self.rules
            ],
        )
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


_WORD = re.compile(
    r"""
    [A-Z]{2,}s(?![a-z])     # PVCs
    | [A-Z]+(?=[A-Z][a-z])  # HTTP in HTTPErrors
    | [A-Z]?[a-z]+(?:\d+(?![\dxX]))?  # Disk, etcd3; the 5 of High5xx belongs to what follows
    | [A-Z]+?(?:\d+(?![\dxX])|(?=[^A-Z]|\Z))  # CPU, P99
    | \d+(?:[xX]+|[a-z]*)  # 5xx, 4XX
    """,
    re.VERBOSE,
)


def words(name: str) -> str:
    """Return `name` as patterns see it: its ASCII words in lower case, one space between them."""
    return " ".join(_WORD.findall(name)).lower()


_CONFIDENCE = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)
_WORD_SHOWN = 16
_DEFAULT = "default"


def _verdict(authored: Severity | None, unknown: str, urgent: Rule | None, about: Rule | None) -> Classification:
    severity = authored or (urgent.severity if urgent else None) or Severity.WARNING
    told = about or (None if authored else urgent)
    category = f"category {about.category} by rule {about.name}" if about else "no rule knows the category"
    if authored is not None:
        summary = f"Severity {severity} is the author's; {category}."
    else:
        given = f"Severity '{unknown}' is not known" if unknown else "No severity given"
        summary = f"{given}: {severity} by {f'rule {urgent.name}' if urgent else _DEFAULT}; {category}."
    return Classification(
        severity=severity,
        category=(about.category if about else None) or Category.OTHER,
        confidence=_CONFIDENCE[(authored is not None) + (told is not None)],
        source=Source.RULES,
        summary=summary,
        recommendations=told.recommendations if told else (),
        rule=told.name if told else _DEFAULT,
    )


def _normal(word: str) -> str:
    return word.casefold().translate(_IGNORED)


_IGNORED = dict.fromkeys(map(ord, " \t\r\n-_"))


@cache  # a constant that happens to stand in a file
def _shipped() -> Rules:
    file = resources.files(__package__).joinpath("rules.yaml")
    # libyaml, where there is one, saves 30 ms of each start. It crashes on endless nesting: for our own table alone.
    return _Reader("rules.yaml", getattr(yaml, "CSafeLoader", yaml.SafeLoader)).read(file.read_text(encoding="utf-8"))


_Choice = TypeVar("_Choice", bound=StrEnum)
_RULE_KEYS = ("name", "match", "pattern", "severity", "category", "recommendations")
_RULE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RULE_NAME_LENGTH = 32
_STRING = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"


class _Reader:
    """Reads one table. A mistake is noted with its line and reading goes on, so that all are told at once."""

    def __init__(self, origin: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> None:
        self._origin = origin
        self._loader = loader
        self._problems: list[tuple[int, str]] = []

    def read(self, text: str) -> Rules:
        try:
            root = yaml.compose(text, Loader=self._loader)
        except (yaml.YAMLError, RecursionError) as exc:
            mark = getattr(exc, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            what = getattr(exc, "problem", None) or "a character or a nesting it does not allow"
            raise ConfigError([f"{self._origin}:{line}: not YAML: {what}"]) from exc
        if root is None:
            raise ConfigError([f"{self._origin}:1: empty, want version: 1 and rules:"])
        table = self._mapping(root, ("version", "author_severity", "rules"))
        if isinstance(root, yaml.MappingNode) and "version" not in table:
            self._note(root, "version is missing, want version: 1")
        elif "version" in table and getattr(table["version"], "value", None) != "1":
            self._note(table["version"], "unknown version, want version: 1")
        labels, known = self._author(table.get("author_severity"))
        rules = self._rules(table.get("rules"))
        if self._problems:
            raise ConfigError([f"{self._origin}:{line}: {message}" for line, message in sorted(self._problems)])
        return Rules(rules, labels, known)

    def _author(self, node: yaml.Node | None) -> tuple[list[str], dict[str, Severity]]:
        parts = self._mapping(node, ("labels", "words"))
        labels = [label.lower() for label, _ in self._texts(parts.get("labels"))]
        known: dict[str, Severity] = {}
        for severity, spellings in self._mapping(parts.get("words"), tuple(Severity)).items():
            for text, at in self._texts(spellings):
                if known.setdefault(_normal(text), Severity(severity)) != severity:
                    self._note(at, f"{text} means {known[_normal(text)]} already; keep it in one of the two lists")
        return labels, known

    def _rules(self, node: yaml.Node | None) -> list[Rule]:
        rules: list[Rule] = []
        lines: dict[str, int] = {}
        for item in self._items(node):
            rule = self._rule(item)
            if rule.name in lines:
                self._note(
                    item, f"a rule {rule.name} stands in line {lines[rule.name]} already; give this one its own name"
                )
            if rule.name:
                lines.setdefault(rule.name, _line(item))
            rules.append(rule)
        return rules

    def _rule(self, node: yaml.Node) -> Rule:
        row = self._mapping(node, _RULE_KEYS)
        if isinstance(node, yaml.MappingNode):
            if "name" not in row:
                self._note(node, "the rule has no name, want for example name: disk-filling")
            if not row.keys() & {"match", "pattern"}:
                self._note(node, "the rule needs match or pattern, or it would hold for every alert")
            if not row.keys() & {"severity", "category"}:
                self._note(node, "the rule needs a category or a severity")
        return Rule(
            name=self._name(row.get("name")),
            match=tuple(self._matchers(row.get("match"))),
            pattern=self._pattern(row.get("pattern")),
            severity=self._choice(row.get("severity"), Severity),
            category=self._choice(row.get("category"), Category),
            recommendations=self._recommendations(row.get("recommendations")),
        )

    def _name(self, node: yaml.Node | None) -> str:
        name = self._text(node)
        if (
            node is not None
            and name is not None
            and not (_RULE_NAME.fullmatch(name) and len(name) <= _RULE_NAME_LENGTH)
        ):
            self._note(
                node, f"bad rule name {name!r}, want a-z, 0-9 and hyphens, at most {_RULE_NAME_LENGTH} characters"
            )
        if node is not None and name == _DEFAULT:
            self._note(node, f"{_DEFAULT} is what a verdict without a rule is called; give the rule another name")
        return name or ""

    def _matchers(self, node: yaml.Node | None) -> Iterator[Matcher]:
        for text, at in self._texts(node):
            try:
                yield parse_matcher(text)
            except ValueError as exc:
                self._note(at, str(exc))

    def _pattern(self, node: yaml.Node | None) -> Pattern | None:
        text = self._text(node)
        if node is None or text is None:
            return None
        try:
            return Pattern(text, ignore_case=True)
        except ValueError as exc:
            self._note(node, str(exc))
            return None

    def _choice(self, node: yaml.Node | None, choices: type[_Choice]) -> _Choice | None:
        text = self._text(node)
        if node is None or text is None:
            return None
        if text not in tuple(choices):
            self._note(node, f"unknown {choices.__name__.lower()} {text!r}, want one of {', '.join(choices)}")
            return None
        return choices(text)

    def _recommendations(self, node: yaml.Node | None) -> tuple[str, ...]:
        found = list(self._texts(node))
        if node is not None and len(found) > RECOMMENDATIONS:
            self._note(node, f"{len(found)} recommendations, at most {RECOMMENDATIONS} are shown")
        for text, at in found:
            if len(text) > RECOMMENDATION_LENGTH:
                self._note(at, f"recommendation of {len(text)} characters, want at most {RECOMMENDATION_LENGTH}")
        return tuple(text for text, _ in found)

    def _mapping(self, node: yaml.Node | None, keys: Collection[str]) -> dict[str, yaml.Node]:
        """Return the values of `node` by key, those with a key of `keys` alone; None holds nothing."""
        if node is None or node.tag == _NULL:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._note(node, f"want a mapping with {', '.join(keys)}")
            return {}
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"want one of {', '.join(keys)}"
                self._note(key_node, f"unknown key {key}; {hint}")
            elif key in found:
                self._note(key_node, f"{key} is given twice; keep one")
            else:
                found[key] = value
        return found

    def _items(self, node: yaml.Node | None) -> list[yaml.Node]:
        if node is None or node.tag == _NULL:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._note(node, "want a list")
            return []
        return list(node.value)

    def _texts(self, node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
        """Give the texts of a list, each with where it stands."""
        for item in self._items(node):
            text = self._text(item)
            if text is not None:
                yield text, item

    def _text(self, node: yaml.Node | None) -> str | None:
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self._note(node, "want a text")
            return None
        if node.tag != _STRING or not node.value.strip():
            self._note(node, f"want a text; put {node.value or 'it'} in quotes if it is meant as one")
            return None
        return str(node.value)

    def _note(self, node: yaml.Node, message: str) -> None:
        self._problems.append((_line(node), message))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
