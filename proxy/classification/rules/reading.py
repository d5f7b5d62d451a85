"""Reading a table: from YAML to a Table, or to every mistake with its line. The package's docstring has the grammar."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import yaml

from proxy.alert import LabelSet
from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    SUMMARY_LENGTH,
    Category,
    Severity,
)
from proxy.classification.rules.authors import normal
from proxy.classification.rules.composing import compose
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
from proxy.matchers import PATTERN_MEMORY, Matcher, Pattern, parse_matcher

_TEXT_KEYS = ("summary", "recommendations", "runbook")
_RULE_KEYS = ("name", "match", "pattern", "severity", "category", *_TEXT_KEYS, "examples")
_OVERRIDE_KEYS = ("severity", "force", "category", *_TEXT_KEYS)
_CASE_KEYS = ("labels", "severity", "category", "rule")
_TABLE_KEYS = ("version", "author_severity", "categories", "rules", "overrides", "tests")
_RESERVED = (AUTHOR, OVERRIDE, DEFAULT)
_RULE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RULE_NAME_LENGTH = 32
_SHOWN = 64
"""So many characters of a text are repeated in a message."""
_LABELS, _WORDS, _MISTAKES = 64, 256, 100
"""So many labels a test may have, words of authors a severity, and mistakes are told before reading ends."""
_STRING = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"

_Choice = TypeVar("_Choice", bound=StrEnum)


def read(text: str, origin: str) -> Table:
    """Return the table `text` holds. Raises ConfigError with every mistake, each as `origin:line: what, what to do`."""
    return _Reader(origin).read(text)


class _TooManyError(Exception):
    """There are more mistakes than anybody reads."""


class _Reader:
    """Reads one table. A mistake is noted with its line and reading goes on, so that all are told at once."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._problems: list[tuple[int, str]] = []
        self._expressions: set[str] = set()
        self._size = 0
        """Instructions of those."""

    def read(self, text: str) -> Table:
        try:
            return self._read(text)
        except _TooManyError:
            more = [f"{self._origin}: more mistakes than these {_MISTAKES}; reading ended there"]
            raise ConfigError([*self._told(), *more]) from None

    def _told(self) -> list[str]:
        return [f"{self._origin}:{line}: {message}" for line, message in sorted(self._problems)]

    def _read(self, text: str) -> Table:
        root = compose(text, self._origin)
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
            cases=tuple(self._case(item) for item in self._items(table.get("tests"), RULES, "tests")),
        )
        self._measure(root, found)
        if self._problems:
            raise ConfigError(self._told())
        return found

    def _measure(self, root: yaml.Node, table: Table) -> None:
        """Note what would make a table slow."""
        if self._size > SIZE:
            return  # said where it happened, and nothing was read since
        if (many := len(kinds(table.rules))) > COLUMNS:
            self._note(
                root,
                f"matchers of {many} kinds (a label and a comparison; two =~ of a rule about one label are two), "
                f"want at most {COLUMNS}",
            )
        self._problems += [(int(rule.at.rpartition(":")[2]), message) for rule, message in too_heavy(table.rules)]

    def _author(self, node: yaml.Node | None) -> tuple[list[str], dict[str, Severity]]:
        parts = self._mapping(node, ("labels", "words"))
        labels = [label.lower() for label, _ in self._texts(parts.get("labels"), _LABELS, "labels")]
        known: dict[str, Severity] = {}
        for severity, spellings in self._mapping(parts.get("words"), tuple(Severity)).items():
            for text, at in self._texts(spellings, _WORDS, "words"):
                if len(text) > WORD_LENGTH:
                    self._note(at, f"a word of {len(text)} characters, want at most {WORD_LENGTH}")
                elif known.setdefault(normal(text), Severity(severity)) != severity:
                    self._note(at, f"{text} means {known[normal(text)]} already; keep it in one of the two lists")
        return labels, known

    def _rules(self, node: yaml.Node | None) -> list[Rule]:
        rules: list[Rule] = []
        lines: dict[str, int] = {}
        for item in self._items(node, RULES, "rules", "; one pattern may stand for many names: (a|b)"):
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
        return Rule(
            name=self._name(row.get("name")),
            match=tuple(self._matchers(row.get("match"))),
            pattern=self._pattern(row.get("pattern")),
            severity=self._choice(row.get("severity"), Severity),
            category=self._choice(row.get("category"), Category),
            text=self._words(row),
            examples=tuple(text for text, _ in self._texts(row.get("examples"), EXAMPLES, "examples")),
            at=self._at(node),
        )

    def _defaults(self, node: yaml.Node | None) -> dict[Category, Text]:
        found = self._mapping(node, tuple(Category))
        return {Category(name): self._words(self._mapping(text, _TEXT_KEYS)) for name, text in found.items()}

    def _overrides(self, node: yaml.Node | None) -> dict[str, Override]:
        found: dict[str, Override] = {}
        for key, value in self._pairs(node, RULES, "overrides", "; rules are for many names at once"):
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
        texts = ((self._text(key), self._text(value)) for key, value in self._pairs(node, _LABELS, "labels"))
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
        if node is not None and text and not is_link(text):
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
        for text, at in self._texts(node, MATCHERS, "matchers"):
            if self._size > SIZE:
                return
            try:
                matcher = parse_matcher(text)
            except ValueError as exc:
                self._note(at, str(exc))
                continue
            self._count(matcher.pattern, at)
            yield matcher

    def _pattern(self, node: yaml.Node | None) -> Pattern | None:
        text = self._text(node)
        if node is None or text is None or self._size > SIZE:
            return None
        try:
            pattern = Pattern(text, ignore_case=True, memory=PATTERN_MEMORY)
        except ValueError as exc:
            self._note(node, str(exc))
            return None
        self._count(pattern, node)
        return pattern

    def _count(self, pattern: Pattern | None, node: yaml.Node) -> None:
        """Note when the table's expressions become too large together; one that is there twice is counted once."""
        if pattern is None or pattern.text in self._expressions:
            return
        self._expressions.add(pattern.text)
        self._size += pattern.size
        if self._size > SIZE:
            self._note(
                node,
                f"the regular expressions up to here have {self._size} instructions, want at most {SIZE}; fewer or "
                "shorter ones",
            )

    def _choice(self, node: yaml.Node | None, choices: type[_Choice]) -> _Choice | None:
        text = self._text(node)
        if node is None or text is None:
            return None
        if text not in tuple(choices):
            self._note(node, f"unknown {choices.__name__.lower()} {text!r}, want one of {', '.join(choices)}")
            return None
        return choices(text)

    def _recommendations(self, node: yaml.Node | None) -> tuple[str, ...]:
        found = list(self._texts(node, RECOMMENDATIONS, "recommendations"))
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
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(key_node, f"want a word as a key, one of {', '.join(keys)}")
            elif (key := key_node.value) not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"want one of {', '.join(keys)}"
                self._note(key_node, f"unknown key {key[:_SHOWN]}; {hint}")
            elif key in found:
                self._note(key_node, f"{key} is given twice; keep one")
            else:
                found[key] = value
        return found

    def _pairs(
        self, node: yaml.Node | None, most: int, what: str, instead: str = ""
    ) -> Iterable[tuple[yaml.Node, yaml.Node]]:
        """Return keys of any name, and their values; none of them when they are more than `most`."""
        if node is None or node.tag == _NULL:
            return ()
        if not isinstance(node, yaml.MappingNode):
            self._note(node, "want a mapping")
            return ()
        return self._few(node, most, what, instead)

    def _items(self, node: yaml.Node | None, most: int, what: str, instead: str = "") -> Sequence[yaml.Node]:
        """Return the items of a list; none of them when they are more than `most`."""
        if node is None or node.tag == _NULL:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._note(node, "want a list, each entry after a -")
            return []
        return self._few(node, most, what, instead)

    def _few(self, node: yaml.CollectionNode, most: int, what: str, instead: str) -> Sequence[Any]:
        # An alias may stand for a long list in a thousand places: what is too long is not looked into.
        if len(node.value) > most:
            self._note(node, f"{len(node.value)} {what}, want at most {most}{instead}")
            return ()
        return tuple(node.value)

    def _texts(self, node: yaml.Node | None, most: int, what: str) -> Iterator[tuple[str, yaml.Node]]:
        """Give the texts of a list, each with where it stands."""
        for item in self._items(node, most, what):
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
            self._note(node, f"want a text; put {node.value[:_SHOWN] or 'it'} in quotes if it is meant as one")
            return None
        text = str(node.value)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            self._note(node, "half a character (a lone surrogate), which no label can have")
            return None
        return text

    def _at(self, node: yaml.Node) -> str:
        return f"{self._origin}:{_line(node)}"

    def _note(self, node: yaml.Node, message: str) -> None:
        self._problems.append((_line(node), message))
        if len(self._problems) >= _MISTAKES:
            raise _TooManyError


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
