"""What a matcher of Alertmanager's on our labels can match: the proxy adds two of them, with values of closed sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxy.classification.classification import Category, Severity
from proxy.config import closest
from proxy.decisions.decision import Names
from proxy.matchers import Matcher, Op
from proxy.policy import Mode

_TEXTS: Final = ("confidence", "summary", "recommendations", "runbook", "source", "model", "severity", "category")
"""What annotations are named, behind their prefix."""
_USUAL: Final = Names()


class Fate(StrEnum):
    """What becomes of a matcher."""

    OTHERS = "others"
    """It is about a label that is not ours."""
    NEVER = "never"
    UNLIKELY = "unlikely"
    """Only for alerts that got the label from somebody else, or long ago."""
    NOT_IN_THIS_MODE = "not in this mode"
    ALWAYS = "always"
    DEPENDS = "depends"
    """On the verdict, as it is meant."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A matcher, and what becomes of it."""

    matcher: Matcher
    fate: Fate
    why: str = ""
    """For the operator."""
    holds_for: frozenset[str] | None = None
    """The values for which it holds, "" for none at all; None: it is not about one of our two labels."""


class AddedLabels:
    """The labels that the proxy adds to alerts, as its settings name them."""

    def __init__(self, names: Names, mode: Mode) -> None:
        self.mode = mode
        self._names = names
        self._values: Mapping[str, frozenset[str]] = {
            names.severity_label: frozenset(map(str, Severity)),
            names.category_label: frozenset(map(str, Category)),
        }
        self._renamed = {
            usual: now for usual, now in zip(_USUAL.labels, names.labels, strict=True) if usual not in names.labels
        }
        self._prefixes = tuple({names.annotation_prefix, _USUAL.annotation_prefix})
        self._annotations = {prefix + text for prefix in self._prefixes for text in _TEXTS}

    def concerns(self, name: str) -> bool:
        """Return whether a label of this name is one of ours, or is meant to be one."""
        return name in self._values or name in self._names.former or name.startswith(self._prefixes)

    def mentioned(self, text: str) -> bool:
        """Return whether a text may hold such a name."""
        return any(word in text for word in (*self._values, *self._names.former, *self._prefixes))

    def unknown(self, name: str) -> str:
        """Return why no alert has a label of this name, which is meant to be one of ours; empty: alerts have it."""
        if name in self._values:
            return ""
        if name in self._names.former:
            return f"{name} is a former name: only alerts that were labelled before the renaming carry it"
        if now := self._renamed.get(name):
            return f"alerts carry it under the name {now}, as enrichment.severity_label and .category_label say"
        if name in self._annotations:
            return f"{name} is an annotation, and Alertmanager matches labels alone"
        near = closest(name, list(self._values))
        return f"the proxy adds no label {name}" + (f"; did you mean {near}?" if near else "")

    def judged(self, matcher: Matcher) -> Judged:
        """Return what becomes of `matcher`."""
        name = matcher.name
        if not self.concerns(name):
            return Judged(matcher, Fate.OTHERS)
        if why := self.unknown(name):
            if matcher.matches({}):
                return Judged(matcher, Fate.ALWAYS, why)
            ours = name in self._renamed or name in self._annotations or "did you mean" in why
            return Judged(matcher, Fate.NEVER if ours and name not in self._names.former else Fate.UNLIKELY, why)
        values = self._values[name]
        holds_for = frozenset(value for value in ("", *values) if matcher.matches({name: value} if value else {}))
        if not holds_for:
            return Judged(matcher, Fate.NEVER, self._no_value(matcher, values), holds_for)
        if len(holds_for) == len(values) + 1:
            return Judged(matcher, Fate.ALWAYS, f"{name} has no such value", holds_for)
        if "" not in holds_for and self.mode is not Mode.ENRICHED:
            return Judged(matcher, Fate.NOT_IN_THIS_MODE, f"in mode {self.mode} no new alert gets {name}", holds_for)
        return Judged(matcher, Fate.DEPENDS, "", holds_for)

    def contradicts(self, judged: Sequence[Judged]) -> str:
        """Return the label for which `judged`, that are to hold together, leave no value; empty: there is one."""
        for name in self._values:
            left: frozenset[str] | None = None
            for one in judged:
                if one.matcher.name == name and one.holds_for is not None:
                    left = one.holds_for if left is None else left & one.holds_for
            if left is not None and not left:
                return name
        return ""

    def _no_value(self, matcher: Matcher, values: frozenset[str]) -> str:
        kind: type[StrEnum] = Severity if matcher.name == self._names.severity_label else Category
        near = closest(matcher.value, list(values)) if matcher.op is Op.EQUAL else None
        hint = f"; did you mean {near}?" if near else ""
        return f"{matcher.name} is one of {', '.join(kind)}{hint}"
