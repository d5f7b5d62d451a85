"""What a model is told and shown: all that leaves for the provider.

That is the text of the template, the labels of the alert that are allowed to leave, and such annotations, `summary`,
`description`, `message` and `title` unless the settings say otherwise. Other annotations (runbook and dashboard
addresses among them), generatorURL and times never leave. Names and values are masked first (see `masking`) and cut
then, and no more than LABELS labels and as many annotations go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from typing import Final

from proxy.alert import Alert, LabelSet
from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    SUMMARY_LENGTH,
    Category,
    Classification,
    Confidence,
    Severity,
)
from proxy.classification.masking import IN_ALL, LOOKED_AT, Field, Masked, Masking, cut
from proxy.classification.secrets import names_a_secret
from proxy.classification.templates import Template, TemplateError
from proxy.errors import ClassifierUnusable
from proxy.policy import PER_OBJECT

ALL: Final = "*"
"""Stands for every name."""
ANNOTATIONS: Final = ("summary", "description", "message", "title")
"""The annotations that leave unless it is said otherwise."""
LABELS: Final = 64
"""At most so many labels leave, and at most so many annotations."""
NAME_LENGTH: Final = 128
VALUE_LENGTH: Final = 500
"""In characters, placeholders counted as they stand."""

_TELLING: Final = ("alertname", "severity")

_CONSTANTS: Final[Mapping[str, object]] = {
    "severities": tuple(s.value for s in Severity),
    "categories": tuple(c.value for c in Category),
    "confidences": tuple(c.value for c in Confidence),
    "summary_length": SUMMARY_LENGTH,
    "recommendation_length": RECOMMENDATION_LENGTH,
    "recommendations": RECOMMENDATIONS,
}

_SAMPLES: Final = (
    Alert({"alertname": "Sample"}),
    Alert(
        {"alertname": "DiskFull", "severity": "warning", "team": "db", "instance": "10.0.0.7:9100"},
        {name: f"The {name} of <a sample>." for name in ANNOTATIONS},
    ),
)
"""What a template has to get along with."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What leaves about one alert, and the way back for what comes."""

    messages: Sequence[Mapping[str, str]] = field(repr=False)
    """The chat: one system message, the same for all alerts, and one user message."""
    masked: Masked = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Those that the chat shows, as it shows them."""
    annotations: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As above."""

    def restored(self, verdict: Classification) -> Classification:
        """Return `verdict` with its text in words for people: see `Masked.restore`."""
        restore = self.masked.restore
        return replace(
            verdict, summary=restore(verdict.summary), recommendations=tuple(map(restore, verdict.recommendations))
        )


class Prompts:
    """Makes prompts by one template. Costs nothing until it is used."""

    def __init__(
        self,
        template: Template | None = None,
        *,
        masking: Masking | None = None,
        labels: Sequence[str] = (ALL,),
        annotations: Sequence[str] = ANNOTATIONS,
        per_object: Collection[str] = PER_OBJECT,
    ) -> None:
        """`labels` and `annotations` name what may leave, ALL for any; None takes what is shipped.

        Values of `per_object` labels are not put back into a verdict, which holds for other objects, too.
        """
        self._given = template
        self._masking = masking or Masking()
        self._labels = tuple(labels)
        self._annotations = tuple(annotations)
        self._per_object = frozenset(per_object)

    @cached_property
    def version(self) -> str:
        """Names all that shapes a prompt besides the alert: 12 hex digits. Part of the class key."""
        limits = [LABELS, NAME_LENGTH, VALUE_LENGTH, LOOKED_AT, IN_ALL]
        shape = [self._template.text, self._masking.version, self._labels, self._annotations, limits, _CONSTANTS]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:12]

    def render(self, alert: Alert) -> Prompt:
        """Return what leaves about `alert`. Raises ClassifierUnusable when the template cannot cope with it."""
        try:
            return self._rendered(alert)
        except TemplateError as exc:
            raise ClassifierUnusable(f"the template of the prompt, line {exc.line}: {exc}") from None

    def check(self) -> None:
        """Try the template. Raises TemplateError."""
        for alert in _SAMPLES:
            self._rendered(alert)

    @cached_property
    def _template(self) -> Template:
        name = "prompt.jinja"
        return self._given or Template(resources.files(__package__).joinpath(name).read_text("utf-8"), name)

    @cached_property
    def _system(self) -> str:
        return self._template.system(_CONSTANTS)

    def _rendered(self, alert: Alert) -> Prompt:
        labels = _allowed(alert.labels, self._labels, sorted(alert.labels, key=_telling_first))
        annotations = _allowed(alert.annotations, self._annotations, sorted(alert.annotations))
        fields = [
            *(field for name in labels for field in self._fields(name, alert.labels[name], shared=True)),
            *(field for name in annotations for field in self._fields(name, alert.annotations[name], shared=False)),
        ]
        masked = self._masking.mask(fields)
        pairs = [
            (cut(name, NAME_LENGTH), cut(value, VALUE_LENGTH))
            for name, value in zip(masked.texts[::2], masked.texts[1::2], strict=True)
        ]
        shown = {"labels": dict(pairs[: len(labels)]), "annotations": dict(pairs[len(labels) :])}
        values: dict[str, object] = {
            part: {_inline(name): _inline(value) for name, value in mapping.items()} for part, mapping in shown.items()
        }
        values["alert"] = fenced(json.dumps(shown, ensure_ascii=False, indent=1))
        user = self._template.user(_CONSTANTS, values)
        messages = [{"role": "system", "content": self._system}, {"role": "user", "content": user}]
        return Prompt(messages, masked, **shown)

    def _fields(self, name: str, value: str, *, shared: bool) -> tuple[Field, Field]:
        shared = shared and name not in self._per_object
        telling = name in _TELLING
        return Field(name, shared=shared, telling=telling), Field(
            value, secret=names_a_secret(name), shared=shared, telling=telling
        )


def _allowed(given: LabelSet, allowed: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names that may leave: in the order of the alert's `known` names, or of a list without ALL."""
    return [name for name in (known if ALL in allowed else dict.fromkeys(allowed)) if name in given][:LABELS]


def _telling_first(name: str) -> tuple[bool, bool, str]:
    return name != _TELLING[0], name != _TELLING[1], name


# What could close a tag or a block of code, and letters that nobody can see. JSON knows them by number, too.
_INVISIBLE: Final = ("\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u3164", "\uffa0")
_SELECTORS: Final = (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))


def _by_number(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


_FENCED: Final = {ord(c): _by_number(c) for c in ("<", ">", "&", "`", *_INVISIBLE, *map(chr, _SELECTORS))}


def fenced(data: str) -> str:
    """Return JSON that says the same in characters that can be seen, none of which closes anything around it."""
    text = data.translate(_FENCED)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _by_number(c) for c in text)


def _inline(text: str) -> str:
    return fenced(json.dumps(text, ensure_ascii=False)[1:-1])
