"""Reading a YAML file of the operator's: every mistake with its line, all of them at once, in bounded time.

A reader of one kind of file is a subclass that walks the nodes it expects. What is not as expected is noted, and
reading goes on with nothing in its place.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Final, TypeVar

import yaml

from proxy.errors import ConfigError
from proxy.matchers import Matcher, parse_matcher

PROBLEMS: Final = 100
"""So many mistakes are told."""
_DEPTH: Final = 20
_STRING: Final = "tag:yaml.org,2002:str"
_NULL: Final = "tag:yaml.org,2002:null"
_QUOTED_LENGTH: Final = 60
"""So much of a text of the file is repeated in a message."""

_Choice = TypeVar("_Choice", bound=StrEnum)


class YamlReader:
    """Notes mistakes while a file is read."""

    def __init__(self, origin: str) -> None:
        """`origin` names the file in messages."""
        self._origin = origin
        self._problems: list[tuple[int, str]] = []

    def compose(self, text: str) -> yaml.Node | None:
        """Return what `text` is; None for nothing. Raises ConfigError when it is not YAML, or has aliases.

        An alias is refused because a few lines of them stand for a text without end.
        """
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast
        depth = 0
        try:
            # Composing crashes on endless nesting; the events are looked at first.
            for event in yaml.parse(text, Loader=loader):
                if isinstance(event, yaml.AliasEvent):
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    raise ConfigError([f"{self._origin}:{line}: an alias; write out what it stands for"])
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > _DEPTH:
                    raise RecursionError
            return yaml.compose(text, Loader=loader)
        except (yaml.YAMLError, RecursionError) as exc:
            mark = getattr(exc, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            what = getattr(exc, "problem", None) or "a character or a nesting it does not allow"
            raise ConfigError([f"{self._origin}:{line}: not YAML: {what}"]) from exc

    def finish(self) -> None:
        """Raise ConfigError if there were mistakes."""
        if not self._problems:
            return
        found = [f"{self._origin}:{line}: {message}" for line, message in sorted(self._problems)]
        more = len(found) - PROBLEMS
        raise ConfigError([*found[:PROBLEMS], *([f"{self._origin}: and {more} more"] if more > 0 else [])])

    def note(self, node: yaml.Node, message: str) -> None:
        """Remember a mistake: what, and what to do."""
        self._problems.append((_line(node), message))

    def at(self, node: yaml.Node) -> str:
        """Return where `node` stands."""
        return f"{self._origin}:{_line(node)}"

    def mapping(self, node: yaml.Node | None, keys: Collection[str]) -> dict[str, yaml.Node]:
        """Return the values of `node` by key, those with a key of `keys` alone; null holds nothing."""
        found: dict[str, yaml.Node] = {}
        for key_node, value in self._pairs(node, f"want a mapping with {', '.join(keys)}"):
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "of several parts"
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"want one of {', '.join(keys)}"
                self.note(key_node, f"unknown key {short(key)}; {hint}")
            elif key in found:
                self.note(key_node, f"{key} is given twice; keep one")
            else:
                found[key] = value
        return {key: value for key, value in found.items() if value.tag != _NULL}

    def texts_by_name(self, node: yaml.Node | None) -> dict[str, str]:
        """Return texts under names of any kind, such as labels."""
        found: dict[str, str] = {}
        for key, value in self._pairs(node, "want a mapping of names to texts"):
            name, text = self.text(key), self.text(value)
            if name in found:
                self.note(key, f"{short(name)} is given twice; keep one")
            elif name is not None and text is not None:
                found[name] = text
        return found

    def items(self, node: yaml.Node | None) -> list[yaml.Node]:
        """Return what is in a list; None holds nothing."""
        if node is None or node.tag == _NULL:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.note(node, "want a list, each entry after a -")
            return []
        return list(node.value)

    def texts(self, node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
        """Give the texts of a list, each with where it stands."""
        for item in self.items(node):
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
        if text != text.encode("utf-8", "replace").decode():
            self.note(node, "want a text; half of a surrogate pair is none")  # it would fail at the provider's door
            return None
        return text

    def line_of_text(self, node: yaml.Node | None, what: str, length: int) -> str:
        """Return a text of at most `length` characters, in one line whatever its layout; empty when there is none."""
        text = " ".join((self.text(node) or "").split())
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

    def matchers(self, node: yaml.Node | None, many: int) -> Iterator[tuple[Matcher, yaml.Node]]:
        """Give the matchers of a list, `many` at most, each with where it stands."""
        for n, (text, at) in enumerate(self.texts(node)):
            if n == many:
                self.note(at, f"more than {many} matchers; a regular expression may stand for many values: (a|b)")
                return
            try:
                yield parse_matcher(text), at
            except ValueError as exc:
                self.note(at, str(exc))

    def _pairs(self, node: yaml.Node | None, want: str) -> list[tuple[yaml.Node, yaml.Node]]:
        if node is None or node.tag == _NULL:
            return []
        if not isinstance(node, yaml.MappingNode):
            self.note(node, want)
            return []
        return list(node.value)


def short(text: str) -> str:
    """Return as much of `text` as a message may repeat."""
    return text if len(text) <= _QUOTED_LENGTH else text[: _QUOTED_LENGTH - 1] + "…"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
