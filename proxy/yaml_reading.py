"""Reading a YAML file of the operator's: every mistake with its line, all of them at once, in bounded time.

A reader of one kind of file is a subclass that walks the nodes it expects. What is not as expected is noted, and
reading goes on with nothing in its place. A list with more in it than there may be is not looked into.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, TypeVar

import yaml

from proxy.errors import ConfigError
from proxy.matchers import Matcher, Pattern, parse_matcher
from proxy.yaml_composing import compose

PROBLEMS: Final = 100
"""So many mistakes are told before reading ends."""
NULL: Final = "tag:yaml.org,2002:null"
_STRING: Final = "tag:yaml.org,2002:str"
_QUOTED_LENGTH: Final = 60
"""So much of a text of the file is repeated in a message."""

_Choice = TypeVar("_Choice", bound=StrEnum)


class YamlReader:
    """Notes mistakes while a file is read."""

    def __init__(self, origin: str, size: int) -> None:
        """`origin` names the file in messages; its regular expressions have at most `size` instructions together."""
        self._origin = origin
        self._most = size
        self._size = 0
        self._problems: list[tuple[int, str]] = []

    def compose(self, text: str) -> yaml.Node | None:
        """Return what `text` is; None for nothing. Raises ConfigError when it is not YAML, or is too much."""
        return compose(text, self._origin)

    def finish(self) -> None:
        """Raise ConfigError if there were mistakes."""
        if self._problems:
            raise ConfigError(self._told())

    def note(self, at: yaml.Node | int, message: str) -> None:
        """Remember a mistake in a node or a line: what, and what to do. Raises ConfigError when there are too many."""
        if len(self._problems) == PROBLEMS:
            more = f"{self._origin}: more mistakes than these {PROBLEMS}; reading ended there"
            raise ConfigError([*self._told(), more])
        self._problems.append((at if isinstance(at, int) else line(at), message))

    def at(self, node: yaml.Node) -> str:
        """Return where `node` stands."""
        return f"{self._origin}:{line(node)}"

    def mapping(self, node: yaml.Node | None, keys: Collection[str]) -> dict[str, yaml.Node]:
        """Return the values of `node` by key, those with a key of `keys` alone; None and null hold nothing."""
        found: dict[str, yaml.Node] = {}
        for key_node, value in _inside(self._mapping(node, f"want a mapping with {', '.join(keys)}")):
            if not isinstance(key_node, yaml.ScalarNode):
                self.note(key_node, f"want a word as a key, one of {', '.join(keys)}")
            elif (key := str(key_node.value)) not in keys:
                near = difflib.get_close_matches(short(key), keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"want one of {', '.join(keys)}"
                self.note(key_node, f"unknown key {short(key)}; {hint}")
            elif key in found:
                self.note(key_node, f"{key} is given twice; keep one")
            else:
                found[key] = value
        return found

    def pairs(
        self, node: yaml.Node | None, most: int, what: str, instead: str = ""
    ) -> Sequence[tuple[yaml.Node, yaml.Node]]:
        """Return keys of any name, and their values; none of them when they are more than `most`."""
        return self._few(self._mapping(node, "want a mapping"), most, what, instead)

    def texts_by_name(self, node: yaml.Node | None, most: int, what: str) -> dict[str, str]:
        """Return texts under names of any kind, such as labels; none of them when they are more than `most`."""
        found: dict[str, str] = {}
        for key, value in self._few(self._mapping(node, "want a mapping of names to texts"), most, what):
            name, text = self.text(key), self.text(value)
            if name in found:
                self.note(key, f"{short(name)} is given twice; keep one")
            elif name is not None and text is not None:
                found[name] = text
        return found

    def items(self, node: yaml.Node | None, most: int, what: str, instead: str = "") -> Sequence[yaml.Node]:
        """Return what is in a list; nothing when that is more than `most`. None and null hold nothing."""
        if node is None or node.tag == NULL:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self.note(node, "want a list, each entry after a -")
            return ()
        return self._few(node, most, what, instead)

    def texts(self, node: yaml.Node | None, most: int, what: str, instead: str = "") -> Iterator[tuple[str, yaml.Node]]:
        """Give the texts of a list, each with where it stands."""
        for item in self.items(node, most, what, instead):
            text = self.text(item)
            if text is not None:
                yield text, item

    def text(self, node: yaml.Node | None) -> str | None:
        """Return a text that says something."""
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self.note(node, "want a text")
            return None
        text = str(node.value)
        if node.tag != _STRING or not text.strip():
            self.note(node, f"want a text; put {short(text) or 'it'} in quotes if it is meant as one")
            return None
        try:
            text.encode()
        except UnicodeEncodeError:  # it would fail wherever it is sent to
            self.note(node, "half a character (a lone surrogate), which no text can have")
            return None
        return text

    def bounded(self, node: yaml.Node | None, text: str, what: str, length: int) -> str:
        """Return the text of `node`; one of more than `length` characters is a mistake."""
        if node is not None and len(text) > length:
            self.note(node, f"{what} of {len(text)} characters, want at most {length}")
        return text

    def choice(self, node: yaml.Node | None, choices: type[_Choice]) -> _Choice | None:
        """Return one of a closed set."""
        text = self.text(node)
        if node is None or text is None:
            return None
        if text not in tuple(choices):
            self.note(node, f"unknown {choices.__name__.lower()} {short(text)}, want one of {', '.join(choices)}")
            return None
        return choices(text)

    def matchers(self, node: yaml.Node | None, most: int) -> Iterator[tuple[Matcher, yaml.Node]]:
        """Give the matchers of a list, `most` at most, each with where it stands; none once the file is full."""
        instead = "; a regular expression may stand for many values: (a|b)"
        for text, at in self.texts(node, most, "matchers", instead):
            if self.full:
                return
            try:
                matcher = parse_matcher(text)
            except ValueError as exc:
                self.note(at, str(exc))
                continue
            if matcher.pattern is not None:
                self.count(matcher.pattern, at)
            yield matcher, at

    def count(self, pattern: Pattern, node: yaml.Node) -> None:
        """Add an expression to those of the file; note when they become too large together."""
        self._size += pattern.size
        if self.full:
            self.note(
                node,
                f"the regular expressions up to here have {self._size} instructions, want at most {self._most}; fewer "
                "or shorter ones",
            )

    @property
    def full(self) -> bool:
        """Whether the regular expressions are too large together; that is said, and no more of them are to be made."""
        return self._size > self._most

    def _told(self) -> list[str]:
        return [f"{self._origin}:{where}: {message}" for where, message in sorted(self._problems)]

    def _mapping(self, node: yaml.Node | None, want: str) -> yaml.MappingNode | None:
        if node is None or node.tag == NULL:
            return None
        if not isinstance(node, yaml.MappingNode):
            self.note(node, want)
            return None
        return node

    def _few(self, node: yaml.CollectionNode | None, most: int, what: str, instead: str = "") -> Sequence[Any]:
        found = _inside(node)
        if node is not None and len(found) > most:
            self.note(node, f"{len(found)} {what}, want at most {most}{instead}")
            return ()
        return found


def short(text: str) -> str:
    """Return as much of `text` as a message may repeat, in one line and without half a character."""
    text = text if len(text) <= _QUOTED_LENGTH else text[: _QUOTED_LENGTH - 1] + "…"
    return text if text.isprintable() else repr(text)[1:-1]


def line(node: yaml.Node) -> int:
    """Return the line in which `node` begins; the first is 1."""
    return int(node.start_mark.line) + 1


def _inside(node: yaml.CollectionNode | None) -> Sequence[Any]:
    return () if node is None else tuple(node.value)
