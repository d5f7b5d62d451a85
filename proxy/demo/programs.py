"""The programs that the demo cannot do without, and the ports they take."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from proxy.demo.children import DemoError

HOST: Final = "127.0.0.1"
"""Nothing of the demo can be reached from other machines."""

_HERE: Final = Path(".tools", "bin")


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths."""

    prometheus: str
    alertmanager: str

    @classmethod
    def find(cls) -> Self:
        """Return the programs on PATH, else in .tools/bin. Raises DemoError that says what to install."""
        prometheus = find("prometheus")
        # Debian's package does not call it as everybody else does.
        alertmanager = find("prometheus-alertmanager", "alertmanager")
        if prometheus and alertmanager:
            return cls(prometheus, alertmanager)
        missing = [
            package
            for package, found in (("prometheus", prometheus), ("prometheus-alertmanager", alertmanager))
            if not found
        ]
        raise DemoError(
            f"not found on PATH, nor in {_HERE}: {', '.join(missing)}.\n"
            f"On Debian or Ubuntu: apt-get install --no-install-recommends {' '.join(missing)}\n"
            "Elsewhere: put the programs `prometheus` and `alertmanager` of a release on PATH."
        )


def find(*names: str) -> str | None:
    """Return the absolute path of the first of `names` on PATH, else in .tools/bin; None when there is none."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(_HERE)))
    found = next((found for name in names if (found := shutil.which(name, path=path))), None)
    return str(Path(found).absolute()) if found else None


def ports(default: int) -> Iterator[int]:
    """Yield ports to try in turn: the default one when nobody has it, then free ones.

    Somebody may be quicker between our look and the program's start: hence more than one.
    """
    yield default if is_free(default) else free_port()
    yield free_port()
    yield free_port()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Go's listeners do: a connection that lingers from the last demo is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
