"""Which rules an alert meets, found without asking them one by one.

A set of rules is a number whose bits are rules, the first rule the lowest. For each label the rules look at there is a
column, which says at once which rules a value rules out; what no column rules out is met. So a table of 2,000 rules
costs about what one of 50 does, and an answer about a value is good for the next alert with the same value.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from proxy.alert import LabelSet
from proxy.classification.rules.table import Rule
from proxy.matchers import Matcher, Op, Pattern, PatternSet

NAME_LENGTH = 120
"""So many characters of an alertname are searched for words."""
VALUE_LENGTH = 300
"""So many characters of a label's value are shown to regular expressions."""
_REMEMBERED = 4096

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


def positions(rules: int) -> Iterator[int]:
    """Yield the numbers of the rules in a set of them, the first rule first."""
    while rules:
        lowest = rules & -rules
        yield lowest.bit_length() - 1
        rules ^= lowest


class Conditions:
    """The conditions of all rules of a table. Raises ValueError when they are too large together."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._all = (1 << len(rules)) - 1
        self._ending = sum(1 << n for n, rule in enumerate(rules) if rule.category is not None)
        self._columns = list(_columns(rules))
        patterns = [(1 << n, rule.pattern) for n, rule in enumerate(rules) if rule.pattern is not None]
        met = _regex(patterns, ignore_case=True)
        self._named = lru_cache(maxsize=_REMEMBERED)(lambda name: met(words(name)))

    def met(self, labels: LabelSet) -> int:
        """Return the rules that `labels` meet, up to the first that has a category."""
        rules = self._all & self._named(labels.get("alertname", "")[:NAME_LENGTH])
        for label, met in self._columns:
            rules &= met(labels.get(label, ""))
        first = rules & self._ending
        return rules & (((first & -first) << 1) - 1) if first else rules


_Met = Callable[[str], int]


def _columns(rules: Sequence[Rule]) -> Iterator[tuple[str, _Met]]:
    """Yield columns: the label, and what tells the rules a value of it does not rule out.

    A column has one matcher of a rule at most, so a rule with two of a kind about one label is in two columns.
    """
    columns: dict[tuple[str, Op, int], list[tuple[int, Matcher]]] = defaultdict(list)
    for n, rule in enumerate(rules):
        seen: dict[tuple[str, Op], int] = defaultdict(int)
        for matcher in rule.match:
            key = (matcher.name, matcher.op)
            columns[(*key, seen[key])].append((1 << n, matcher))
            seen[key] += 1
    for (label, op, _), entries in columns.items():
        if op in (Op.EQUAL, Op.NOT_EQUAL):
            yield label, _equal(entries, positive=op is Op.EQUAL)
        else:
            patterns = [(bit, matcher.pattern) for bit, matcher in entries if matcher.pattern is not None]
            met = _regex(patterns, whole=True, positive=op is Op.REGEX)
            yield label, _remembering(met)


def _equal(entries: Sequence[tuple[int, Matcher]], *, positive: bool) -> _Met:
    asking = sum(bit for bit, _ in entries)
    by_value: dict[str, int] = defaultdict(int)
    for bit, matcher in entries:
        by_value[matcher.value] |= bit
    others, known = ~asking, dict(by_value)
    if positive:
        return lambda value: others | known.get(value, 0)
    return lambda value: ~known.get(value, 0)


def _regex(
    entries: Sequence[tuple[int, Pattern]], *, ignore_case: bool = False, whole: bool = False, positive: bool = True
) -> _Met:
    asking = sum(bit for bit, _ in entries)
    by_text: dict[str, tuple[Pattern, int]] = {}
    for bit, pattern in entries:
        by_text[pattern.text] = pattern, by_text.get(pattern.text, (pattern, 0))[1] | bit
    found = PatternSet([pattern for pattern, _ in by_text.values()], ignore_case=ignore_case, whole=whole)
    bits = [bit for _, bit in by_text.values()]

    def met(text: str) -> int:
        hit = 0
        for n in found.find(text):
            hit |= bits[n]
        return ~asking | hit if positive else ~hit

    return met


def _remembering(met: _Met) -> _Met:
    remembered = lru_cache(maxsize=_REMEMBERED)(met)
    return lambda value: remembered(value[:VALUE_LENGTH])
