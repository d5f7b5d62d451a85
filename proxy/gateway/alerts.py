"""The body of POST /api/v2/alerts on the wire: a JSON array of alerts.

Adding to an alert never re-writes it. `decode` remembers where each object stands in the text, `encode` puts the new
members in front of the closing brace, and every other byte stays where it was: unknown fields, order, number formats,
escapes and white space included.

An alert is read only in the form that Prometheus and its kin send. Alertmanager takes more than that: Go matches field
names without regard to case, lets the last of two equal keys win and turns a null label into none. Rather than to
imitate all of it, `Item.read` refuses such an alert, and it goes as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from json import JSONDecoder
from typing import Any, Final

from proxy.alert import Alert, LabelSet
from proxy.errors import DecodeError

_FIELDS: Final = {name.casefold(): name for name in ("labels", "annotations", "startsAt", "endsAt", "generatorURL")}
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_GO_ZERO_YEAR: Final = 1


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _some_number(_: str) -> int:
    return 0


# Objects become tuples of pairs, so that a key that occurs twice can be seen. Numbers only occur in fields that we do
# not read; not converted they cost nothing, however long.
_VALUES: Final = JSONDecoder(
    object_pairs_hook=tuple, parse_constant=_no_constant, parse_int=_some_number, parse_float=_some_number
)


@dataclass(frozen=True, slots=True)
class Member:
    """One `"key": value` of an object, and where the value stands in the text."""

    key: str
    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Item:
    """One element of the array."""

    start: int
    """Offset of its first character."""
    members: tuple[Member, ...] | None
    """None: not an object."""

    def read(self) -> Alert:
        """Return the alert it describes. Raises ValueError for a form that is not Prometheus' own."""
        fields: dict[str, Any] = {}
        for member in self.members or ():
            name = _FIELDS.get(member.key.casefold())
            if name is None:
                continue
            if name != member.key or name in fields:
                raise ValueError(f"{member.key!r} is written unusually or twice")
            fields[name] = member.value
        labels = {name: value for name, value in _strings(fields.get("labels")).items() if value}
        if not labels:
            raise ValueError("no labels")
        return Alert(
            labels=labels,
            annotations=_strings(fields.get("annotations", ())),
            starts_at=_time(fields.get("startsAt")),
            ends_at=_time(fields.get("endsAt")),
        )

    def insertions(self, labels: LabelSet, annotations: LabelSet) -> list[tuple[int, str]]:
        """Return what to insert, and at which offsets, to add `labels` and `annotations` to an alert that `read` takes.

        Names that the alert has already are left out: what the sender said stands.
        """
        members = {member.key: member for member in self.members or ()}
        found = []
        if text := _pairs(labels, members["labels"]):
            found.append((members["labels"].end - 1, text))
        if "annotations" in members:
            if text := _pairs(annotations, members["annotations"]):
                found.append((members["annotations"].end - 1, text))
        elif annotations:
            found.append((self.start + 1, f'"annotations":{json.dumps(dict(annotations), separators=(",", ":"))},'))
        return found


@dataclass(frozen=True, slots=True)
class Batch:
    """The alerts of one POST."""

    text: str
    items: tuple[Item, ...]


def decode(body: bytes) -> Batch:
    """Return the alerts of a POST. Raises DecodeError when the body is not a JSON array in UTF-8."""
    try:
        text = body.decode()
        items, end = _array(text)
        if _skip(text, end) != len(text):
            raise ValueError("text after the array")
    except (ValueError, IndexError, RecursionError) as exc:
        raise DecodeError(type(exc).__name__) from exc
    return Batch(text, items)


def encode(batch: Batch, insertions: Iterable[tuple[int, str]]) -> bytes:
    """Return the body with `insertions` (offset, text) put in; each offset at most once."""
    parts, last = [], 0
    for offset, text in sorted(insertions):
        parts += [batch.text[last:offset], text]
        last = offset
    parts.append(batch.text[last:])
    return "".join(parts).encode()


def _array(text: str) -> tuple[tuple[Item, ...], int]:
    items: list[Item] = []
    at = _expect(text, _skip(text, 0), "[")
    while text[at := _skip(text, at)] != "]":
        if items:
            at = _skip(text, _expect(text, at, ","))
        item, at = _item(text, at)
        items.append(item)
    return tuple(items), at + 1


def _item(text: str, start: int) -> tuple[Item, int]:
    if text[start] != "{":
        _, end = _VALUES.raw_decode(text, start)
        return Item(start, None), end
    members: list[Member] = []
    at = start + 1
    while text[at := _skip(text, at)] != "}":
        if members:
            at = _skip(text, _expect(text, at, ","))
        key, at = _VALUES.raw_decode(text, at)
        if not isinstance(key, str):
            raise ValueError("a key that is no string")
        at = _skip(text, _expect(text, _skip(text, at), ":"))
        value, end = _VALUES.raw_decode(text, at)
        members.append(Member(key, value, at, end))
        at = end
    return Item(start, tuple(members)), at + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # noqa: S101 # the pattern matches nothing at all, too
    return match.end()


def _expect(text: str, at: int, char: str) -> int:
    if text[at] != char:
        raise ValueError(f"expected {char!r}")
    return at + 1


def _strings(value: Any) -> dict[str, str]:
    """Return an object of strings as a dict; ValueError when it is anything else, or has a key twice."""
    if not isinstance(value, tuple) or not all(isinstance(v, str) for _, v in value):
        raise ValueError("not an object of strings")
    pairs = dict(value)
    if len(pairs) != len(value):
        raise ValueError("a key occurs twice")
    for name, text in pairs.items():
        # Lone surrogates: Alertmanager would read U+FFFD and see another identity than we do.
        (name + text).encode()
    return pairs


def _time(value: Any) -> datetime | None:
    """Return an RFC 3339 time; None for none and for Go's zero time. ValueError for anything else."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("not a time")
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return None if time.year <= _GO_ZERO_YEAR else time


def _pairs(added: Mapping[str, str], into: Member) -> str:
    """Return the text that adds to the object `into` those pairs that it does not have."""
    present = dict(into.value)
    text = ",".join(f"{json.dumps(n)}:{json.dumps(v)}" for n, v in added.items() if n not in present)
    return f",{text}" if text and present else text
