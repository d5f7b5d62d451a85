"""What a proxy of a shared store knew last of its state, in a file of its own.

For a start at which the store does not answer: the proxy goes on as it was switched, beside others that do.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

NAME: Final = "switch.json"


class StateFile:
    """A `switch.Memory`. Nothing depends on it while the store answers: whatever goes wrong is logged once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: str | None = None
        self._saving = threading.Lock()
        self._failed = False

    def read(self) -> str | None:
        """Return what was written last, by this process or an earlier one; None when there is nothing to read."""
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def write(self, state: str) -> None:
        """Keep `state` in the place of what was written before; in a thread, since a disk may take its time."""
        if state != self._told:
            self._told = state
            asyncio.get_running_loop().run_in_executor(None, self._save)

    def _save(self) -> None:
        with self._saving:
            unfinished = self._path.with_name(self._path.name + ".new")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                unfinished.write_text(self._told or "", encoding="utf-8")
                unfinished.replace(self._path)
            except OSError as exc:
                if not self._failed:
                    log.info(
                        "the mode cannot be remembered here: should the store be away at the next start, the"
                        " configuration holds",
                        path=str(self._path),
                        error=exc.strerror,
                    )
                self._failed = True
