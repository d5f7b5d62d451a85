"""How many files, and thereby connections, the process may have open."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

import structlog

log = structlog.get_logger(__name__)

OTHERS: Final = 64
"""Open files that are no connections: standard streams, stores, the model worker's pipes, what libraries keep open."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, as Go's programs do, and return what holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS does not take its own "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def warn_of_too_few(files: int, max_connections: int) -> None:
    """Log when `max_connections` on each of two listeners, and as many to Alertmanager, do not fit into `files`."""
    needed = 3 * max_connections + OTHERS
    if files != resource.RLIM_INFINITY and files < needed:
        log.warning(
            "web.max_connections do not fit into the limit of open files: raise it (ulimit -n, LimitNOFILE), or lower "
            "them",
            max_connections=max_connections,
            files=files,
            needed=needed,
        )
