"""Which rules an alert meets, found without asking them one by one.

A set of rules is a number whose bits are rules, the first rule the lowest. For each label the rules look at there is a
column, which says at once which rules a value rules out; what no column rules out is met. So a table of 2,000 rules
costs about what one of 50 does, and an answer about a value is good for the next alert with the same value.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from operator import or_

from proxy.alert import LabelSet
from proxy.classification.rules.table import Rule
from proxy.matchers import Matcher, Op, Pattern, PatternSet

NAME_LENGTH = 80
"""So many characters of an alertname are searched for words. The longest of 1,234 public ones has 58."""
VALUE_LENGTH = 128
"""So many bytes of a label's value are shown to regular expressions, as whole characters."""
_NAMES = 4096
_VALUES = 1024
"""Answers that are remembered: for names, and for each kind of matcher. Values may all be different."""

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
        self._named = lru_cache(maxsize=_NAMES)(lambda name: met(words(name)))

    def met(self, labels: LabelSet) -> int:
        """Return the rules that `labels` meet, up to the first that has a category."""
        rules = self._all & self._named(labels.get("alertname", "")[:NAME_LENGTH])
        for label, met in self._columns:
            rules &= met(labels.get(label, ""))
        first = rules & self._ending
        return rules & (((first & -first) << 1) - 1) if first else rules


_Met = Callable[[str], int]


def kinds(rules: Sequence[Rule]) -> Mapping[tuple[str, Op, int], Sequence[tuple[int, Matcher]]]:
    """Return the matchers of all rules by label and comparison, each with the bit of its rule.

    Of those that must hold (`=`, `=~`) there is one of a rule at most in each: its second one is in another. Of those
    that must not, any rules it out, so they stand together.
    """
    found: dict[tuple[str, Op, int], list[tuple[int, Matcher]]] = defaultdict(list)
    for n, rule in enumerate(rules):
        seen: dict[tuple[str, Op], int] = defaultdict(int)
        for matcher in rule.match:
            key = (matcher.name, matcher.op)
            found[(*key, seen[key])].append((1 << n, matcher))
            seen[key] += matcher.op in (Op.EQUAL, Op.REGEX)
    return found


def _columns(rules: Sequence[Rule]) -> Iterator[tuple[str, _Met]]:
    """Yield columns: the label, and what tells the rules a value of it does not rule out."""
    for (label, op, _), entries in kinds(rules).items():
        if op in (Op.EQUAL, Op.NOT_EQUAL):
            yield label, _equal(entries, positive=op is Op.EQUAL)
        else:
            patterns = [(bit, matcher.pattern) for bit, matcher in entries if matcher.pattern is not None]
            met = _regex(patterns, whole=True, positive=op is Op.REGEX)
            yield label, _remembering(met)


def _equal(entries: Sequence[tuple[int, Matcher]], *, positive: bool) -> _Met:
    asking = reduce(or_, (bit for bit, _ in entries))
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
    asking = reduce(or_, (bit for bit, _ in entries), 0)
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
    remembered = lru_cache(maxsize=_VALUES)(met)
    return lambda value: remembered(_shown(value))


def _shown(value: str) -> str:
    """Return what regular expressions see of a value."""
    value = value[:VALUE_LENGTH]
    return value if value.isascii() else value.encode()[:VALUE_LENGTH].decode(errors="ignore")
