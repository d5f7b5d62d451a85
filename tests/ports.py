"""Ports of loopback for programs, which open them only later, and again when they are started again."""

from __future__ import annotations

import contextlib
import os
import random
import socket

PORTS = range(10_000, 19_000)
"""Below those that the kernel gives to outgoing connections, as are the same + 10,000."""

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ours = PORTS[_worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
_left = random.sample(_ours, len(_ours))


def free_port(*, and_bus: bool = False) -> int:
    """Return a port that nobody else gets; `and_bus`: nor the one 10,000 above, which a Cluster's server takes too."""
    while True:
        port = _left.pop()
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            if and_bus:
                other.bind(("127.0.0.1", port + 10_000))
            return port
