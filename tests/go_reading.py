"""What Alertmanager makes of the body of a POST of alerts: Go's encoding/json, and the models that it reads into.

A model to hold the proxy's own reader against. Names of members are matched in any case, the last of two wins, maps
that come twice are merged, null is nothing, bytes and escapes that are no characters are U+FFFD, and what stands
behind the array is not read. Whether a time is one is not asked here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_FOLDED = str.maketrans({"\u017f": "s", "\u212a": "k"})
_MAPS, _TEXTS = ("labels", "annotations"), ("startsAt", "endsAt", "generatorURL")


class Unreadable(Exception):  # it is no error of ours
    """Alertmanager refuses all of it."""


@dataclass
class GoAlert:
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Times and the URL, as they are written."""


class _Object(list[tuple[str, Any]]):
    """The members of an object, in their order."""


class _Number(str):
    """The digits of one."""

    __slots__ = ()


def read(body: bytes) -> list[GoAlert]:
    """Return the alerts of a body. Raises Unreadable."""
    text = body.decode(errors="replace")
    decoder = json.JSONDecoder(
        object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number, parse_constant=_refuse
    )
    try:
        found, _ = decoder.raw_decode(text.lstrip(" \t\n\r"))
    except (ValueError, RecursionError) as exc:
        raise Unreadable from exc
    if not isinstance(found, list) or isinstance(found, _Object):
        raise Unreadable
    return [_alert(one) for one in found]


def _alert(members: Any) -> GoAlert:
    if not isinstance(members, _Object):
        raise Unreadable
    alert = GoAlert()
    for key, value in members:
        name = next((one for one in (*_MAPS, *_TEXTS) if _folded(one) == _folded(_text(key))), None)
        if name in _MAPS:
            _into(getattr(alert, name), value)
        elif name in _TEXTS and value is not None:
            if not isinstance(value, str) or isinstance(value, _Number):
                raise Unreadable
            alert.texts[name] = _text(value)
    return alert


def _into(mapping: dict[str, str], value: Any) -> None:
    if value is None:
        mapping.clear()
    elif not isinstance(value, _Object):
        raise Unreadable
    else:
        for key, text in value:
            if text is not None and (not isinstance(text, str) or isinstance(text, _Number)):
                raise Unreadable
            mapping[_text(key)] = "" if text is None else _text(text)


def _folded(name: str) -> str:
    """Return what Go compares: letters of ASCII in one case, and the two others that fold to one of them."""
    return "".join(c.lower() if c.isascii() else c for c in name.translate(_FOLDED))


def _text(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _refuse(name: str) -> Any:
    raise ValueError(name)
