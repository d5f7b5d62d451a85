"""Reads the value behind the name of a secret, as settings, JSON, YAML and addresses write it.

What looks like the value of `credentials` may be another name, in `credentials: {password: hunter2}` as well as in two
lines of YAML. So only names and signs are looked for by an expression; what stands behind is read here, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

Span = tuple[int, int]

# A quote, also as it stands in JSON in JSON, in an address or in HTML.
QUOTE: Final = r"""(?:\\*["'`]|%(?:25)*2[27]|&(?:quot|apos|#3[49]|#x2[27]);|\\+u002[27])"""
# Words that follow `password:` or `token:` in a sentence about one.
_PROSE: Final = frozenset({
    "a", "an", "and", "are", "at", "authentication", "bad", "can", "cannot", "check", "could", "denied", "does",
    "error", "expired", "failed", "failure", "false", "for", "forbidden", "from", "has", "have", "in", "incorrect",
    "invalid", "is", "it", "mismatch", "missing", "must", "needs", "no", "none", "not", "null", "of", "on", "please",
    "rejected", "required", "rotation", "see", "should", "the", "this", "to", "true", "unauthorized", "unavailable",
    "undefined", "unknown", "unset", "was", "were", "will", "with", "wrong",
})  # fmt: skip


_BLANKS: Final = re.compile(r"(?:[^\S\r\n]|%20)*(?:\*{1,2}[^\S\r\n]++)?")
_OPENING: Final = re.compile(QUOTE, re.IGNORECASE)
_DOUBLE_QUOTED: Final = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*', re.DOTALL)
_SINGLE_QUOTED: Final = re.compile(r"[^']*+(?:''[^']*+)*")
BARE: Final = re.compile(r"(?:[^\s<]|<[^/\s])*")
_SPACE: Final = re.compile(r"\s*+")
_INDENTATION: Final = re.compile(r"[ \t]*+")
LINE: Final = re.compile(r"[^\r\n\"]*+")
_SIGN: Final = re.compile(r"[^\S\r\n]*+(?:=>|[:=]|%(?:25)*3[AaDd])(?:[^\S\r\n]|%20)*")
_ENCODED_BRACKETS: Final = re.compile(r"(?:%(?:25)*(?:5B|7B)|%20)+", re.IGNORECASE)
# In a list or an object: brackets, the beginning of a text in quotes, a name, or words to the comma.
_TOKEN: Final = re.compile(
    r"[\s,]*+(?:(?P<open>[\[{])|(?P<close>[\]}])"
    rf"|(?P<quote>{QUOTE})|(?P<name>[^\s,:=\[\]{{}}\"']++)\s*+[:=]\s*+"
    r"|(?P<bare>[^\s,\[\]{}\"'][^,\]}\r\n]*+))",
    re.IGNORECASE,
)
# In a block of YAML: the indentation, a dash, a name.
_ENTRY: Final = re.compile(
    r"(?P<indent>[ \t]*+)(?P<dash>(?:-[ \t]++)*)"
    r"""(?:(?P<name>[\w.-]++|"[^"\r\n]*+"|'[^'\r\n]*+'):(?:[ \t]++|(?=\r?$)))?""",
    re.MULTILINE,
)
_BLOCK_SCALAR: Final = re.compile(r"[|>][-+0-9]{0,2}[ \t]*+(?:#[^\r\n]*+)?\r?(?:\n|\Z)")
# `Instance: `, `VALUE = `: a line that says something of its own.
_TITLED: Final = re.compile(r"\W*+[\w.-]++(?: [\w.-]++){0,3}\s*?[:=](?:\s|\Z)")
# `Dashboard:` in a block, as people write.
_TITLE: Final = re.compile(r"[A-Z][a-z]+")
# What is said of a secret and is none, where one is a list or an object.
_PUBLIC: Final = re.compile(
    r"(?i)\W*(?:[\w.-]*name(?:space)?|user|kind|type|host|port|expires?[_-]?(?:at|in)?|scope|version|path|instance|job"
    r"|pod|node|cluster|service|severity|status|state|reason|message)\W*"
)


def values(text: str, names: Iterable[Span], bare: re.Pattern[str], is_name: Callable[[str], bool]) -> Iterator[Span]:
    """Yield where in `text` the values behind `names` are.

    `names` are where each begins and where the sign behind it ends, from left to right; `bare` reads a value without
    quotes; `is_name` returns whether a word is itself the name of a secret.
    """
    # Neither is read twice, so that the work is linear: words to the same end, and what is in brackets or a block.
    read = walked = 0
    for name, end in names:
        at = _end(_BLANKS, text, end)
        nested = text[at : at + 1] == "%" and _ENCODED_BRACKETS.match(text, at) is not None
        at = _end(_ENCODED_BRACKETS, text, at) if nested else at
        first = text[at : at + 1]
        found: list[Span] = []
        if first in ("[", "{"):
            if at >= walked:
                walked, found = _in_brackets(text, at)
        elif first in ("", "\r", "\n") or (first in "|>" and _BLOCK_SCALAR.match(text, at)):
            if at >= walked:
                walked, found = _in_block(text, name, at)
        elif at >= read or _OPENING.match(text, at):
            read, found = _behind(text, at, read, bare, is_name, nested=nested)
        yield from found


def _behind(
    text: str, at: int, read: int, bare: re.Pattern[str], is_name: Callable[[str], bool], *, nested: bool
) -> tuple[int, list[Span]]:
    """Return how far words were read, and the value; where it is a name itself, the value behind that."""
    start, end, after = _scalar(text, at, bare)
    if after == end:  # without quotes: `db:` and `db:=` belong to the name
        read = max(read, end)
        while start < end and text[end - 1] in ":=":
            end -= 1
        after = end
    sign = _SIGN.match(text, after)
    if sign is None:
        return read, [(start, end)]
    found = [] if nested or is_name(text[start:end]) else [(start, end)]
    first, last, after = _scalar(text, sign.end(), bare)
    # Whether it is a name, or a secret before a sentence, is told by what follows: one value, or more words.
    after = _end(_BLANKS, text, after)
    if nested or text[after : after + 1] in ("", "\r", "\n", ",", ";", "}", "]", "#"):
        found.append((first, last))
    return read, found


def is_prose(words: str) -> bool:
    """Return whether `words` begin as a sentence about a secret goes on, and not as one."""
    return words.partition(" ")[0].rstrip(".,;:!").lower() in _PROSE


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _scalar(text: str, at: int, bare: re.Pattern[str] = BARE) -> tuple[int, int, int]:
    """Return where a value begins, where it ends, and where what is behind it begins: behind the quotes."""
    opening = _OPENING.match(text, at)
    if opening is None:
        end = _end(bare, text, at)
        return at, end, end
    quote, start = opening[0], opening.end()
    if quote in ('"', "'"):
        end = _end(_DOUBLE_QUOTED if quote == '"' else _SINGLE_QUOTED, text, start)
    else:
        end = text.find(quote, start)
        while end > start and quote[0] == "\\" and text[end - 1] == "\\":  # of a text in quotes within
            end = text.find(quote, end + 1)
        end = len(text) if end < 0 else end
    return start, end, min(len(text), end + len(quote))


def _in_brackets(text: str, at: int) -> tuple[int, list[Span]]:
    """Return where the list or the object at `at` ends, and the values in it, whatever their names."""
    found: list[Span] = []
    depth, name = 0, ""
    while token := _TOKEN.match(text, at):
        at = token.end()
        kind = token.lastgroup
        if kind == "open":
            depth, name = depth + 1, ""
        elif kind == "close":
            depth, name = depth - 1, ""
            if depth <= 0:
                break
        elif kind == "name":
            name = token["name"]
        else:
            start, end = token.span("bare")
            if kind == "quote":
                start, end, at = _scalar(text, token.start("quote"))
                if sign := _SIGN.match(text, at):
                    at, name = sign.end(), text[start:end]
                    continue
            else:
                end = start + len(text[start:end].rstrip())
            if not _PUBLIC.fullmatch(name) and (kind == "quote" or not is_prose(text[start:end])):
                found.append((start, end))
            name = ""
    return at, found


def _in_block(text: str, name: int, at: int) -> tuple[int, list[Span]]:
    """Return where the block of YAML ends that belongs to the name at `name`, and the values in it."""
    least = _indentation(text, text.rfind("\n", 0, name) + 1)
    if scalar := _BLOCK_SCALAR.match(text, at):
        return _in_block_scalar(text, scalar.end(), least)
    found: list[Span] = []
    begin = _end(_SPACE, text, at)
    at = text.rfind("\n", 0, begin) + 1
    if _indentation(text, at) <= least and text[begin : begin + 1] != "-":
        start, end, after = _scalar(text, begin)
        return after, [] if _TITLED.match(text, begin) else [(start, end)]
    while at < len(text) and (entry := _ENTRY.match(text, at)):
        value, deep, key = entry.end(), len(entry["indent"]), entry["name"] or ""
        if deep < least or (deep == least and not entry["dash"]):
            break
        if scalar := _BLOCK_SCALAR.match(text, value):
            at, spans = _in_block_scalar(text, scalar.end(), deep)
            found += spans
            continue
        after = value
        if text[value : value + 1] in ("[", "{"):
            after, spans = _in_brackets(text, value)
            found += spans
        elif not (_PUBLIC.fullmatch(key) or _TITLE.fullmatch(key) or _TITLED.match(text, value)):
            start, end, after = _scalar(text, value)
            found += [(start, end)] if not is_prose(text[start:end]) else []
        at = text.find("\n", after) + 1 or len(text)
    return at, found


def _in_block_scalar(text: str, at: int, least: int) -> tuple[int, list[Span]]:
    """Return where the text behind a `|` or a `>` ends, and where it stands: in lines deeper than `least`."""
    start = _end(_SPACE, text, at)
    end = at
    while at < len(text):
        following = text.find("\n", at) + 1 or len(text)
        if text[at:following].strip():
            if _indentation(text, at) <= least:
                break
            end = following
        at = following
    return end, [(start, start + len(text[start:end].rstrip()))] if start < end else []


def _indentation(text: str, at: int) -> int:
    return _end(_INDENTATION, text, at) - at
