"""What a model is told and shown: all that leaves for the provider.

That is the text of the template, what the operator says of their own house (see `context`), the labels of the alert
that are allowed to leave, and such annotations, `summary`, `description`, `message` and `title` unless the settings say
otherwise. Other annotations (runbook and dashboard addresses among them), generatorURL and times never leave. Names
and values of an alert are masked first (see `masking`) and cut then, and no more than LABELS labels and as many
annotations go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from typing import Final

from proxy.alert import Alert, LabelSet
from proxy.classification.batches import ASKED
from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    SUMMARY_LENGTH,
    Category,
    Classification,
    Confidence,
    Severity,
)
from proxy.classification.context import Context, Service
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
"""What a template has to get along with, without services and with some."""
_SAMPLE_SERVICES: Final = (Service("a <sample>", "What it is for."), Service("another", "The same."))

_Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What leaves about one alert, and the way back for what comes."""

    messages: Sequence[Mapping[str, str]] = field(repr=False)
    """The chat. The last message shows the alert. All before it is the frame: what the model is told, and examples,
    each of them a message that shows an alert and one with the answer. Alerts that have the same template and the same
    examples have the same frame."""
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


@dataclass(frozen=True, slots=True)
class _Shown:
    """What may leave of an alert."""

    masked: Masked
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def text(self) -> str:
        shown = {"labels": self.labels, "annotations": self.annotations}
        return fenced(json.dumps(shown, ensure_ascii=False, indent=1))


class Prompts:
    """Makes prompts. Costs nothing until it is used."""

    def __init__(
        self,
        template: Template | None = None,
        *,
        context: Context | None = None,
        masking: Masking | None = None,
        labels: Sequence[str] = (ALL,),
        annotations: Sequence[str] = ANNOTATIONS,
        per_object: Collection[str] = PER_OBJECT,
    ) -> None:
        """`labels` and `annotations` name what may leave, ALL for any; a template that is None is the shipped one.

        Values of `per_object` labels are not put back into a verdict, which holds for other objects, too.
        """
        self._given = template
        self._context = context or Context()
        self._masking = masking or Masking()
        self._labels = tuple(labels)
        self._annotations = tuple(annotations)
        self._per_object = frozenset(per_object)
        self._systems: dict[int, _Message] = {}
        self._shown_examples: dict[int, tuple[_Shown, Sequence[Service]]] = {}
        self._example_turns: dict[tuple[int, int], tuple[_Message, _Message]] = {}

    @cached_property
    def version(self) -> str:
        """Names all that shapes a prompt besides the alert: 12 hex digits. Part of the class key."""
        limits = [LABELS, NAME_LENGTH, VALUE_LENGTH, LOOKED_AT, IN_ALL]
        template = self._templates[0].text
        shape = [template, ASKED, self._masking.version, self._labels, self._annotations, limits, _CONSTANTS]
        return hashlib.sha256(json.dumps([*shape, *self._context.shape]).encode()).hexdigest()[:12]

    def render(self, alert: Alert) -> Prompt:
        """Return what leaves about `alert`. Raises ClassifierUnusable when the template cannot cope with it."""
        try:
            return self._rendered(alert)
        except TemplateError as exc:
            raise ClassifierUnusable(f"the template of the prompt, line {exc.line} of {exc.name}: {exc}") from None

    def check(self) -> None:
        """Try the templates, and make what all alerts have in common. Raises TemplateError."""
        for wrong in self.problems():
            raise wrong

    def problems(self) -> Iterator[TemplateError]:
        """Yield what is wrong with each of the templates."""
        for n in range(len(self._templates)):
            try:
                self._check(n)
            except TemplateError as exc:
                yield exc

    def doubts(self) -> list[str]:
        """Return what is allowed in the context and yet worth a warning, each with where it stands."""
        from proxy.classification.context_checking import doubts  # late: alerts need none of it

        return list(doubts(self._context, self._templates[0], self._masking))

    @cached_property
    def _templates(self) -> Sequence[Template]:
        """The one for all alerts, and then those of the context."""
        name = "prompt.jinja"
        shipped = self._given or Template(resources.files(__package__).joinpath(name).read_text("utf-8"), name)
        return shipped, *(prompt.template for prompt in self._context.prompts)

    def _check(self, template: int) -> None:
        self._system(template)
        for alert in _SAMPLES:
            shown = self._shown(alert)
            self._user(template, shown, [])
            self._user(template, shown, _SAMPLE_SERVICES)
        for n, example in enumerate(self._context.examples):
            try:
                self._turns(template, n)
            except TemplateError as exc:
                raise TemplateError(exc.name, exc.line, f"{exc}; seen with the example {example.at}") from None

    def frame(self, alert: Alert) -> tuple[int, ...]:
        """Return what is the same for alerts whose prompts differ in the last message alone."""
        shared = self._shared(alert)
        own = self._context.prompt_of(shared)
        return 0 if own is None else 1 + own, *self._context.examples_of(shared)

    def _rendered(self, alert: Alert) -> Prompt:
        shared = self._shared(alert)
        template, *examples = self.frame(alert)
        frame = [self._system(template)]
        for example in examples:
            frame += self._turns(template, example)
        shown = self._shown(alert)
        user = self._user(template, shown, self._services(shared))
        return Prompt([*frame, user], shown.masked, shown.labels, shown.annotations)

    def _shared(self, alert: Alert) -> LabelSet:
        """Return what all alerts of the class have in common."""
        return {name: value for name, value in alert.labels.items() if name not in self._per_object}

    def _services(self, shared: LabelSet) -> Sequence[Service]:
        may_leave = {value for name, value in shared.items() if ALL in self._labels or name in self._labels}
        return self._context.services_of(shared, may_leave)

    # Made once for each template, each example, and each example by a template: the context bounds how many there are.

    def _system(self, template: int) -> _Message:
        if template not in self._systems:
            content = self._templates[template].system(_CONSTANTS)
            self._systems[template] = {"role": "system", "content": content}
        return self._systems[template]

    def _turns(self, template: int, example: int) -> tuple[_Message, _Message]:
        """Return an example as the model meets it."""
        key = template, example
        if key not in self._example_turns:
            given = self._context.examples[example]
            if example not in self._shown_examples:
                self._shown_examples[example] = self._shown(given.alert), self._services(self._shared(given.alert))
            user = self._user(template, *self._shown_examples[example])
            self._example_turns[key] = user, {"role": "assistant", "content": given.answer}
        return self._example_turns[key]

    def _user(self, template: int, shown: _Shown, services: Sequence[Service]) -> _Message:
        values: dict[str, object] = {
            "alert": shown.text,
            "labels": _inlined(shown.labels),
            "annotations": _inlined(shown.annotations),
            "services": [{"name": _inline(one.name), "about": _inline(one.about)} for one in services],
        }
        return {"role": "user", "content": self._templates[template].user(_CONSTANTS, values)}

    def _shown(self, alert: Alert) -> _Shown:
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
        return _Shown(masked, dict(pairs[: len(labels)]), dict(pairs[len(labels) :]))

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


def _inlined(texts: Mapping[str, str]) -> dict[str, str]:
    return {_inline(name): _inline(text) for name, text in texts.items()}


def _inline(text: str) -> str:
    return fenced(json.dumps(text, ensure_ascii=False)[1:-1])
