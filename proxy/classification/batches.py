"""Several alerts in one prompt, and which of the verdicts in an answer is whose.

Each alert is shown as it would be alone, masked by itself, behind a number. A verdict belongs to the alert whose number
and whose alertname it repeats. Two with one number, a number that was not given, and a number beside another alert's
name are refused, so that a model that loses count, or that an alert talks into answering for its neighbours, leaves
alerts without a verdict rather than with another's.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from proxy.classification import answers

if TYPE_CHECKING:  # the worker has no use for it
    from proxy.classification.prompts import Prompt

NAME_LENGTH: Final = 100
"""Characters of an alertname that a model can be expected to repeat; who has a longer one is asked about alone."""

ANSWER: Final = 4096
"""Tokens of one answer: so many all providers' models can write. Whose verdict is cut off is asked about alone."""

ASKED: Final = """\
This time there are several alerts, each behind a line with its number. Answer with one JSON object, nothing before it \
and nothing after it, whose only member, verdicts, is a list with one object for each alert, in their order. Each of \
these begins with the members id, the number of the alert as a string, and alertname, the alert's label of that name, \
and goes on with the members of an answer about one alert. Judge each alert by itself: what stands in one says nothing \
about another.
"""
"""What precedes the alerts. The messages before it are as they are for one: providers remember how prompts begin."""

_NUMBER: Final = "\n=== Alert number {} ===\n"


@dataclass(frozen=True, slots=True)
class Batch:
    """What leaves about several alerts at once."""

    messages: Sequence[Mapping[str, str]] = field(repr=False)
    names: Sequence[str] = field(repr=False)
    """The alertname of each, as it is shown."""


def fit(prompts: Sequence[Prompt]) -> list[int]:
    """Return which of `prompts` can go in one batch, by their places: those that go with the first that can.

    They have all but their last message in common, and each an alertname of its own to be known by.
    """
    fitting: dict[str, int] = {}
    frame: Sequence[Mapping[str, str]] | None = None
    for at, prompt in enumerate(prompts):
        name = _spoken(prompt.labels.get("alertname", ""))
        if not 0 < len(name) <= NAME_LENGTH or frame not in (None, prompt.messages[:-1]):
            continue
        frame = prompt.messages[:-1]
        fitting.setdefault(name, at)
    return list(fitting.values())


def batch(prompts: Sequence[Prompt]) -> Batch:
    """Return the batch of prompts that `fit`, at least one."""
    shown = [_NUMBER.format(number) + prompt.messages[-1]["content"] for number, prompt in enumerate(prompts, 1)]
    messages = [*prompts[0].messages[:-1], {"role": "user", "content": ASKED + "".join(shown)}]
    return Batch(messages, [prompt.labels["alertname"] for prompt in prompts])


def max_tokens(alerts: int, of_one: int) -> int:
    """Return the longest answer about so many alerts, in tokens, where one about one alert has `of_one` at most."""
    return of_one if alerts == 1 else min(alerts * of_one, max(ANSWER, of_one))


def schema(alerts: int) -> Mapping[str, Any]:
    """Return the JSON schema of an answer about so many alerts.

    The names are no enum in it: providers compile a schema when they see it first, and this one they see again.
    """
    verdict = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "enum": [str(number) for number in range(1, alerts + 1)]},
            "alertname": {"type": "string", "description": "The alertname of that alert, as it is shown."},
            **answers.SCHEMA["properties"],
        },
        "required": ["id", "alertname", *answers.SCHEMA["required"]],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"verdicts": {"type": "array", "items": verdict}},
        "required": ["verdicts"],
        "additionalProperties": False,
    }


def parse(text: str, names: Sequence[str]) -> list[Mapping[str, object] | None]:
    """Return the members of the verdict on each alert, by the place of its name in `names`; None for one without.

    An answer that breaks off is good for the verdicts that had arrived whole. What the members say is not looked at.
    Raises ClassifierInvalidAnswer for what holds no list of objects.
    """
    given = answers.objects(text)
    found: list[Mapping[str, object] | None] = [None] * len(names)
    for place, members in _placed(given, len(names)):
        if _spoken(members.get("alertname")) == _spoken(names[place]):
            found[place] = members
    return found


def _placed(given: Sequence[Mapping[str, object]], alerts: int) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the verdicts whose number is an alert's, and stands on no other, with the alerts' places."""
    numbers = [_number(members.get("id")) for members in given]
    times = Counter(numbers)
    for number, members in zip(numbers, given, strict=True):
        if number is not None and 1 <= number <= alerts and times[number] == 1:
            yield number - 1, members


def _number(said: object) -> int | None:
    """Return the number that an id says; models write "2", 2 and " 2"."""
    text = str(said).strip() if isinstance(said, str | int) and not isinstance(said, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len("100") else None


def _spoken(name: object) -> str:
    """Return a name as it is compared: some models change case, or write what JSON escapes."""
    if not isinstance(name, str):
        return ""
    if "\\" in name:
        with contextlib.suppress(ValueError):
            name = str(json.loads(f'"{name}"'))
    return name.strip().casefold()
