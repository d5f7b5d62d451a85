"""What is wrong with a table that can be read: rules nobody gets to, rules that contradict, tests that fail."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from proxy.alert import Alert
from proxy.classification.rules.asking import Rules
from proxy.classification.rules.conditions import NAME_LENGTH, positions, words
from proxy.classification.rules.table import Rule, Table
from proxy.matchers import Matcher, Op, PatternSet

_LITERALS = re.compile(r"(\\b)?(?:\((?:\?:)?([a-z0-9 |]+)\)|([a-z0-9 ]+))(\\b)?", re.IGNORECASE)
_ANCHORS = re.compile(r"[$^]|\\[AzB]")
_LETTER = "q"


def problems(rules: Rules) -> list[str]:
    """Return what is wrong with the first of the tables, each as `file:line: what, what to do`.

    The tables behind it are asked, as they will be, and are not checked themselves.
    """
    table = rules.tables[0]
    contradictions = dict(_contradictions(table))
    unreached = {rule.name: why for rule, why in _unreached(table) if rule.name not in contradictions}
    return [*contradictions.values(), *unreached.values(), *_missed(table, rules, {*unreached}), *_failed(table, rules)]


def _unreached(table: Table) -> Iterator[tuple[Rule, str]]:
    """Yield rules that are never asked, or never match, and why."""
    caught = _Caught(table)
    for n, rule in enumerate(table.rules):
        if before := caught.before(n):
            by = ", ".join(f"{other.name} ({other.at})" for other in before)
            yield (
                rule,
                f"{rule.at}: {rule.name} is never reached: {by} ends the search first; move it up, or take it out",
            )
        elif never := _excluded(rule):
            yield rule, f"{rule.at}: {rule.name} never matches: {never} cannot hold together; correct one of them"


class _Caught:
    """Knows which rules an earlier one, that has a category and so ends the search, always comes before."""

    def __init__(self, table: Table) -> None:
        self._rules = table.rules
        self._alike: dict[str | None, list[int]] = defaultdict(list)
        """Rules that end the search, by pattern."""
        self._plain: list[int] = []
        """Those with nothing but a pattern, which finds a word wherever it stands."""
        for n, rule in enumerate(table.rules):
            if rule.category is not None:
                self._alike[rule.pattern.text if rule.pattern else None].append(n)
                if rule.pattern and not rule.match and not _ANCHORS.search(rule.pattern.text):
                    self._plain.append(n)
        self._found = PatternSet([p for n in self._plain if (p := table.rules[n].pattern)], ignore_case=True)

    def before(self, n: int) -> list[Rule]:
        """Return the rules that together leave nothing to rule `n`; none when it may be reached."""
        rule = self._rules[n]
        texts = [None, rule.pattern.text] if rule.pattern else [None]
        alike = (self._rules[other] for text in texts for other in self._alike[text] if other < n)
        if (general := next((other for other in alike if _asks_no_more(other, rule)), None)) is not None:
            return [general]
        earlier = [min(self._finding(text), default=n) for text in _literals(rule)]
        return [self._rules[other] for other in sorted({*earlier})] if earlier and max(earlier) < n else []

    def _finding(self, text: str) -> Iterator[int]:
        return (self._plain[found] for found in self._found.find(text))


def _literals(rule: Rule) -> list[str]:
    """Return texts of which one stands in each name that the pattern finds; none when it is more than words."""
    found = _LITERALS.fullmatch(rule.pattern.text) if rule.pattern else None
    if found is None:
        return []
    left, alternatives, single, right = found.groups()
    # Without \b the word may be the end of a longer one.
    before, behind = "" if left else _LETTER, "" if right else _LETTER
    return [f"{before}{text}{behind}".lower() for text in (alternatives or single).split("|")]


def _asks_no_more(general: Rule, special: Rule) -> bool:
    """Return whether the matchers of `general` hold wherever those of `special` do, as far as can be told."""
    return all(any(mine == theirs or _follows(mine, theirs) for theirs in special.match) for mine in general.match)


def _follows(mine: Matcher, theirs: Matcher) -> bool:
    return mine.name == theirs.name and theirs.op is Op.EQUAL and mine.matches({theirs.name: theirs.value})


def _excluded(rule: Rule) -> str:
    """Return two matchers of a rule that exclude each other; empty when none do."""
    for exact in rule.match:
        for other in rule.match:
            if exact.op is Op.EQUAL and other.name == exact.name and not other.matches({exact.name: exact.value}):
                return f"{exact} and {other}"
    return ""


def _contradictions(table: Table) -> Iterator[tuple[str, str]]:
    """Yield rules that ask for the same as an earlier one and say something else, and what."""
    first: dict[object, Rule] = {}
    for rule in table.rules:
        other = first.setdefault(rule.conditions, rule)
        for what in ("severity", "category"):
            before, now = getattr(other, what), getattr(rule, what)
            if before is not None and now is not None and before is not now:
                who = f"{other.name} ({other.at}), which asks for the same"
                yield rule.name, f"{rule.at}: {rule.name} says {what} {now}, and {who}, {before}; keep one"


def _missed(table: Table, rules: Rules, unreached: set[str]) -> Iterator[str]:
    """Yield examples that do not come to their rule."""
    for n, rule in enumerate(table.rules):
        for name in rule.examples:
            labels = rule.example(name)
            met = list(positions(rules.met(labels)))
            if n in met or rule.name in unreached:
                continue
            searched = rule.pattern is None or rule.pattern.search(words(name[:NAME_LENGTH]))
            if searched and all(matcher.matches(labels) for matcher in rule.match):
                by = rules.rules[met[-1]]
                yield (
                    f"{rule.at}: {rule.name} is not reached by its example {name}: {by.name} ({by.at}) ends the "
                    "search; move it up, or correct the example"
                )
            else:
                yield (
                    f"{rule.at}: {rule.name} does not match its example {name}, read as {words(name)!r}; correct one "
                    "of them"
                )


def _failed(table: Table, rules: Rules) -> Iterator[str]:
    """Yield tests that do not come out as they should."""
    for case in table.cases:
        alert = Alert(case.labels)
        verdict, why = rules.classify(alert), rules.explain(alert)
        for what, wanted, got, reason in (
            ("severity", case.severity, verdict.severity, why.severity),
            ("category", case.category, verdict.category, why.category),
            ("rule", case.rule, verdict.rule, why.category),
        ):
            if wanted is not None and wanted != got:
                by = f"{reason.by} ({reason.at})" if reason.at else reason.by
                yield f"{case.at}: the test wants {what} {wanted} and gets {got}, from {by}; correct one of them"
