"""The port to whatever gives a verdict from outside this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from proxy.alert import Alert
from proxy.classification.classification import Classification

Early = Callable[[Classification], None]
"""Hears a verdict whose severity, category and confidence are final for this answer, and whose text is missing."""


def unheard(_: Classification) -> None:
    """An `Early` for whoever needs the whole verdict."""


class Classifier(Protocol):
    """Gives verdicts. The model worker satisfies it. What users write is a `proxy.classifiers.Classifier`, in there."""

    async def classify(self, alert: Alert, early: Early = unheard, seconds: float | None = None) -> Classification:
        """Return the verdict on `alert`, with source `llm`.

        `early` is called at most once, before the call returns. The call then returns the same labels and does not
        fail any more: text that cannot be had is missing from the verdict.
        Bounded in time by the classifier itself, and by `seconds` if that is less: nobody waits any longer, so what
        would take longer is not begun. Raises ClassifierError, and nothing else on purpose.
        Cancelling it gives the call up.
        """
        ...


class BatchClassifier(Classifier, Protocol):
    """A Classifier that can be asked about several alerts at once."""

    async def classify_together(
        self, alerts: Sequence[Alert], seconds: float | None = None
    ) -> Sequence[Classification | None]:
        """Return the verdict on each of `alerts`, None for those that are to be asked alone.

        They have different names. Otherwise as `classify`; nothing is told early.
        """
        ...
