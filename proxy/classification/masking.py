"""Masks what is nobody else's business before it leaves, and puts back what may be put back.

    password=hunter2 at 10.0.0.7:9100   leaves as   password=SECRET_1 at IP_1:9100

A placeholder is a word of capital letters, `_` and a number: it survives JSON and Markdown, and models give it back as
it is. The same value has the same placeholder all over one prompt, and none that is in the alert's own text is used.

The way back is narrow, because a verdict is shared by all alerts of a class and read by anybody who sees one of them:
a value returns only when it stands in a label that the whole class has in common. A secret never does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from proxy.classification import secrets
from proxy.classification.secrets import Detector, Kind, Span

LOOKED_AT: Final = 2048
"""Characters of one text that can leave; what comes behind them is cut off unseen."""
_MARGIN: Final = 1024
"""Characters beyond them that are looked at all the same, so that nothing is cut in two before it is known."""
IN_ALL: Final = 16_384
"""Characters of one alert that are looked at; a text that does not fit in any more does not leave. Some twenty times
what alerts have: to look at all that a sender can put into one would hold up the alerts of others."""
_REPEATED: Final = 64
"""So many secrets are looked for wherever else they stand."""
_REPEATED_LENGTH: Final = 6
"""Shorter ones are not: they are part of too many words."""

NEUTRAL: Final[Mapping[Kind, str]] = {
    Kind.SECRET: "[masked]",
    Kind.PRIVATE: "[masked]",
    Kind.EMAIL: "an e-mail address",
    Kind.MAC: "a MAC address",
    Kind.HOST: "a host",
    Kind.IP: "an IP address",
}
"""What people read where a value is not put back."""

_WORD: Final = re.compile(r"[A-Za-z_]{0,12}")
"""Most labels' names and many values: too short to be anything that is looked for."""
_PLACEHOLDER: Final = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(Kind)})\\?_([0-9]{{1,9}})(?![0-9])")
_RETURNED: Final = re.compile(_PLACEHOLDER.pattern + r"(…|(?::[0-9]{1,5}|/[0-9]{1,3})\b)?")


@dataclass(frozen=True, slots=True)
class Field:
    """A text of the alert on its way out."""

    text: str
    secret: bool = False
    """All of it is one, by the name of its label."""
    shared: bool = False
    """All alerts of the class have it."""
    telling: bool = False
    """What the alert is about: a secret that is found elsewhere is not looked for here."""


@dataclass(frozen=True, slots=True)
class Masked:
    """What may leave."""

    texts: tuple[str, ...]
    """In the order of the fields."""
    counts: Mapping[str, int]
    """How many values of each kind have a placeholder."""
    _public: Mapping[str, str]
    _active: bool = True

    def restore(self, text: str) -> str:
        """Return a model's words with values for placeholders, where everybody may read them.

        Others become neutral words, and so do those that the model made up, or that were cut short.
        """
        return _RETURNED.sub(self._word, text) if self._active else text

    def _word(self, found: re.Match[str]) -> str:
        behind = found[3] or ""
        value = self._public.get(f"{found[1]}_{found[2]}")
        if value is not None and behind != "…":
            return value + behind
        return NEUTRAL[Kind(found[1])] + (behind if behind == "…" else "")


class Masking:
    """How an alert is masked. Costs nothing until it is used."""

    def __init__(self, *, enabled: bool = True, hosts: bool = False, patterns: Sequence[str] = ()) -> None:
        """`patterns` are regular expressions of RE2; what the first group of one holds is masked, or all it matches."""
        self._enabled = enabled
        self._hosts = hosts
        self._patterns = tuple(patterns)

    @cached_property
    def _detectors(self) -> tuple[Detector, ...]:
        # The operator's own first: of two that find the same, what it is called is settled by the kinds' order anyway.
        return (
            *secrets.patterns(self._patterns),
            *secrets.built_in(),
            *(secrets.hosts() if self._hosts else ()),
        )

    @cached_property
    def version(self) -> str:
        """Changes with what is masked."""
        if not self._enabled:
            return "off"
        said = [f"{d.kind}:{d.pattern.text}:{d.check.__name__ if d.check else ''}" for d in self._detectors]
        return hashlib.blake2b("\0".join(said).encode(), digest_size=8).hexdigest()

    def mask(self, fields: Sequence[Field]) -> Masked:
        """Return what of `fields` may leave; each text without half a surrogate pair, and bounded in length."""
        texts = list(_bounded(fields))
        if not self._enabled:
            return Masked(tuple(text[:LOOKED_AT] for text in texts), {}, {}, _active=False)
        found = [
            [(0, len(text), Kind.SECRET)] if field.secret and text and not _is_placeholder(text) else self._find(text)
            for field, text in zip(fields, texts, strict=True)
        ]
        self._find_again(fields, texts, found)
        literals = [[f"{found[1]}_{found[2]}" for found in _PLACEHOLDER.finditer(text)] for text in texts]
        names = _Names(name for each in literals for name in each)
        masked, public = [], {}
        for field, text, spans, theirs in zip(fields, texts, found, literals, strict=True):
            pieces, last = [], 0
            for start, end, kind in _merged(spans):
                if start >= LOOKED_AT:
                    break
                name = names.of(kind, text[start:end])
                if field.shared and kind not in (Kind.SECRET, Kind.PRIVATE):
                    public[name] = text[start:end]
                pieces += [text[last:start], name]
                last = end
            pieces.append(text[last:LOOKED_AT])
            masked.append("".join(pieces))
            if field.shared:
                public |= {literal: literal for literal in theirs}
        return Masked(tuple(masked), names.counts, public)

    def _find(self, text: str) -> list[tuple[int, int, Kind]]:
        if not self._patterns and _WORD.fullmatch(text):
            return []
        return [
            (start, end, detector.kind)
            for detector in self._detectors
            for start, end in detector.spans(text)
            if not _is_placeholder(text[start:end])
        ]

    def _find_again(
        self, fields: Sequence[Field], texts: Sequence[str], found: Sequence[list[tuple[int, int, Kind]]]
    ) -> None:
        """Find the secrets that one text gives away where they stand without a name in another."""
        known: dict[str, Kind] = {}
        for text, spans in zip(texts, found, strict=True):
            # What one detector found alone too: of an address another may have found more than the password.
            for start, end, kind in (*_merged(spans), *spans):
                if kind not in (Kind.SECRET, Kind.PRIVATE):
                    continue
                value = text[start:end]
                for part in (value, *value.split(":")):  # a user and a password
                    if len(part) >= _REPEATED_LENGTH and len(known) < _REPEATED:
                        known.setdefault(part, kind)
        for field, text, spans in zip(fields, texts, found, strict=True):
            for value, kind in () if field.telling else known.items():
                spans += ((start, end, kind) for start, end in _occurrences(value, text))


class _Names:
    """Gives out placeholders."""

    def __init__(self, taken: Iterator[str]) -> None:
        self._taken = set(taken)
        self.counts: dict[str, int] = {}
        self._given: dict[tuple[Kind, str], str] = {}
        self._last = dict.fromkeys(Kind, 0)

    def of(self, kind: Kind, value: str) -> str:
        if (kind, value) not in self._given:
            self._last[kind] += 1
            while f"{kind}_{self._last[kind]}" in self._taken:
                self._last[kind] += 1
            self._given[kind, value] = f"{kind}_{self._last[kind]}"
            self.counts[kind.value] = self.counts.get(kind.value, 0) + 1
        return self._given[kind, value]


def cut(masked: str, length: int) -> str:
    """Return at most `length` characters, with a mark when some are missing; a placeholder is not cut in two."""
    if len(masked) <= length:
        return masked
    end = length - 1
    for found in _PLACEHOLDER.finditer(masked, max(0, end - 32), end + 32):
        if found.start() < end < found.end():
            end = found.start()
    return masked[:end] + "…"


def _merged(spans: Collection[tuple[int, int, Kind]]) -> list[tuple[int, int, Kind]]:
    """Return stretches that do not overlap: what several detectors found parts of is masked as one."""
    merged: list[tuple[int, int, Kind]] = []
    for start, end, kind in sorted(spans):
        if merged and start < merged[-1][1]:
            before = merged[-1]
            merged[-1] = before[0], max(before[1], end), min(before[2], kind, key=_ORDER.index)
        else:
            merged.append((start, end, kind))
    return merged


_ORDER: Final = list(Kind)


def _occurrences(value: str, text: str) -> Iterator[Span]:
    at = text.find(value)
    while at >= 0:
        yield at, at + len(value)
        at = text.find(value, at + len(value))


def _is_placeholder(text: str) -> bool:
    return _PLACEHOLDER.fullmatch(text) is not None


def _bounded(fields: Sequence[Field]) -> Iterator[str]:
    """Yield what is looked at of each field: as far as it can leave, and nothing when there was too much before."""
    left = IN_ALL
    for field in fields:
        text = _whole(field.text[: LOOKED_AT + _MARGIN])
        if len(text) > left:
            text = "…"  # part of it might be half of a secret
        left -= len(text)
        yield text


def _whole(text: str) -> str:
    # Half a surrogate pair, which JSON can say and UTF-8 cannot, would fail at the provider's door.
    return text.encode("utf-8", "replace").decode()
