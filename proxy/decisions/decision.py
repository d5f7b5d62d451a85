"""What is added to an alert, and under which names."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice

from proxy.alert import Identity, LabelSet
from proxy.classification.classification import Category, Classification, Severity


class Treatment(StrEnum):
    """What a new alert gets."""

    PLAIN = "plain"
    ANNOTATE = "annotate"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is added to the alerts of one original label set for as long as they live."""

    identity: Identity
    """Of the labels as the sender gave them."""
    labels: LabelSet = field(default_factory=dict)
    """Part of the alert's identity in Alertmanager: never changes while it lives. Empty: the alert goes bare."""
    annotations: LabelSet = field(default_factory=dict)
    """Not part of the identity: may improve."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names under which a verdict is added; one place for writing them and for knowing them again."""

    severity_label: str = "ai_severity"
    category_label: str = "ai_category"
    annotation_prefix: str = "ai_"
    former: tuple[str, ...] = ()
    """Label names that were in use before these; alerts that carry them are known again, and keep them."""

    @property
    def labels(self) -> tuple[str, str]:
        """The label names."""
        return self.severity_label, self.category_label

    def label(self, identity: Identity, verdict: Classification) -> Decision:
        """Return the decision that labels and annotates."""
        labels = {self.severity_label: verdict.severity.value, self.category_label: verdict.category.value}
        return Decision(identity, labels, self._text(verdict) | {self._name("source"): verdict.source.value})

    def annotate(self, identity: Identity, verdict: Classification) -> Decision:
        """Return the decision that leaves the labels alone and says the verdict in annotations."""
        verdict_itself = {
            self._name("severity"): verdict.severity.value,
            self._name("category"): verdict.category.value,
            self._name("source"): verdict.source.value,
        }
        return Decision(identity, {}, verdict_itself | self._text(verdict))

    def improve(self, decision: Decision, verdict: Classification) -> Decision:
        """Return `decision` with the text of a later verdict; its labels, and where those came from, stay.

        An alert that goes bare stays bare.
        """
        if not decision.labels and not decision.annotations:
            return decision
        return self.comment(decision, verdict)

    def comment(self, decision: Decision, verdict: Classification) -> Decision:
        """Return `decision` with the text of a later verdict, also where it had none."""
        if not decision.labels:
            return self.annotate(decision.identity, verdict)
        source = {n: v for n, v in decision.annotations.items() if n == self._name("source")}
        return replace(decision, annotations=self._text(verdict) | source)

    def recognise(self, labels: LabelSet, annotations: LabelSet) -> tuple[LabelSet, LabelSet, LabelSet]:
        """Take apart an alert that Alertmanager holds: (original labels, our labels, our annotations).

        Ours are only the two labels together, with values of the closed sets; anything else is the sender's own.
        """
        severity = self._ours(labels, self.severity_label, set(Severity))
        category = self._ours(labels, self.category_label, set(Category))
        ours = severity | category if severity and category else {}
        texts = ("severity", "category", "source", "confidence", "summary", "recommendations", "runbook", "model")
        known = {self._name(text) for text in texts}
        return (
            {name: value for name, value in labels.items() if name not in ours},
            ours,
            {name: value for name, value in annotations.items() if name in known},
        )

    def _ours(self, labels: LabelSet, current: str, values: Set[str]) -> dict[str, str]:
        """Return the label of the `current` name, or else of a former one, that has one of `values`."""
        found = (name for name in (current, *self.former) if labels.get(name) in values)
        return {name: labels[name] for name in islice(found, 1)}

    def _text(self, verdict: Classification) -> dict[str, str]:
        text = {
            self._name("confidence"): verdict.confidence.value,
            self._name("summary"): verdict.summary,
            self._name("recommendations"): " ".join(f"{n}. {r}" for n, r in enumerate(verdict.recommendations, 1)),
            self._name("runbook"): verdict.runbook,
            # Of the text: labels that came before it have none yet.
            self._name("model"): verdict.model if verdict.summary or verdict.recommendations else "",
        }
        return {name: value for name, value in text.items() if value}

    def _name(self, text: str) -> str:
        return self.annotation_prefix + text
