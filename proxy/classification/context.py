"""What an operator tells the model about their own house: services, examples of verdicts, templates for some alerts.

    services:
      - name: checkout
        about: Takes the money. Owned by team shop.
        matchers: ['service="checkout"']     Alertmanager's matchers; all must hold. Without any: a label has the name
    examples:
      - matchers: ['team="shop"']            without any: with every alert
        alert:
          labels: {alertname: QueueGrows, team: shop}
          annotations: {summary: The queue of mails grows}
        verdict:
          severity: info
          category: capacity
          confidence: high
          summary: Mails go out late.
          recommendations: [Look at the workers.]
    prompts:
      - matchers: ['team="db"']
        file: db.jinja                       beside this file; the first that matches, else the one for all

Which parts of it are for an alert is decided by what its whole class has in common, because the class shares the
verdict: the labels without those that name one object, and no annotation. So no matcher may ask for another label.

Everything is bounded, by the constants here: what a file may hold, and what of it one prompt shows.
`context_reading` makes a Context of a file, `context_checking` finds what is odd in one that can be read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from proxy.alert import Alert, LabelSet
from proxy.classification import answers
from proxy.classification.classification import Classification
from proxy.classification.templates import Template
from proxy.matchers import Matcher

FILE_LENGTH: Final = 200_000
"""Characters of a file."""
SERVICES: Final = 300
EXAMPLES: Final = 32
PROMPTS: Final = 16
"""So many of each a file may hold."""
SHOWN_SERVICES: Final = 5
SHOWN_EXAMPLES: Final = 4
"""So many of those that match one prompt shows, the first ones of the file."""
NAME_LENGTH: Final = 100
ABOUT_LENGTH: Final = 500
"""Characters of a service's name and of what is said about it."""
ALERT_LENGTH: Final = 4_000
"""Characters of an example's labels and annotations, names and values together."""
MATCHERS: Final = 16
"""So many matchers one entry may have."""
SIZE: Final = 5_000
"""Instructions of all regular expressions together: what a new class costs at worst grows with it."""
VALUE_LENGTH: Final = 300
"""So many characters of a label's value are shown to regular expressions."""


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """An entry of the glossary."""

    name: str
    about: str = field(repr=False)
    """Both in one line."""
    matchers: tuple[Matcher, ...] = ()
    """Empty: it is for alerts that have a label with its name as the value."""
    at: str = ""
    """Where it stands, as in `context.yaml:3`."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """An alert and the verdict that the operator wants for such."""

    alert: Alert
    verdict: Classification
    matchers: tuple[Matcher, ...] = ()
    """Empty: it is for all alerts."""
    at: str = ""

    @property
    def answer(self) -> str:
        """The verdict as a model would write it."""
        return json.dumps(answers.members(self.verdict), ensure_ascii=False)


@dataclass(frozen=True, slots=True, eq=False)
class OwnPrompt:
    """A template for the alerts that match."""

    matchers: tuple[Matcher, ...]
    template: Template
    at: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """All that a file says. An empty one is as good as none."""

    services: tuple[Service, ...] = ()
    examples: tuple[Example, ...] = ()
    prompts: tuple[OwnPrompt, ...] = ()

    def services_of(self, labels: LabelSet, shown: Collection[str]) -> list[Service]:
        """Return the services for alerts with `labels`, those of the whole class.

        `shown` are the values of such of these labels as may leave: a service that is found by its name tells one.
        """
        found = (s for s in self.services if (_match(s.matchers, labels) if s.matchers else s.name in shown))
        return list(islice(found, SHOWN_SERVICES))

    def examples_of(self, labels: LabelSet) -> list[int]:
        """Return the places in `examples` of those for alerts with `labels`."""
        found = (n for n, example in enumerate(self.examples) if _match(example.matchers, labels))
        return list(islice(found, SHOWN_EXAMPLES))

    def prompt_of(self, labels: LabelSet) -> int | None:
        """Return the place in `prompts` of the one for alerts with `labels`."""
        return next((n for n, prompt in enumerate(self.prompts) if _match(prompt.matchers, labels)), None)

    @property
    def shape(self) -> Sequence[object]:
        """All that can make two prompts differ, in JSON's types; not how the file is laid out."""
        return [
            [[s.name, s.about, _texts(s.matchers)] for s in self.services],
            [
                [sorted(e.alert.labels.items()), sorted(e.alert.annotations.items()), e.answer, _texts(e.matchers)]
                for e in self.examples
            ],
            [[p.template.text, _texts(p.matchers)] for p in self.prompts],
            [SHOWN_SERVICES, SHOWN_EXAMPLES, VALUE_LENGTH],
        ]


def _match(matchers: Sequence[Matcher], labels: LabelSet) -> bool:
    return all(_holds(matcher, labels) for matcher in matchers)


def _holds(matcher: Matcher, labels: LabelSet) -> bool:
    if matcher.pattern is None:
        return matcher.matches(labels)
    # Anybody may send a value of megabytes.
    return matcher.matches({matcher.name: labels.get(matcher.name, "")[:VALUE_LENGTH]})


def _texts(matchers: Sequence[Matcher]) -> list[str]:
    return [str(matcher) for matcher in matchers]
