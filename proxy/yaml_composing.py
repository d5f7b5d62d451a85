"""From the text of an operator's file to YAML nodes, which know their lines.

PyYAML's own composer does it in one call into C, during which the event loop stands still; this one goes event by
event, and counts. Aliases are refused: a few lines of them stand for a text without end.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from proxy.errors import ConfigError

_DEPTH: Final = 20
_NODES: Final = 80_000
"""2,000 rules with everything a rule can say have fewer."""


def compose(text: str, origin: str) -> yaml.Node | None:
    """Return the node that `text` is, None for nothing. Raises ConfigError where it is not one document of YAML."""
    line, problem = 1, ""
    # Where libyaml finds a mistake PyYAML's own parser says it in plainer words.
    for kind in dict.fromkeys((getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader)):
        loader: Any = None
        try:
            loader = kind(text)
            return _Composer(loader).document()
        except _RefusedError as exc:
            line, problem = exc.line, str(exc)
            break
        except (yaml.YAMLError, RecursionError) as exc:
            mark = getattr(exc, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            what = getattr(exc, "problem", None) or "a character or a nesting it does not allow"
            problem = f"not YAML: {what}"
        finally:
            if loader:
                loader.dispose()
    # Outside of the handlers: the exceptions hold all nodes that were read.
    raise ConfigError([f"{origin}:{line}: {problem}"])


class _RefusedError(Exception):
    """YAML that is beyond what a file needs."""

    def __init__(self, what: str, event: Any) -> None:
        super().__init__(what)
        self.line = event.start_mark.line + 1


class _Composer:
    """Builds the nodes of one document."""

    def __init__(self, loader: Any) -> None:
        # libyaml's loader and PyYAML's own share no type.
        self._loader = loader
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
            raise _RefusedError("not YAML: another document begins here; a file is one", loader.get_event())
        return root

    def _node(self, depth: int) -> yaml.Node:
        if depth > _DEPTH:
            raise RecursionError
        event: Any = self._loader.get_event()
        self._nodes += 1
        if self._nodes > _NODES:
            raise _RefusedError(f"not YAML: more than {_NODES} values", event)
        if _is(event, yaml.AliasEvent):
            raise _RefusedError("an alias; write out what it stands for", event)
        node = self._begun(event)
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
