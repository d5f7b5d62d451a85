"""Bodies that are almost POSTs of alerts: what Prometheus sends, with one or several things wrong.

    for content in bodies(random.Random(1), 100): ...

The wrong things are those in which Alertmanager's reader, Go's encoding/json, differs from others: names of fields in
another case, keys that are there twice, null, bytes that are no UTF-8, halves of surrogate pairs, long numbers, odd
times, text behind the end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from fakes import stamp

Mutation = Callable[[random.Random, str], str]

_VALUES = ("null", '"x"', "1", "-0.5e-400", "9" * 400, "true", "[]", "{}", '{"a":"b"}', '[{"a":null}]', '"\\ud800"')
_TIMES = ("0001-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-11-22T10:00:00", "2026-11-22t10:00:00z", "", "now")
_KEYS = ("labels", "annotations", "startsAt", "endsAt", "generatorURL")


def an_alert(rng: random.Random, number: int) -> dict[str, Any]:
    """Return an alert as Prometheus sends it, known by its `number`."""
    labels = {"alertname": f"Fuzzed{number}", "severity": rng.choice(("critical", "warning", "info"))}
    if rng.random() < 0.5:
        labels["instance"] = rng.choice(("db-1:9100", "ü", 'a\\b"c', "\U0001f525", " "))
    return {
        "annotations": {"summary": rng.choice(("<b>", "97% full", "line\nbreak", "\u2028"))},
        "endsAt": stamp(rng.choice((240, 3600))),
        "startsAt": stamp(1),
        "generatorURL": "http://prometheus.example/graph?g0.expr=up",
        "labels": labels,
    }


def bodies(rng: random.Random, number: int) -> Iterator[bytes]:
    """Yield `number` bodies of one to three alerts, no two of which have an alert in common."""
    for n in range(number):
        text = json.dumps(
            [an_alert(rng, 3 * n + k) for k in range(rng.randint(1, 3))],
            separators=rng.choice(((",", ":"), (", ", ": "))),
            ensure_ascii=rng.random() < 0.5,
        )
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            text = rng.choice(MUTATIONS)(rng, text)
        yield text.encode(errors="surrogateescape")


def _at(rng: random.Random, text: str, chars: str) -> int:
    """Return an offset at one of `chars`; 0 where there is none."""
    return rng.choice([n for n, char in enumerate(text) if char in chars] or [0])


def _another_case(rng: random.Random, text: str) -> str:
    key = rng.choice(_KEYS)
    other = rng.choice((key.upper(), key.title(), key.replace("s", "\u017f")))
    return text.replace(f'"{key}"', f'"{other}"', 1)


def _twice(rng: random.Random, text: str) -> str:
    key, value = rng.choice(_KEYS), rng.choice((*_VALUES, '{"alertname":"Twice"}'))
    return _put(text, _at(rng, text, "{") + 1, f'"{key}":{value},')


def _a_label_more(rng: random.Random, text: str) -> str:
    name = rng.choice(("a", "alertname", "ai_severity", "ai_category", "", "0", "\u00fc", "a.b", "\\u0061", "\\ud83d"))
    value = rng.choice((*_VALUES, '""', '"critical"'))
    return text.replace('"severity"', f'"{name}":{value},"severity"', 1)


def _another_value(rng: random.Random, text: str) -> str:
    begin = text.find(":", _at(rng, text, ":")) + 1
    return _put(text, begin, rng.choice(_VALUES) + rng.choice(("", ",", ", ")))


def _another_time(rng: random.Random, text: str) -> str:
    key = rng.choice(("startsAt", "endsAt"))
    head, found, tail = text.partition(f'"{key}":')
    return head + found + f'"{rng.choice(_TIMES)}",' + f'"{key}_":' + tail if found else text


def _space(rng: random.Random, text: str) -> str:
    return _put(text, _at(rng, text, "{}[],:"), rng.choice((" ", "\n", "\t\r", "\u00a0", "\f", "\x00")))


def _a_byte(rng: random.Random, text: str) -> str:
    return _put(
        text, rng.randrange(len(text) + 1), rng.choice(("\udcff", "\udcc3", '"', "\\", "{", "}", "[", "]", ","))
    )


def _cut(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text) + 1)]


def _left_out(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + text[at + rng.choice((1, 1, 5)) :]


def _behind(rng: random.Random, text: str) -> str:
    return text + rng.choice((" ", "\n", "x", "[]", ",", "]", text))


def _before(rng: random.Random, text: str) -> str:
    return rng.choice((" \n", "\ufeff", "x")) + text


def _an_element(rng: random.Random, text: str) -> str:
    one = f'{{"labels":{{"a":"{rng.getrandbits(64):x}"}}}}'
    return text.replace("[", "[" + rng.choice((one, "{}", "1", '"x"', "[]")) + ",", 1)


def _put(text: str, at: int, what: str) -> str:
    return text[:at] + what + text[at:]


MUTATIONS: tuple[Mutation, ...] = (
    _another_case, _twice, _a_label_more, _a_label_more, _another_value, _another_time, _space, _a_byte, _cut,
    _left_out, _behind, _before, _an_element,
)  # fmt: skip
