"""What opens Alertmanager's door: certificates and credentials, read again when their files change."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

import structlog
from multidict import CIMultiDict

log = structlog.get_logger(__name__)

T = TypeVar("T")
_Stamp = tuple[int, int, int] | None


class Watched(Generic[T]):
    """What is made of some files, and made anew when one of them has changed. The last good one holds."""

    def __init__(
        self,
        files: Callable[[], Sequence[Path]],
        make: Callable[[], T],
        *,
        on_read: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`make` raises OSError or ValueError for files that cannot be used, and then this does too. `files` gives the
        files that what was made last depends on. `on_read` hears of each later time whether it worked."""
        self._files = files
        self._make = make
        self._on_read = on_read
        before = self._stamps()
        self._made = make()
        self._seen = self._since(before)

    @property
    def current(self) -> T:
        """What the files say now. Costs a stat of each."""
        if (stamps := self._stamps()) != self._seen:
            names = ", ".join(map(str, self._files()))
            try:
                self._refuse_pipes()
                self._made = self._make()
            except (OSError, ValueError) as exc:
                # What is wrong is in the files, and the trace of no use.
                log.error("changed files cannot be used, what they said before holds", files=names, error=str(exc))
                self._on_read(False)
            else:
                log.info("changed files are read anew", files=names)
                self._on_read(True)
            self._seen = self._since(stamps)
        return self._made

    def _refuse_pipes(self) -> None:
        """Raise ValueError for a file that is a pipe now: reading it would wait for a writer, and alerts with it."""
        for file in self._files():
            if file.is_fifo():
                raise ValueError(f"{file} is a pipe, and can be read at the start only")

    def _since(self, before: dict[Path, _Stamp]) -> dict[Path, _Stamp]:
        """Return the stamps of what was made: those from before it, and now's of files that it has only just named."""
        return {file: before.get(file, now) for file, now in self._stamps().items()}

    def _stamps(self) -> dict[Path, _Stamp]:
        return {file: _stamp(file) for file in self._files()}


def _stamp(file: Path) -> _Stamp:
    """Return what changes when a file does, also when it is swapped for another, as Kubernetes does it."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class Access:
    """How Alertmanager is spoken to."""

    def __init__(
        self,
        *,
        context: Callable[[], ssl.SSLContext] | None = None,
        server_name: str | None = None,
        authorization: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`context` is of new connections, None for the system's own; `server_name` the name that its certificate must
        have, if not that of the URL. `authorization` returns that header's value, None where senders bring their own.
        """
        self._context = context
        self.server_name = server_name
        self._authorization = authorization

    @property
    def context(self) -> ssl.SSLContext | Literal[True]:
        """What aiohttp takes as `ssl`."""
        return self._context() if self._context is not None else True

    @property
    def has_credentials(self) -> bool:
        """Whether there is something to show."""
        return self._authorization() is not None

    def authorize(self, headers: CIMultiDict[str]) -> None:
        """Put our credentials, if there are any, in the place of those in `headers`."""
        if (value := self._authorization()) is not None:
            headers["Authorization"] = value


OPEN = Access()
"""Nothing is needed."""
