"""Alertmanager's matchers: which alerts a setting or a rule is about.

    matchers  = "{" list "}" | list
    list      = [ matcher { "," matcher } [ "," ] ]
    matcher   = name op value                       with any whitespace around each
    name      = [a-zA-Z_:][a-zA-Z0-9_:]*  |  quoted (for UTF-8 names)
    op        = "="  equal        "!="  not equal
                "=~" matches      "!~"  does not match
    value     = quoted  |  bare (no quote, comma or brace; may be empty)
    quoted    = '"' … '"'   with \\" for a quote, \\\\ for a backslash, \\n for a line feed; commas stand for themselves

    severity="critical"
    {alertname=~"Watchdog|InfoInhibitor", team!="", }
    instance=~db-[0-9]+, cluster=eu

A label an alert does not have is the empty string: `team=""` holds for alerts without a team. A regular expression
matches the whole value, and its `.` no line feed, as in Alertmanager.

Label values come from anywhere, and `(a+)+` on the wrong value would hold Python's `re` up for years. So patterns are
RE2's, as in Alertmanager: one language, and time linear in the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import re2

from proxy.alert import LabelSet

PATTERN_LENGTH = 1000
"""Longer regular expressions are refused."""
PATTERN_MEMORY = 1 << 20
"""Bytes that suffice for a pattern a person writes. To make a larger one holds up everything else for 0.1 s."""
_SET_MEMORY, _SET_MEMORY_PER_INSTRUCTION = 1 << 20, 1024
"""Bytes that a set of patterns may use; RE2 begins anew with its automaton when they are full."""


class Op(StrEnum):
    """How a matcher compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label. Raises ValueError for an unknown op, an empty name or an unusable pattern."""

    name: str
    op: Op
    value: str
    _pattern: Pattern | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError('a matcher needs a label name, for example alertname="Watchdog"')
        object.__setattr__(self, "op", Op(self.op))
        if self.op in (Op.REGEX, Op.NOT_REGEX):
            object.__setattr__(self, "_pattern", Pattern(self.value, memory=PATTERN_MEMORY))

    @property
    def pattern(self) -> Pattern | None:
        """Its regular expression, if it is one."""
        return self._pattern

    def matches(self, labels: LabelSet) -> bool:
        """Return whether the condition holds for `labels`."""
        value = labels.get(self.name, "")
        if self._pattern is None:
            return (value == self.value) is (self.op is Op.EQUAL)
        return self._pattern.fullmatch(value) is (self.op is Op.REGEX)

    def __str__(self) -> str:
        """Return the matcher as Alertmanager writes it; parse_matcher reads it back."""
        name = self.name if _NAME.fullmatch(self.name) else _quoted(self.name)
        return f"{name}{self.op}{_quoted(self.value)}"


def matches_all(matchers: Iterable[Matcher], labels: LabelSet) -> bool:
    """Return whether every matcher holds for `labels`; none at all hold for everything."""
    return all(matcher.matches(labels) for matcher in matchers)


def parse_matcher(text: str) -> Matcher:
    """Return the one matcher `text` holds. Raises ValueError with what to write instead."""
    found = parse_matchers(text)
    if len(found) != 1:
        raise ValueError(f"want one matcher, not {len(found)}, in {text!r}")
    return found[0]


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Return the matchers of `text`, in order; none for empty text. Raises ValueError with what to write instead."""
    inner = text.strip()
    if inner.startswith("{"):
        if not inner.endswith("}"):
            raise ValueError(f"missing }} at the end of {text!r}")
        inner = inner[1:-1].rstrip()
    found = []
    at = 0
    while at < len(inner):
        token = _MATCHER.match(inner, at)
        if token is None:
            raise ValueError(
                f'bad matcher at {inner[at:].strip()!r}: want name="value" with one of = != =~ !~; '
                "quote values that hold quotes, commas or braces"
            )
        name, quoted_name, op, quoted_value, bare = token.groups()
        found.append(
            Matcher(
                _unquoted(quoted_name) if name is None else name,
                Op(op),
                _unquoted(bare.strip() if quoted_value is None else quoted_value),
            )
        )
        at = token.end()
    return tuple(found)


_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_MATCHER = re.compile(
    r"""
    \s* (?: ([a-zA-Z_:][a-zA-Z0-9_:]*) | "((?:[^"\\]|\\.)*)" )
    \s* (=~|!~|!=|=)
    \s* (?: "((?:[^"\\]|\\.)*)" \s* | ((?:[^",{}\\]|\\"?)*) )
    (?: , \s* | \Z )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r'\\([n"\\])')


def _unquoted(text: str) -> str:
    # A backslash before anything else stands for itself: "\d+" is a pattern, as in Alertmanager.
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'"{escaped}"'


class Pattern:
    """A regular expression of RE2, the language of Go and so of Alertmanager, in time linear in the text.

    Raises ValueError for what RE2 cannot read: backreferences and lookaround among it, which have no linear time; and
    for what would take it more than `memory` bytes.
    """

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str, *, ignore_case: bool = False, memory: int = 8 << 20) -> None:
        if len(text) > PATTERN_LENGTH:
            raise ValueError(f"a regular expression longer than {PATTERN_LENGTH} characters: split it")
        options = re2.Options()
        options.case_sensitive = not ignore_case
        options.log_errors = False
        options.max_mem = memory
        try:
            self._compiled = re2.compile(text, options)
        except re2.error as exc:
            why = exc.args[0].decode() if isinstance(exc.args[0], bytes) else exc
            raise ValueError(f"bad regular expression {text!r}: {why}") from None
        self.text = text

    @property
    def size(self) -> int:
        """Its instructions: what a search costs at worst, for each character of the text."""
        return int(self._compiled.programsize)

    @property
    def is_counted(self) -> bool:
        """Whether it may hold a counted repetition, such as `x{3,9}`."""
        return "{" in self.text

    def fullmatch(self, text: str) -> bool:
        """Return whether the pattern describes all of `text`."""
        return self._compiled.fullmatch(text) is not None

    def search(self, text: str) -> bool:
        """Return whether the pattern describes some part of `text`."""
        return self._compiled.search(text) is not None

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where the pattern describes parts of `text`: its first group that took part, or else all of it."""
        for found in self._compiled.finditer(text):
            groups = (found.span(group) for group in range(1, self._compiled.groups + 1))
            yield next((span for span in groups if span[0] >= 0), found.span())


class PatternSet:
    """Many patterns that are looked for in one pass: a thousand cost hardly more than one.

    The pass is that of one automaton, made while it is used. Counted repetitions can make it anew with each character,
    so patterns that hold one are asked singly; RE2 has a slower and steadier way for those.
    """

    def __init__(self, patterns: Sequence[Pattern], *, ignore_case: bool = False, whole: bool = False) -> None:
        """Take patterns made with the same `ignore_case`; `whole`: they are to describe all of a text.

        Raises ValueError when they are too large together.
        """
        self._patterns = tuple(patterns)
        self._whole = whole
        self._single = [n for n, pattern in enumerate(patterns) if pattern.is_counted]
        self._together = [n for n, pattern in enumerate(patterns) if not pattern.is_counted]
        options = re2.Options()
        options.case_sensitive = not ignore_case
        options.log_errors = False
        options.max_mem = _SET_MEMORY + _SET_MEMORY_PER_INSTRUCTION * sum(pattern.size for pattern in patterns)
        self._set = re2.Set.FullMatchSet(options) if whole else re2.Set.SearchSet(options)
        try:
            for n in self._together:
                self._set.Add(patterns[n].text)
            # Found in everything. RE2 finds nothing at all when its memory does not suffice, and says nothing of it.
            self._set.Add("(?s:.*)")
            self._set.Compile()
        except re2.error:
            raise ValueError("the regular expressions are too large together") from None
        if self._set.Match("") is None:
            raise ValueError("the regular expressions are too large together")

    def find(self, text: str) -> list[int]:
        """Return the numbers of the patterns that describe `text`, or some part of it; in no order."""
        found = self._set.Match(text)
        if found is None:
            return [n for n in range(len(self._patterns)) if self._holds(n, text)]
        together = self._together
        return [together[n] for n in found if n < len(together)] + [n for n in self._single if self._holds(n, text)]

    def _holds(self, n: int, text: str) -> bool:
        pattern = self._patterns[n]
        return pattern.fullmatch(text) if self._whole else pattern.search(text)
