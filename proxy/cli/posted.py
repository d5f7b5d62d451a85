"""Bodies of POSTs, as commands are given them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.alert import Alert


UNUSUAL: Final = "it is written as Prometheus would not write it"
"""Why no model is asked about an alert that can be read."""


class Unreadable(Exception):
    """There are no alerts to be had; the text says why, for the operator."""


@dataclass(frozen=True, slots=True)
class Posted:
    """One element of a body."""

    alert: Alert | None
    """None: its labels cannot be read."""
    why_unread: str = ""
    """Why not."""
    usual: bool = True
    """Whether it is written as Prometheus writes alerts: a model is asked about no other."""


def read(body: str) -> Sequence[Posted]:
    """Return what is in the file `body` (`-`: standard input), in its order. Raises Unreadable."""
    from proxy.errors import DecodeError
    from proxy.gateway import alerts  # late: the other commands need none of it

    try:
        batch = alerts.decode(sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes())
    except OSError as exc:
        raise Unreadable(f"{body}: cannot read the file: {exc.strerror}") from None
    except DecodeError:
        raise Unreadable(f"{body}: want a JSON array of alerts, as Prometheus posts it to /api/v2/alerts") from None
    found = []
    for item in batch.items:
        try:
            found.append(Posted(item.read(), usual=batch.usual and item.usual))
        except ValueError as exc:
            found.append(Posted(None, f"its labels: {exc}"))
    return found
