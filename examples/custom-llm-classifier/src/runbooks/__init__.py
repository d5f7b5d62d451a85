"""A classifier that finds the runbook which is most like an alert, by the words of both. It asks nobody."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from proxy.classifiers import Request, Setup, Undecided, Verdict

ALIKE = 0.2
"""Of 1, which is the same words. Below, a runbook is not about the alert."""
SURE = 0.4
"""From here on there is no doubt."""

_WORD = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]{2,}(?![a-z])")  # KubeletDiskFull has three


class Runbooks:
    """Read once, when the proxy starts its model worker."""

    def __init__(self, setup: Setup) -> None:
        path = os.environ.get("RUNBOOKS_FILE", "runbooks.yaml")
        self._runbooks = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        words = [Counter(_words([runbook["about"]])) for runbook in self._runbooks]
        found_in = Counter(word for one in words for word in one)
        # A word that is in every runbook tells nothing, one that is in a single one tells most.
        self._weight = {word: math.log(1 + len(words) / n) for word, n in found_in.items()}
        self._vectors = [self._vector(one) for one in words]

    def classify(self, request: Request) -> Verdict:
        given = self._vector(Counter(_words([*request.labels.values(), *request.annotations.values()])))
        likeness, best = max((_likeness(given, vector), n) for n, vector in enumerate(self._vectors))
        if likeness < ALIKE:
            raise Undecided(f"the best is {likeness:.2f} alike")
        runbook = self._runbooks[best]
        return Verdict(
            severity=runbook["severity"],
            category=runbook["category"],
            confidence="high" if likeness >= SURE else "medium",
            summary=runbook["summary"],
            recommendations=runbook["steps"],
        )

    def _vector(self, words: Mapping[str, int]) -> dict[str, float]:
        """Return the direction of a text, of length 1: words that no runbook has do not count."""
        vector = {word: (1 + math.log(n)) * self._weight[word] for word, n in words.items() if word in self._weight}
        length = math.hypot(*vector.values()) or 1.0
        return {word: value / length for word, value in vector.items()}


def _words(texts: Iterable[str]) -> list[str]:
    return [word.lower() for text in texts for word in _WORD.findall(text)]


def _likeness(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return sum(value * other.get(word, 0.0) for word, value in one.items())
