"""What several models say about the same classes of alerts, in figures. Pure.

A verdict here is a severity and a category. What a model says about a class is the verdict that it gave most often. A
call that failed is no verdict: it is counted, and left out of every share.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from proxy.classification.classification import Category, Classification, Confidence, Severity
from proxy.classification.usage import NO_USAGE, Usage


@dataclass(frozen=True, slots=True)
class Call:
    """One question to one model, and how it ended."""

    model: int
    """Its place among those that are compared."""
    subject: int
    """The place of the class that it was asked about."""
    seconds: float
    """From the question to the whole verdict, retries included, or to the failure."""
    verdict: Classification | None
    """As the model gave it. None: it failed."""
    reason: str = ""
    """Of the failure, as ClassifierError has it, or `bug`."""
    error: str = ""
    """What is known of the failure."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one model says about one class."""

    severity: Severity
    category: Category
    confidence: Confidence
    """That came most often with this verdict."""
    times: int
    """How often it gave this verdict."""
    of: int
    """How many verdicts it gave."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two say the same, as shares of the classes on which both have a verdict; None where there is none."""

    classes: int
    severity: float | None
    category: float | None
    both: float | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What all calls of a model took, those that failed included."""

    usage: Usage = NO_USAGE
    priced: int = 0
    """Calls of which the price is known."""

    def plus(self, usage: Usage) -> Spent:
        """Return it with one more call."""
        return Spent(self.usage + usage, self.priced + (usage.cost_usd is not None))

    def cost_per_thousand(self, verdicts: int) -> float | None:
        """Return what 1,000 verdicts cost in US dollars, when there were so many; None when a price is not known."""
        if not verdicts or self.usage.cost_usd is None or self.priced < verdicts:
            return None
        return 1000 * self.usage.cost_usd / verdicts


def opinion(verdicts: Iterable[Classification]) -> Opinion | None:
    """Return what comes most often, the first of those that come equally often; None without a verdict."""
    given = list(verdicts)
    if not given:
        return None
    (severity, category), times = Counter((one.severity, one.category) for one in given).most_common(1)[0]
    sure = Counter(one.confidence for one in given if (one.severity, one.category) == (severity, category))
    return Opinion(severity, category, sure.most_common(1)[0][0], times, len(given))


def agreement(pairs: Iterable[tuple[Opinion | None, Opinion | None]]) -> Agreement:
    """Return how often the two of a pair say the same; each pair is about one class."""
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    severity = [one.severity is other.severity for one, other in both]
    category = [one.category is other.category for one, other in both]
    same = [s and c for s, c in zip(severity, category, strict=True)]
    return Agreement(len(both), share(severity), share(category), share(same))


def author_agreement(pairs: Iterable[tuple[Opinion | None, Severity | None]]) -> Agreement:
    """As above, with what the authors of the alerts say, who give no category."""
    severity = [one.severity is author for one, author in pairs if one is not None and author is not None]
    return Agreement(len(severity), share(severity), None, None)


def unanimous(opinions: Iterable[Opinion | None]) -> bool | None:
    """Return whether all that say something about a class say the same; None when fewer than two do."""
    given = [(one.severity, one.category) for one in opinions if one is not None]
    return len(set(given)) == 1 if len(given) > 1 else None


def steadiness(opinions: Iterable[Opinion | None]) -> float | None:
    """Return how often a model says of a class what it says most often, as a share of its verdicts.

    Of the classes on which it gave two verdicts or more; None when there is none: one verdict is always itself.
    """
    asked_again = [one for one in opinions if one is not None and one.of > 1]
    verdicts = sum(one.of for one in asked_again)
    return sum(one.times for one in asked_again) / verdicts if verdicts else None


def latency(calls: Iterable[Call]) -> tuple[float, float] | None:
    """Return the median and the longest time of the calls that gave a verdict, in seconds; None without one."""
    seconds = [call.seconds for call in calls if call.verdict is not None]
    return (statistics.median(seconds), max(seconds)) if seconds else None


def share(what: Collection[bool]) -> float | None:
    """Return how many of them are so, from 0 to 1; None of nothing."""
    return sum(what) / len(what) if what else None


def failures(calls: Sequence[Call]) -> Counter[tuple[str, str]]:
    """Return how many calls failed, by reason and what is known of it, the most frequent first."""
    counted = Counter((call.reason, call.error) for call in calls if call.verdict is None)
    return Counter(dict(counted.most_common()))
