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


class Watched(Generic[T]):
    """What is made of some files, and made anew when one of them has changed. The last good one holds."""

    def __init__(
        self, files: Sequence[Path], make: Callable[[], T], *, on_read: Callable[[bool], None] = lambda _: None
    ) -> None:
        """`make` raises OSError or ValueError for files that cannot be used, and then this does too. `on_read` hears of
        each later time whether it worked."""
        self._files = files
        self._make = make
        self._on_read = on_read
        self._seen = self._stamps()
        self._made = make()

    @property
    def current(self) -> T:
        """What the files say now. Costs a stat of each."""
        if (stamps := self._stamps()) != self._seen:
            self._seen = stamps
            names = ", ".join(map(str, self._files))
            try:
                self._made = self._make()
            except (OSError, ValueError) as exc:
                # What is wrong is in the files, and the trace of no use.
                log.error("changed files cannot be used, what they said before holds", files=names, error=str(exc))
                self._on_read(False)
            else:
                log.info("changed files are read anew", files=names)
                self._on_read(True)
        return self._made

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: Path) -> tuple[int, int, int] | None:
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
