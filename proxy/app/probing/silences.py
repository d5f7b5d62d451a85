"""Silences that go by our labels: some mute nothing, and the others mute what a model said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from proxy.app.probing.added_labels import AddedLabels, Fate, Judged
from proxy.app.probing.findings import Finding, Level
from proxy.matchers import Matcher, Op

CHECK: Final = "silences"
_OPS: Final = {
    (True, False): Op.EQUAL,
    (False, False): Op.NOT_EQUAL,
    (True, True): Op.REGEX,
    (False, True): Op.NOT_REGEX,
}
"""By isEqual and isRegex."""


def silenced(body: bytes, added: AddedLabels) -> Iterator[Finding]:
    """Look through the answer to `GET /api/v2/silences`."""
    try:
        listed: Any = json.loads(body)
        if not isinstance(listed, list):
            raise TypeError
        active = [one for one in listed if one["status"]["state"] == "active"]
    except (ValueError, KeyError, TypeError, RecursionError):
        yield Finding(CHECK, Level.WARNING, "not known: the answer is no list of silences")
        return
    found = [finding for one in active for finding in _silence(one, added)]
    yield from found
    if not found:
        yield Finding(CHECK, Level.OK, f"none of {len(active)} active silences goes by our labels")


def _silence(one: dict[str, Any], added: AddedLabels) -> Iterator[Finding]:
    where = f"silence {str(one.get('id'))[:40]}"
    judged = []
    for given in one.get("matchers") or ():
        try:
            if not added.concerns(name := str(given["name"])):
                continue
            op = _OPS[given.get("isEqual", True) is not False, given.get("isRegex") is True]
            judged.append(added.judged(Matcher(name, op, str(given["value"]))))
        except (ValueError, KeyError, TypeError, AttributeError):
            yield Finding(CHECK, Level.WARNING, f"{where}: one of its matchers cannot be read")
    yield from (finding for one in judged for finding in _about(where, one))
    if not any(one.fate is Fate.NEVER for one in judged) and (name := added.contradicts(judged)):
        yield Finding(CHECK, Level.WARNING, f"{where}: its matchers leave no value of {name}; it mutes nothing")


def _about(where: str, one: Judged) -> Iterator[Finding]:
    if one.fate is Fate.DEPENDS:
        message = (
            f"{one.matcher}: what it mutes depends on what a model said, and the next alert of its kind may be told "
            "otherwise; silence by labels of the author"
        )
    elif one.fate is Fate.ALWAYS:
        message = f"{one.matcher} holds for every alert: {one.why}"
    else:
        message = f"{one.matcher} can never match: {one.why}; it mutes nothing"
    yield Finding(CHECK, Level.WARNING, f"{where}: {message}")
