"""What the demo's proxy complains about, for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

_SERIOUS: Final = frozenset({"warning", "error", "critical"})
_DETAILS: Final = ("problem", "reason", "error", "model")


class ProxyLog:
    """Reads the proxy's log, and says each complaint once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def hear(self, line: str) -> None:
        """Take one line of the log."""
        try:
            event = json.loads(line)
        except ValueError:
            return  # of a start that fails; it is shown with the failure
        if not isinstance(event, dict) or event.get("level") not in _SERIOUS:
            return
        details = "".join(f", {name} {event[name]}" for name in _DETAILS if event.get(name))
        complaint = f"The proxy: {event.get('event')}{details}"
        if complaint not in self._said:
            self._said.add(complaint)
            self._say(complaint)
