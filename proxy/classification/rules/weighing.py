"""What a regular expression costs at worst for each byte of a text that it has not met.

RE2 keeps a set of places in the expression at which a text may be, and makes that set anew for each byte that leads to
one it does not know. The weight bounds how many places there can be at once. It is counted on the expression itself, so
it is the same everywhere, and no clock decides whether a table is read.

    \\bdisk\\b            inside a word whose beginning is known there is one place
    \\b(disk|volume)\\b   a place for each word; `\\b` before it is one, too
    disk                 a word may begin at each letter, so each of its letters may be a place, and counts 5
    \\bdisk.*full         after `.*` again each letter
    (a|b)*, a{3,9}, …    whatever else: twice its instructions, as measured
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxy.classification.rules.conditions import kinds
from proxy.classification.rules.table import MATCHERS_WEIGHT, PATTERNS_WEIGHT, Rule
from proxy.matchers import Pattern

_ANY = 12
"""A dot is several places: UTF-8 has characters of four lengths."""
_LETTER = 5
"""A letter that many offsets lead to. It counts for more than one place in a word: it is there at most bytes."""
_OTHERS = 2
_FREE = 1 << 30
"""So many offsets: the text may have got here from anywhere."""
_DEPTH = 20

_TOKEN = re.compile(
    r"""
    (?P<edge> \\b | \^ | \$ | \(\?i\) )
    | (?P<open> \( (?:\?:)? (?!\?) )
    | (?P<close> \) )
    | (?P<or> \| )
    | (?P<any> \. | \\[wWsSD] )
    | (?P<letter> \\d | \\[^a-zA-Z0-9] | [^\\.^$()\[\]{}|*+?] | \[ [a-zA-Z0-9_.:/-]+ \] )
    """,
    re.VERBOSE | re.ASCII,
)
_LOOP = re.compile(r"[*+]\??")
_MAYBE = re.compile(r"\?\??")


def too_heavy(rules: Sequence[Rule]) -> Iterator[tuple[Rule, str]]:
    """Yield what weighs too much together, with the rule that has the heaviest part of it."""
    for what, weights, most, instead in (
        ("patterns", pattern_weights(rules), PATTERNS_WEIGHT, r"words between \b"),
        ("regular expressions on labels", matcher_weights(rules), MATCHERS_WEIGHT, "= and (a|b)"),
    ):
        total = sum(weights.values())
        if total > most:
            heaviest = max(weights, key=weights.__getitem__)
            message = (
                f"the {what} weigh {total} together, want at most {most}; {heaviest.name} has the heaviest, "
                f"{weights[heaviest]}; use {instead} where you can, and fewer"
            )
            yield heaviest, message


def pattern_weights(rules: Sequence[Rule]) -> dict[Rule, int]:
    """Return what each pattern weighs, with the first rule that has it: one that is there twice is asked once."""
    first = {rule.pattern.text: rule for rule in reversed(rules) if rule.pattern}
    return {rule: weight(rule.pattern) for rule in first.values() if rule.pattern}


def matcher_weights(rules: Sequence[Rule]) -> dict[Rule, int]:
    """Return what the regular expressions of rules' matchers weigh: each once for a label and a comparison."""
    weights: dict[Rule, int] = {}
    for entries in kinds(rules).values():
        first = {m.pattern.text: (bit, m.pattern) for bit, m in reversed(entries) if m.pattern}
        for bit, pattern in first.values():
            rule = rules[bit.bit_length() - 1]
            weights[rule] = weights.get(rule, 0) + weight(pattern, whole=True)
    return weights


def weight(pattern: Pattern, *, whole: bool = False) -> int:
    """Return how many places `pattern` may be at, when it is searched in words, or has to describe all of a text."""
    reader = _Reader(pattern.text, whole)
    try:
        reader.alternatives(1 if whole else _FREE, 0)
        if reader.at < len(pattern.text):
            raise _OtherError
    except _OtherError:
        return _OTHERS * pattern.size
    return reader.places


class _OtherError(Exception):
    """The expression is more than words, alternatives and gaps."""


@dataclass(slots=True)
class _Reader:
    """Reads an expression once, from the left.

    `offsets` is in how many ways a text can have come to a place: 1 right behind the beginning of a word.
    """

    text: str
    whole: bool
    at: int = 0
    places: int = 0

    def alternatives(self, offsets: int, depth: int) -> int:
        """Read up to a closing parenthesis or the end. Return the offsets behind it."""
        if depth > _DEPTH:
            raise _OtherError
        behind = self._sequence(offsets, depth)
        while self.text.startswith("|", self.at):
            self.at += 1
            behind += self._sequence(offsets, depth)
        return min(behind, _FREE)

    def _sequence(self, offsets: int, depth: int) -> int:
        run = 0
        """Places of this run of letters so far; no more than offsets."""
        while (token := _TOKEN.match(self.text, self.at)) and token.lastgroup not in ("or", "close"):
            self.at = token.end()
            kind, before = token.lastgroup, offsets
            if kind == "edge":
                self.places += run == 0  # behind a word it stands for that word's place
                if not self.whole and token[0] in ("\\b", "^"):
                    offsets, run = 1, 0
                continue
            if kind == "open":
                offsets = self.alternatives(offsets, depth + 1)
                if not self.text.startswith(")", self.at):
                    raise _OtherError
                self.at += 1
                run = 0
                if _LOOP.match(self.text, self.at):
                    raise _OtherError
            elif kind == "any":
                self.places += _ANY
                offsets, run = _FREE, 0
            elif run < offsets:
                ranges = max(1, len(token[0]) // 3)
                self.places += ranges * (_LETTER if offsets >= _FREE else 1)
                run += 1
            if loop := _LOOP.match(self.text, self.at):
                self.at = loop.end()
                offsets = _FREE
            elif maybe := _MAYBE.match(self.text, self.at):
                self.at = maybe.end()
                offsets = min(offsets + (before if kind == "open" else 1), _FREE)
            elif token[0] == " " and not self.whole:
                offsets, run = 1, 0  # the next word begins here
        return offsets
