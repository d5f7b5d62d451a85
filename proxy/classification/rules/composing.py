"""From the text of a table to YAML nodes, which know their lines.

PyYAML's own composer does it in one call into C, during which the event loop stands still; this one goes event by
event, and counts. An alias is the node it names, as in PyYAML, so a list that is named a thousand times is one list;
who reads the nodes bounds how often they look into it.
"""

from __future__ import annotations

from typing import Any

import yaml

from proxy.errors import ConfigError

_DEPTH = 20
_NODES = 80_000
"""2,000 rules with everything a rule can say have fewer."""


def compose(text: str, origin: str) -> yaml.Node | None:
    """Return the node that `text` is, None for nothing. Raises ConfigError where it is not one document of YAML."""
    problem = 1, ""
    # Where libyaml finds a mistake PyYAML's own parser says it in plainer words.
    for kind in dict.fromkeys((getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader)):
        loader: Any = None
        try:
            loader = kind(text)
            return _Composer(loader).document()
        except _RefusedError as exc:
            problem = exc.line, exc.what
            break
        except (yaml.YAMLError, RecursionError) as exc:
            mark = getattr(exc, "problem_mark", None)
            problem = mark.line + 1 if mark else 1, getattr(exc, "problem", None) or ""
        finally:
            if loader:
                loader.dispose()
    # Outside of the handlers: the exceptions hold all nodes that were read.
    line, what = problem
    raise ConfigError([f"{origin}:{line}: not YAML: {what or 'a character or a nesting it does not allow'}"])


class _RefusedError(Exception):
    """YAML that is beyond what a table needs."""

    def __init__(self, what: str, event: Any) -> None:
        super().__init__(what)
        self.what, self.line = what, event.start_mark.line + 1


class _Composer:
    """Builds the nodes of one document."""

    def __init__(self, loader: Any) -> None:
        # libyaml's loader and PyYAML's own share no type.
        self._loader = loader
        self._anchors: dict[str, yaml.Node] = {}
        self._nodes = 0

    def document(self) -> yaml.Node | None:
        loader = self._loader
        loader.get_event()  # the stream begins
        if loader.check_event(yaml.StreamEndEvent):
            return None
        loader.get_event()
        root = self._node(0)
        loader.get_event()  # the document ends
        if not loader.check_event(yaml.StreamEndEvent):
            event = loader.get_event()
            raise _RefusedError("another document begins here; a table is one", event)
        return root

    def _node(self, depth: int) -> yaml.Node:
        if depth > _DEPTH:
            raise RecursionError
        event: Any = self._loader.get_event()
        self._nodes += 1
        if self._nodes > _NODES:
            raise _RefusedError(f"more than {_NODES} values", event)
        if _is(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _RefusedError(f"nothing is called &{event.anchor[:32]}", event)
            return self._anchors[event.anchor]
        node = self._begun(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if isinstance(node, yaml.SequenceNode):
            while not self._loader.check_event(yaml.SequenceEndEvent):
                node.value.append(self._node(depth + 1))
            self._loader.get_event()
        elif isinstance(node, yaml.MappingNode):
            while not self._loader.check_event(yaml.MappingEndEvent):
                node.value.append((self._node(depth + 1), self._node(depth + 1)))
            self._loader.get_event()
        return node

    def _begun(self, event: Any) -> yaml.Node:
        """Return the node that begins with `event`, a collection still empty."""
        if _is(event, yaml.ScalarEvent):
            tag = event.tag
            if tag is None or tag == "!":
                tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            begun, end = event.start_mark, event.end_mark
            return yaml.ScalarNode(tag, event.value, begun, end)
        kind = yaml.SequenceNode if isinstance(event, yaml.SequenceStartEvent) else yaml.MappingNode
        tag = event.tag or self._loader.resolve(kind, None, True)
        return kind(tag, [], event.start_mark, event.end_mark)


def _is(event: Any, kind: type[Any]) -> bool:
    return isinstance(event, kind)
