"""What a model must answer, and how its answer becomes a Classification.

A model's words are not trusted: labels come from closed sets or not at all, text is for people to read and carries
no control characters, links or tags. Pure functions, used on both sides of the worker's socket.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeVar

from proxy.classification.classification import (
    RECOMMENDATION_LENGTH,
    RECOMMENDATIONS,
    SUMMARY_LENGTH,
    Category,
    Classification,
    Confidence,
    Severity,
    Source,
)
from proxy.errors import ClassifierInvalidAnswer

# Labels first: an answer that breaks off, or is read as it comes, has said what routing needs.
SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "severity": {"type": "string", "enum": [s.value for s in Severity]},
        "category": {"type": "string", "enum": [c.value for c in Category]},
        "confidence": {"type": "string", "enum": [c.value for c in Confidence]},
        "summary": {"type": "string", "description": f"One sentence, at most {SUMMARY_LENGTH} characters."},
        "recommendations": {
            "type": "array",
            "items": {"type": "string"},
            # In words: strict mode of several providers refuses maxItems and maxLength.
            "description": f"At most {RECOMMENDATIONS} steps, each at most {RECOMMENDATION_LENGTH} characters.",
        },
    },
    # Strict mode wants every member required; `parse` does without the last two.
    "required": ["severity", "category", "confidence", "summary", "recommendations"],
    "additionalProperties": False,
}
"""JSON schema of the answer: one flat object."""

TEXT_LIMIT: Final = 64 * 1024
"""Characters of an answer that are looked at."""

EARLY_LIMIT: Final = 4096
"""Characters of an answer in which its labels may be looked for before it is whole."""

LABELS: Final = ("severity", "category", "confidence")
"""The members of an answer that routing reads."""

# Beyond this many opening braces that start no object it is no answer, and looking on would be quadratic.
_CANDIDATES = 100
_PROSE_LIMIT = 1000
# Of so many recommendations those are taken that come first and say something.
_STEPS = 2 * RECOMMENDATIONS
# So many removals a text may take; one that goes on, since each brings more markup together, is no text.
_ROUNDS = 30

_Label = TypeVar("_Label", bound=StrEnum)


def parse(text: str, model: str) -> Classification:
    """Return the verdict in a model's answer: the first JSON object in `text`, whatever stands around it.

    An answer that breaks off within its object is good for what had arrived whole. `model` is the name the verdict
    will carry. Raises ClassifierInvalidAnswer, never with the answer's words.
    """
    text = text[:TEXT_LIMIT]
    try:
        return verdict(_first_object(text), model)
    except ClassifierInvalidAnswer:
        arrived = leading(text)
        if arrived is None:
            raise
        return verdict(arrived, model)


def labels(text: str, model: str) -> Classification | None:
    """Return the verdict, without text, in the beginning of an answer that is still arriving.

    None until its three labels are there whole, and when they are not known ones.
    """
    arrived = leading(text[:EARLY_LIMIT])
    try:
        return verdict({name: (arrived or {}).get(name) for name in LABELS}, model)
    except ClassifierInvalidAnswer:
        return None


def verdict(members: Mapping[str, object], model: str, *, restored: bool = False) -> Classification:
    """Return the verdict that the members of an answer's object make.

    severity, category and confidence must be there and known (case and surrounding spaces do not matter).
    A summary or recommendations of a wrong type are dropped, and members that are not ours ignored. Text that was
    `restored` (see `masking`) keeps the hosts and e-mail addresses that the alerts named themselves.
    Raises ClassifierInvalidAnswer.
    """
    markup = _MARKUP_OF_RESTORED if restored else _MARKUP
    steps = members.get("recommendations")
    return Classification(
        severity=_label(members, "severity", Severity),
        category=_label(members, "category", Category),
        confidence=_label(members, "confidence", Confidence),
        source=Source.LLM,
        summary=_prose(members.get("summary"), markup),
        recommendations=tuple(_prose(step, markup) for step in steps[:_STEPS]) if isinstance(steps, list) else (),
        model=model,
    )


def members(classification: Classification) -> dict[str, object]:
    """Return the members of an answer's object that says the same; `verdict` is the way back."""
    return {
        "severity": classification.severity.value,
        "category": classification.category.value,
        "confidence": classification.confidence.value,
        "summary": classification.summary,
        "recommendations": list(classification.recommendations),
    }


def _label(members: Mapping[str, object], name: str, known: type[_Label]) -> _Label:
    value = members.get(name)
    if not isinstance(value, str):
        raise ClassifierInvalidAnswer(f"no {name}")
    try:
        return known(value.strip().lower())
    except ValueError:
        raise ClassifierInvalidAnswer(f"unknown {name}") from None


def _not_json(_: str) -> NoReturn:
    raise ValueError


def _first_of_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object in which a member that is named twice has the value that came first: the one told early."""
    return dict(reversed(pairs))


# NaN and Infinity are Python's, not JSON's.
_DECODER = json.JSONDecoder(parse_constant=_not_json, object_pairs_hook=_first_of_each)


def _first_object(text: str) -> dict[str, object]:
    start = text.find("{")
    for _ in range(_CANDIDATES):
        if start < 0:
            break
        try:
            found, _end = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as exc:
            # On from where it went wrong, which may be the end: what was whole before that belongs to an object that is
            # not, and its labels say nothing of the alert.
            start = text.find("{", max(exc.pos, start + 1))
        except (ValueError, RecursionError):  # not JSON's constants, a number of too many digits, nesting without end
            break
        else:
            assert isinstance(found, dict)  # noqa: S101 - what begins with a brace is an object
            return found
    raise ClassifierInvalidAnswer("no JSON object")


# Where an object of ours begins; prose has other braces.
_BEGIN = re.compile(r'\{[ \t\n\r]*(?=")')
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_AFTER = re.compile(r"[ \t\n\r]*(?:(,)[ \t\n\r]*|(\}))?")
_AFTER_ONE = re.compile(r"[ \t\n\r]*(?:(,)[ \t\n\r]*|(\]))?")


def leading(text: str) -> dict[str, object] | None:
    """Return the members that have arrived whole of the first object in `text`, which may break off.

    None when no object has begun, or when it is broken where it does not end: such text would not get better by
    waiting for more of it.
    """
    text = text.rstrip(" \t\n\r")
    begin = _BEGIN.search(text)
    if begin is None:
        return None
    members: dict[str, object] = {}
    at = begin.end()
    while at < len(text):
        try:
            name, at = _DECODER.raw_decode(text, at)
            colon = _COLON.match(text, at)
            if not isinstance(name, str) or colon is None:
                return members if at == len(text) else None
            value, at = _DECODER.raw_decode(text, colon.end())
        except json.JSONDecodeError as exc:
            # A string that never ends is reported where it begins.
            return members if exc.pos >= len(text) or exc.msg.startswith("Unterminated string") else None
        except (ValueError, RecursionError):
            return None
        if at == len(text) and not isinstance(value, str | list | dict):
            return members  # a number may go on
        members.setdefault(name, value)
        after = _AFTER.match(text, at)
        assert after is not None  # noqa: S101 - it may match nothing
        if not after[1]:
            return members if after[2] or after.end() == len(text) else None
        at = after.end()
    return members


_LIST = re.compile(r"\[[ \t\n\r]*(?=\{)")


def objects(text: str) -> list[dict[str, object]]:
    """Return the objects that have arrived whole of the first list of objects in `text`, which may break off.

    Raises ClassifierInvalidAnswer when there is no such list, or when it is broken where the text does not end.
    """
    text = text[:TEXT_LIMIT].rstrip(" \t\n\r")
    if (begin := _LIST.search(text)) is None:
        raise ClassifierInvalidAnswer("no list of objects")
    found: list[dict[str, object]] = []
    at = begin.end()
    while text.startswith("{", at):
        try:
            one, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            if at + 1 == len(text) or leading(text[at:]) is not None:
                return found  # it breaks off
            break
        found.append(one)
        after = _AFTER_ONE.match(text, end)
        assert after is not None  # noqa: S101 - it may match nothing
        if after[2] or after.end() == len(text):
            return found
        at = after.end()
    raise ClassifierInvalidAnswer("a broken list")


# What would make a text more than words in a chat, a mail or a browser, in the order of removal. Of a link, the words
# stay.
_END = (
    "com|net|org|info|biz|io|co|me|ai|app|dev|xyz|top|site|online|shop|club|live|link|click|page|zip|mov|ru|cn|example"
)
_DOT = "[.\u3002\uff0e\uff61]"  # as browsers read it
_EMAIL = (re.compile(rf"[\w.%+-]+@[\w-]+(?:{_DOT}[\w-]+)+"), " ")
_HOST = (re.compile(rf"(?<![\w/.-])(?:[\w-]+{_DOT})+(?:{_END})\b(?![\w-])\.?", re.IGNORECASE), " ")
_MARKUP = (
    (re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b\[[0-?]*[ -/]*[@-~]?"), " "),  # what terminals obey
    (re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)"), r"\1"),
    (re.compile(r"</?[A-Za-z!?@#][^<>]*>"), " "),  # tags, and Slack's <@U123>, which calls people
    (re.compile(r"@(here|channel|everyone|all)\b", re.IGNORECASE), r"\1"),
    (re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S*"), " "),
    (re.compile(r"\bwww\.\S+", re.IGNORECASE), " "),
    (re.compile(r"\b(?:javascript|vbscript|mailto|data|tel|sms|callto|magnet|slack|skype):\S+", re.IGNORECASE), " "),
    _EMAIL,
    # Addresses that a chat makes links of although they name no scheme: with a path, or with a well-known end.
    (re.compile(rf"(?<![\w/.-])(?:[\w-]+{_DOT})+[^\W\d_]{{2,}}(?::[0-9]+)?[/?#]\S*"), " "),
    _HOST,
)
_MARKUP_OF_RESTORED = tuple(one for one in _MARKUP if one not in (_EMAIL, _HOST))
_Markup = Sequence[tuple[re.Pattern[str], str]]


def plain(text: str) -> str:
    """Return `text` as nothing but words, as those of a verdict are."""
    return _prose(text, _MARKUP)


def _prose(value: object, markup: _Markup) -> str:
    """Return plain words; empty for what is no string. Control characters are Classification's to remove."""
    if not isinstance(value, str):
        return ""
    text = value[:_PROSE_LIMIT]
    for _ in range(_ROUNDS):
        plain = html.unescape(text)  # &lt;!channel&gt; is read as what it stands for
        plain = plain if plain != text else _without(markup, text)
        if plain == text:
            break
        text = plain  # what is taken out may bring together what it kept apart
    else:
        return ""
    return " ".join(text.split())


def _without(markup: _Markup, text: str) -> str:
    """Return `text` after the first removal that changes it: a link is undone before its address is taken for one."""
    return next((less for pattern, kept in markup if (less := pattern.sub(kept, text)) != text), text)
