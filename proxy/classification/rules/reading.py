"""Reading a table: from YAML to a Table, or to every mistake with its line. The package's docstring has the grammar."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlsplit

import yaml

from proxy.alert import LabelSet
from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    SUMMARY_LENGTH,
    Category,
    Severity,
)
from proxy.classification.rules.table import (
    AUTHOR,
    COUNTED_SIZE,
    DEFAULT,
    LABELS,
    MATCHERS,
    OVERRIDE,
    RULES,
    RUNBOOK_LENGTH,
    SIZE,
    Case,
    Override,
    Rule,
    Table,
    Text,
)
from proxy.errors import ConfigError
from proxy.matchers import Matcher, Pattern, parse_matcher

_TEXT_KEYS = ("summary", "recommendations", "runbook")
_RULE_KEYS = ("name", "match", "pattern", "severity", "category", *_TEXT_KEYS, "examples")
_OVERRIDE_KEYS = ("severity", "force", "category", *_TEXT_KEYS)
_CASE_KEYS = ("labels", "severity", "category", "rule")
_TABLE_KEYS = ("version", "author_severity", "categories", "rules", "overrides", "tests")
_RESERVED = (AUTHOR, OVERRIDE, DEFAULT)
_RULE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RULE_NAME_LENGTH = 32
_DEPTH = 20
_STRING = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_IGNORED = dict.fromkeys(map(ord, " \t\r\n-_"))

_Choice = TypeVar("_Choice", bound=StrEnum)


def read(text: str, origin: str) -> Table:
    """Return the table `text` holds. Raises ConfigError with every mistake, each as `origin:line: what, what to do`."""
    return _Reader(origin).read(text)


def normal(word: str) -> str:
    """Return an author's word as it is compared."""
    return word.casefold().translate(_IGNORED)


def _compose(text: str) -> yaml.Node | None:
    """Return the node that `text` is. Raises YAMLError, RecursionError."""
    loader = getattr(yaml, "CSafeLoader", None)
    if loader is None:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    # libyaml is ten times as fast, and composing crashes on endless nesting; its events are looked at first.
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise RecursionError
        return yaml.compose(text, Loader=loader)
    except yaml.YAMLError:
        return yaml.compose(text, Loader=yaml.SafeLoader)  # says it in plainer words


class _Reader:
    """Reads one table. A mistake is noted with its line and reading goes on, so that all are told at once."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._problems: list[tuple[int, str]] = []

    def read(self, text: str) -> Table:
        try:
            root = _compose(text)
        except (yaml.YAMLError, RecursionError) as exc:
            mark = getattr(exc, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            what = getattr(exc, "problem", None) or "a character or a nesting it does not allow"
            raise ConfigError([f"{self._origin}:{line}: not YAML: {what}"]) from exc
        if root is None:
            raise ConfigError([f"{self._origin}:1: empty, want version: 1 and rules:"])
        table = self._mapping(root, _TABLE_KEYS)
        if isinstance(root, yaml.MappingNode) and "version" not in table:
            self._note(root, "version is missing, want version: 1")
        elif "version" in table and getattr(table["version"], "value", None) != "1":
            self._note(table["version"], "unknown version, want version: 1")
        labels, known = self._author(table.get("author_severity"))
        found = Table(
            origin=self._origin,
            author_labels=tuple(labels),
            author_words=known,
            defaults=self._defaults(table.get("categories")),
            rules=tuple(self._rules(table.get("rules"))),
            overrides=self._overrides(table.get("overrides")),
            cases=tuple(self._case(item) for item in self._items(table.get("tests"))),
        )
        self._measure(root, found)
        if self._problems:
            raise ConfigError([f"{self._origin}:{line}: {message}" for line, message in sorted(self._problems)])
        return found

    def _measure(self, root: yaml.Node, table: Table) -> None:
        """Note what would make a table slow."""
        for what, many in (("rules", len(table.rules)), ("overrides", len(table.overrides))):
            if many > RULES:
                self._note(root, f"{many} {what}, want at most {RULES}; one pattern may stand for many names: (a|b)")
        labels = {matcher.name for rule in table.rules for matcher in rule.match}
        if len(labels) > LABELS:
            self._note(root, f"matchers about {len(labels)} different labels, want at most {LABELS}")
        # One that is there twice is asked once.
        patterns = {
            pattern.text: pattern
            for rule in table.rules
            for pattern in (rule.pattern, *(matcher.pattern for matcher in rule.match))
            if pattern is not None
        }
        size = sum(pattern.size for pattern in patterns.values())
        if size > SIZE:
            self._note(
                root, f"its regular expressions have {size} instructions, want at most {SIZE}: fewer or shorter ones"
            )
        counted = sum(pattern.size for pattern in patterns.values() if pattern.is_counted)
        if counted > COUNTED_SIZE:
            self._note(
                root,
                f"its regular expressions with counted repetitions, such as x{{3,9}}, have {counted} instructions, "
                f"want at most {COUNTED_SIZE}: use + or * instead",
            )

    def _author(self, node: yaml.Node | None) -> tuple[list[str], dict[str, Severity]]:
        parts = self._mapping(node, ("labels", "words"))
        labels = [label.lower() for label, _ in self._texts(parts.get("labels"))]
        known: dict[str, Severity] = {}
        for severity, spellings in self._mapping(parts.get("words"), tuple(Severity)).items():
            for text, at in self._texts(spellings):
                if known.setdefault(normal(text), Severity(severity)) != severity:
                    self._note(at, f"{text} means {known[normal(text)]} already; keep it in one of the two lists")
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
            if not row.keys() & {"severity", "category", *_TEXT_KEYS}:
                self._note(node, "the rule says nothing, want a severity, a category, a summary or another text")
        name, examples = row.get("name"), row.get("examples")
        match = tuple(self._matchers(row.get("match")))
        if len(match) > MATCHERS:
            self._note(row["match"], f"{len(match)} matchers, want at most {MATCHERS}")
        return Rule(
            name=self._name(name),
            match=match,
            pattern=self._pattern(row.get("pattern")),
            severity=self._choice(row.get("severity"), Severity),
            category=self._choice(row.get("category"), Category),
            text=self._words(row),
            examples=tuple(text for text, _ in self._texts(examples)),
            at=self._at(node),
        )

    def _defaults(self, node: yaml.Node | None) -> dict[Category, Text]:
        found = self._mapping(node, tuple(Category))
        return {Category(name): self._words(self._mapping(text, _TEXT_KEYS)) for name, text in found.items()}

    def _overrides(self, node: yaml.Node | None) -> dict[str, Override]:
        found: dict[str, Override] = {}
        for key, value in self._pairs(node):
            name = self._text(key)
            row = self._mapping(value, _OVERRIDE_KEYS)
            if not row.keys() - {"force"}:
                self._note(key, "the override says nothing, want a severity, a category, a summary or another text")
            elif "force" in row and "severity" not in row:
                self._note(row["force"], "force is for a severity, and there is none; give one or leave force out")
            if name in found:
                self._note(key, f"{name} is overridden in {found[name].at} already; keep one")
            if name is not None:
                found[name] = Override(
                    severity=self._choice(row.get("severity"), Severity),
                    force=self._bool(row.get("force")),
                    category=self._choice(row.get("category"), Category),
                    text=self._words(row),
                    at=self._at(key),
                )
        return found

    def _case(self, node: yaml.Node) -> Case:
        row = self._mapping(node, _CASE_KEYS)
        if isinstance(node, yaml.MappingNode):
            if "labels" not in row:
                self._note(node, "the test has no labels, want for example labels: {alertname: DiskFull}")
            if not row.keys() - {"labels"}:
                self._note(node, "the test expects nothing, want a severity, a category or a rule")
        return Case(
            labels=self._labels(row.get("labels")),
            severity=self._choice(row.get("severity"), Severity),
            category=self._choice(row.get("category"), Category),
            rule=self._text(row.get("rule")),
            at=self._at(node),
        )

    def _labels(self, node: yaml.Node | None) -> LabelSet:
        texts = ((self._text(key), self._text(value)) for key, value in self._pairs(node))
        return {name: value for name, value in texts if name is not None and value is not None}

    def _words(self, row: dict[str, yaml.Node]) -> Text:
        """Return what a row says to people."""
        return Text(
            summary=self._summary(row.get("summary")),
            recommendations=self._recommendations(row.get("recommendations")),
            runbook=self._runbook(row.get("runbook")),
        )

    def _summary(self, node: yaml.Node | None) -> str:
        text = self._text(node) or ""
        if node is not None and len(text) > SUMMARY_LENGTH:
            self._note(node, f"summary of {len(text)} characters, want at most {SUMMARY_LENGTH}")
        return text

    def _runbook(self, node: yaml.Node | None) -> str:
        text = self._text(node) or ""
        if node is not None and text and not _is_link(text):
            # Not repeated: a URL may hold a password.
            self._note(
                node,
                "bad runbook, want an http or https URL of at most "
                f"{RUNBOOK_LENGTH} characters without user, password and spaces",
            )
        return text

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
        if node is not None and name in _RESERVED:
            self._note(node, f"{name} is what a verdict is called that no rule gave; give the rule another name")
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

    def _bool(self, node: yaml.Node | None) -> bool:
        if node is None:
            return False
        if node.tag != _BOOL:
            self._note(node, "want true or false")
        return str(node.value).lower() in ("true", "yes", "on")

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

    def _pairs(self, node: yaml.Node | None) -> Iterable[tuple[yaml.Node, yaml.Node]]:
        """Return keys of any name, and their values."""
        if node is None or node.tag == _NULL:
            return ()
        if not isinstance(node, yaml.MappingNode):
            self._note(node, "want a mapping")
            return ()
        return list(node.value)

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

    def _at(self, node: yaml.Node) -> str:
        return f"{self._origin}:{_line(node)}"

    def _note(self, node: yaml.Node, message: str) -> None:
        self._problems.append((_line(node), message))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_link(text: str) -> bool:
    if len(text) > RUNBOOK_LENGTH or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:  # half an IPv6 address
        return False
