"""What a table of rules holds, as it was read: the reader makes it, Rules and the checks go by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from proxy.alert import LabelSet
from proxy.classification.classification import Category, Severity
from proxy.matchers import Matcher, Op, Pattern

RULES = 2_000
"""So many rules a table may have, and so many overrides."""
SIZE = 30_000
"""So many instructions its regular expressions may have together: memory, and time to read them."""
PATTERNS_WEIGHT = 2_000
"""So much its patterns may weigh together. What a new alertname costs at worst grows with it. The shipped ones fit."""
MATCHERS_WEIGHT = 800
"""The same of the regular expressions on labels, each counted for each label it is on."""
MATCHERS = 16
"""So many matchers a rule may have."""
COLUMNS = 100
"""So many kinds of matchers a table may have: a label and a comparison."""
EXAMPLES = 32
"""So many examples a rule may have."""
WORD_LENGTH = 64
"""So many characters an author's severity may have."""
RUNBOOK_LENGTH = 300

AUTHOR, OVERRIDE, DEFAULT = "author", "override", "default"
"""Who decides when no rule does; no rule may be called so."""


@dataclass(frozen=True, slots=True)
class Text:
    """What people read."""

    summary: str = ""
    recommendations: tuple[str, ...] = ()
    runbook: str = ""
    """A URL."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One row of the table."""

    name: str
    match: tuple[Matcher, ...] = ()
    pattern: Pattern | None = None
    severity: Severity | None = None
    category: Category | None = None
    text: Text = Text()
    examples: tuple[str, ...] = ()
    """Alertnames for which this rule is to decide."""
    at: str = ""
    """Where it stands: `rules.yaml:41`."""

    @property
    def conditions(self) -> tuple[frozenset[str], str | None]:
        """What it asks for; two rules with equal ones match the same alerts."""
        return frozenset(str(matcher) for matcher in self.match), self.pattern.text if self.pattern else None

    def example(self, name: str) -> LabelSet:
        """Return the labels of an alert of that name, with those the rule's own `=` matchers ask for."""
        return {m.name: m.value for m in self.match if m.op is Op.EQUAL} | {"alertname": name}


@dataclass(frozen=True, slots=True)
class Override:
    """What is said of all alerts of one alertname, whatever the rules say."""

    severity: Severity | None = None
    force: bool = False
    """The severity holds against the author's, too."""
    category: Category | None = None
    text: Text = Text()
    at: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A test of a table: labels, and what is to come of them. None is not asked for."""

    labels: LabelSet
    severity: Severity | None = None
    category: Category | None = None
    rule: str | None = None
    at: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One file."""

    origin: str = ""
    author_labels: tuple[str, ...] = ()
    """Lower case; asked in this order."""
    author_words: Mapping[str, Severity] = field(default_factory=dict)
    """Normalised."""
    defaults: Mapping[Category, Text] = field(default_factory=dict)
    """Texts for alerts whose rules have none."""
    rules: tuple[Rule, ...] = ()
    overrides: Mapping[str, Override] = field(default_factory=dict)
    """By alertname."""
    cases: tuple[Case, ...] = ()


def is_link(text: str) -> bool:
    """Return whether `text` may be a runbook."""
    if len(text) > RUNBOOK_LENGTH or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:  # half an IPv6 address
        return False
