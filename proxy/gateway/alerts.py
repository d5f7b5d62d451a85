"""The body of POST /api/v2/alerts on the wire: a JSON array of alerts.

Adding to an alert never re-writes it. `decode` remembers where each object stands in the text, `encode` puts the new
members in front of the closing brace, and every other byte stays where it was: unknown fields, order, number formats,
escapes and white space included.

An alert gets labels only in the form that Prometheus and its kin send. Alertmanager takes more than that: Go matches
field names without regard to case, lets the last of two equal keys win and turns a null label into none. Rather than to
imitate all of it, `Item.read` refuses labels in another form, and the alert goes as it came. Where only the rest of it
is unusual, the alert is known by its labels: it keeps those that it got when it was new, and gets no new ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json import JSONDecoder
from typing import Any, Final

from proxy.alert import Alert, LabelSet
from proxy.errors import DecodeError

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


Insertion = tuple[int, str]
"""An offset in the text of the batch, and what to put there."""


@dataclass(frozen=True, slots=True)
class Insertions:
    """What adds labels and annotations to one alert."""

    labels: Sequence[Insertion] = ()
    annotations: Sequence[Insertion] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One element of the array."""

    start: int
    """Offset of its first character."""
    end: int
    """Offset behind its last one."""
    members: tuple[Member, ...] | None
    """None: not an object."""

    def read(self) -> Alert:
        """Return the alert it describes. Raises ValueError when its labels are not in Prometheus' own form.

        Where something else is not, that is left out of the alert, and `usual` is False.
        """
        labels = {name: value for name, value in _strings(self._member("labels")).items() if value}
        if not labels:
            raise ValueError("no labels")
        try:
            return Alert(labels, *self._rest())
        except ValueError:
            return Alert(labels)

    @property
    def usual(self) -> bool:
        """Whether all of it is as Prometheus writes it: only such an alert is added to when it is new."""
        try:
            self._rest()
        except ValueError:
            return False
        return True

    def insertions(self, labels: LabelSet, annotations: LabelSet) -> Insertions:
        """Return what to insert to add `labels` and `annotations` to an alert that `read` takes.

        What the sender said stands: a name that it gave a value is left out, and an unusual alert gets no annotations.
        """
        into = self._member("labels")
        assert into is not None  # noqa: S101 # read() has taken it
        ours = _added(labels, into)
        if not annotations or not self.usual:
            return Insertions(ours)
        if (into := self._member("annotations")) is None:
            whole = f'"annotations":{json.dumps(dict(annotations), separators=(",", ":"))},'
            return Insertions(ours, [(self.start + 1, whole)])
        return Insertions(ours, _added(annotations, into))

    def _rest(self) -> tuple[dict[str, str], datetime | None, datetime | None]:
        """Return annotations, startsAt and endsAt. Raises ValueError."""
        annotations = self._member("annotations")
        return (
            _strings(annotations) if annotations else {},
            _time(self._member("startsAt")),
            _time(self._member("endsAt")),
        )

    def _member(self, name: str) -> Member | None:
        """Return the member of that name. Raises ValueError when it is there twice, or in another spelling."""
        found = [member for member in self.members or () if member.key.casefold() == name.casefold()]
        if not found:
            return None
        if len(found) > 1 or found[0].key != name:
            raise ValueError(f"{name} is written unusually or twice")
        return found[0]


@dataclass(frozen=True, slots=True)
class Batch:
    """The alerts of one POST."""

    text: str
    items: tuple[Item, ...]
    usual: bool
    """False: bytes that are no UTF-8, or text after the array. Alertmanager reads it; new alerts in it are let be."""


def decode(body: bytes) -> Batch:
    """Return the alerts of a POST. Raises DecodeError when the body does not begin with a JSON array."""
    try:
        # Go reads U+FFFD for a byte that is no UTF-8. Kept as a surrogate it spoils the one string that it is in.
        text = body.decode(errors="surrogateescape")
        items, end = _array(text)
    except (ValueError, IndexError, RecursionError) as exc:
        raise DecodeError(type(exc).__name__) from exc
    return Batch(text, items, usual=_skip(text, end) == len(text) and _is_utf8(body))


def encode(batch: Batch, insertions: Iterable[Insertion]) -> bytes:
    """Return the body with `insertions` put in; each offset at most once."""
    parts, last = [], 0
    for offset, text in sorted(insertions):
        parts += [batch.text[last:offset], text]
        last = offset
    parts.append(batch.text[last:])
    return "".join(parts).encode(errors="surrogateescape")


ENDED_AGO: Final = timedelta(seconds=5)
"""How long ago what is handed over has ended. An end that lies ahead of Alertmanager's clock, be it by a millisecond,
does not count against the later one that it knows: the alert would go on firing until then, under both identities."""


def ended(batch: Batch, item: Item, alert: Alert, labels: LabelSet, now: datetime) -> Insertion:
    """Return what puts the end of `alert`, as it was known with `labels` added, behind it.

    Its own members stay as they are written, but for those that are ours to say, in any spelling: the last one counts
    with Alertmanager. It refuses an end before the beginning; an alert without a beginning begins when it ends. Sent
    twice, it ends what has ended.
    """
    known = {"labels": json.dumps({**alert.labels, **labels}, separators=(",", ":"))}
    end = now - ENDED_AGO
    known["endsAt"] = f'"{end.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}"'
    begins = _as_written(batch, item, "startsAt") if item.usual else None
    if begins is not None:
        known["startsAt"] = begins
        if alert.starts_at and alert.starts_at > end:
            known["endsAt"] = begins  # to its last digit, however far away
    ours = {name.casefold() for name in (*known, "startsAt")}
    kept = [(m.key, batch.text[m.start : m.end]) for m in item.members or () if m.key.casefold() not in ours]
    members = (f"{json.dumps(name)}:{value}" for name, value in (*kept, *known.items()))
    return item.end, ",{" + ",".join(members) + "}"


def _as_written(batch: Batch, item: Item, name: str) -> str | None:
    member = item._member(name)
    return None if member is None else batch.text[member.start : member.end]


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


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
        return Item(start, end, None), end
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
    return Item(start, at + 1, tuple(members)), at + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # noqa: S101 # the pattern matches nothing at all, too
    return match.end()


def _expect(text: str, at: int, char: str) -> int:
    if text[at] != char:
        raise ValueError(f"expected {char!r}")
    return at + 1


def _strings(member: Member | None) -> dict[str, str]:
    """Return an object of strings as a dict; ValueError when it is anything else, or has a key twice."""
    if member is None or not isinstance(member.value, tuple) or not all(isinstance(v, str) for _, v in member.value):
        raise ValueError("not an object of strings")
    pairs = dict(member.value)
    if len(pairs) != len(member.value):
        raise ValueError("a key occurs twice")
    for name, text in pairs.items():
        # Lone surrogates: Alertmanager would read U+FFFD and see another identity than we do.
        (name + text).encode()
    return pairs


def _time(member: Member | None) -> datetime | None:
    """Return an RFC 3339 time; None for none and for Go's zero time. ValueError for anything else."""
    if member is None:
        return None
    if not isinstance(member.value, str):
        raise ValueError("not a time")
    time = datetime.fromisoformat(member.value)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return None if time.year <= _GO_ZERO_YEAR else time


def _added(pairs: Mapping[str, str], into: Member) -> list[Insertion]:
    """Return what adds to the object `into` those pairs that it has no value for.

    An empty value is none: of two equal keys Alertmanager takes the last one, which is ours.
    """
    present = dict(into.value)
    text = ",".join(f"{json.dumps(n)}:{json.dumps(v)}" for n, v in pairs.items() if not present.get(n))
    return [(into.end - 1, f",{text}" if present else text)] if text else []
