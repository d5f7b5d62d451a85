"""What is odd in a context that can be read: entries that no prompt shows, and what looks like a secret."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from proxy.classification.context import SHOWN_EXAMPLES, SHOWN_SERVICES, Context, Example, OwnPrompt, Service
from proxy.classification.masking import Field, Masking
from proxy.classification.secrets import Kind
from proxy.classification.templates import Template


def doubts(context: Context, template: Template, masking: Masking) -> Iterator[str]:
    """Yield what is worth a warning, each as `file:line: what, what to do`. `template` is the one for all alerts."""
    yield from _never_shown("service", context.services, SHOWN_SERVICES)
    yield from _never_shown("example", context.examples, SHOWN_EXAMPLES)
    yield from _never_shown("prompt", context.prompts, 1)
    if context.services:
        for one in (template, *(prompt.template for prompt in context.prompts)):
            if "services" not in one.text:
                yield f"{one.name}:1: it shows no services; want {{% for service in services %}} in its block user"
    yield from _secrets(context, masking)


def _never_shown(what: str, entries: Sequence[Service | Example | OwnPrompt], shown: int) -> Iterator[str]:
    """Yield entries with so many before them, for the same alerts or more, that there is no room for them."""
    asked = [_asks(entry) for entry in entries]
    for n, entry in enumerate(entries):
        before = [entries[other].at for other in range(n) if asked[other] <= asked[n]]
        if len(before) >= shown:
            yield (
                f"{entry.at}: this {what} is never shown: {', '.join(before[:shown])} match whenever it does, and at "
                f"most {shown} are shown; move it up, or take it out"
            )


def _asks(entry: Service | Example | OwnPrompt) -> frozenset[str]:
    """Return the conditions of an entry: one with fewer of them is for more alerts."""
    if isinstance(entry, Service) and not entry.matchers:
        return frozenset({f"the name {entry.name}"})
    return frozenset(map(str, entry.matchers))


def _secrets(context: Context, masking: Masking) -> Iterator[str]:
    texts = [
        *((service.at, text) for service in context.services for text in (service.name, service.about)),
        # Its alert is masked as any other.
        *((e.at, text) for e in context.examples for text in (e.verdict.summary, *e.verdict.recommendations)),
    ]
    for at, text in texts:
        if {Kind.SECRET, Kind.PRIVATE} & {*masking.mask([Field(text)]).counts}:
            yield f"{at}: it looks as if it held a secret, and leaves as it is written; take it out"
