"""The port to whatever gives a verdict from outside this process."""

from __future__ import annotations

from typing import Protocol

from proxy.alert import Alert
from proxy.classification.classification import Classification


class Classifier(Protocol):
    """Gives verdicts. Custom classifiers and the model worker satisfy it."""

    async def classify(self, alert: Alert) -> Classification:
        """Return the verdict on `alert`, with source `llm`.

        Bounded in time by the classifier itself. Raises ClassifierError, and nothing else on purpose.
        Cancelling it gives the call up.
        """
        ...
